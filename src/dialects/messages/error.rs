//! The shape of errors in Anthropic's API.

use serde::Serialize;

use crate::dialects::{ErrorClass, ErrorReply};

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicErrorObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct AnthropicErrorObject {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
    code: &'static str,
}

/// The body of an error response.
pub(super) fn error_body(error: &ErrorReply<'_>) -> Vec<u8> {
    let object = AnthropicErrorObject { kind: type_of(error), message: message(error), code: error.code };
    serde_json::to_vec(&AnthropicError { kind: "error", error: object, request_id: error.request_id })
        .expect("an error is made of texts: this is a bug")
}

/// An error as an event of a stream that has begun: Anthropic's clients raise it.
pub(super) fn error_event(error: &ErrorReply<'_>) -> Vec<u8> {
    [b"event: error\ndata: ", &*error_body(error), b"\n\n"].concat()
}

/// The shape has no member for the field at fault, so the message names it.
fn message(error: &ErrorReply<'_>) -> String {
    match error.param.filter(|param| !error.message.contains(param)) {
        Some(param) => format!("{param}: {}", error.message),
        None => error.message.to_owned(),
    }
}

/// The `type` by which Anthropic's clients know an error.
fn type_of(error: &ErrorReply<'_>) -> &'static str {
    match (error.class, error.code) {
        (_, "forbidden") => "permission_error",
        (_, "not_found" | "model_not_found") => "not_found_error",
        (_, "too_large") => "request_too_large",
        (_, "unavailable") => "overloaded_error",
        (ErrorClass::Server, "timeout") => "timeout_error",
        (ErrorClass::Authentication, _) => "authentication_error",
        (ErrorClass::RateLimit, _) => "rate_limit_error",
        (ErrorClass::InvalidRequest, _) => "invalid_request_error",
        (ErrorClass::Server, _) => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply<'a>(message: &'a str, class: ErrorClass, code: &'static str) -> ErrorReply<'a> {
        ErrorReply { message, class, param: Some("model"), code, request_id: None }
    }

    #[test]
    fn an_error_has_anthropics_shape_in_a_body_and_in_an_event() {
        let error = reply("model must be a string", ErrorClass::InvalidRequest, "invalid_input");
        let error = ErrorReply { request_id: Some("req_1"), ..error };
        let body = r#"{"type":"error","error":{"type":"invalid_request_error","message":"model must be a string","code":"invalid_input"},"request_id":"req_1"}"#;
        assert_eq!(String::from_utf8(error_body(&error)).unwrap(), body);
        let event = String::from_utf8(error_event(&error)).unwrap();
        assert_eq!(event, format!("event: error\ndata: {body}\n\n"));
    }

    #[test]
    fn the_message_names_the_field() {
        let body = error_body(&reply("it is too long", ErrorClass::InvalidRequest, "invalid_input"));
        assert!(String::from_utf8(body).unwrap().contains(r#""message":"model: it is too long""#));
    }

    #[test]
    fn each_kind_has_its_type() {
        for (class, code, expected) in [
            (ErrorClass::InvalidRequest, "invalid_input", "invalid_request_error"),
            (ErrorClass::InvalidRequest, "model_not_found", "not_found_error"),
            (ErrorClass::InvalidRequest, "too_large", "request_too_large"),
            (ErrorClass::InvalidRequest, "forbidden", "permission_error"),
            (ErrorClass::Authentication, "unauthorized", "authentication_error"),
            (ErrorClass::RateLimit, "overloaded", "rate_limit_error"),
            (ErrorClass::Server, "unavailable", "overloaded_error"),
            (ErrorClass::Server, "timeout", "timeout_error"),
            (ErrorClass::Server, "not_cached", "api_error"),
            (ErrorClass::Server, "upstream", "api_error"),
        ] {
            assert_eq!(type_of(&reply("a", class, code)), expected, "{code}");
        }
    }
}
