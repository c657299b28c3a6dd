//! The shape of errors in OpenAI's API.

use serde::Serialize;

use crate::dialects::{ErrorClass, ErrorReply};

#[derive(Serialize)]
struct Envelope<'a> {
    error: ErrorMember<'a>,
}

#[derive(Serialize)]
struct ErrorMember<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    class: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

/// The body of an error response.
pub fn error_body(error: &ErrorReply<'_>) -> Vec<u8> {
    let ErrorReply { message, param, code, .. } = *error;
    let class = match error.class {
        ErrorClass::Authentication => "authentication_error",
        ErrorClass::RateLimit => "rate_limit_error",
        ErrorClass::InvalidRequest => "invalid_request_error",
        ErrorClass::Server => "server_error",
    };
    serde_json::to_vec(&Envelope { error: ErrorMember { message, class, param, code } })
        .expect("an error is made of texts: this is a bug")
}

/// An error as an event of a stream that has begun: OpenAI's clients raise it.
pub fn error_event(error: &ErrorReply<'_>) -> Vec<u8> {
    [b"data: ", &*error_body(error), b"\n\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_openais_shape_in_a_body_and_in_an_event() {
        let error = ErrorReply {
            message: "model must be a string",
            class: ErrorClass::InvalidRequest,
            param: Some("model"),
            code: "invalid_input",
        };
        let body = r#"{"error":{"message":"model must be a string","type":"invalid_request_error","param":"model","code":"invalid_input"}}"#;
        assert_eq!(String::from_utf8(error_body(&error)).unwrap(), body);
        assert_eq!(String::from_utf8(error_event(&error)).unwrap(), format!("data: {body}\n\n"));
    }
}
