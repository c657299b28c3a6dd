//! The shape of errors in OpenAI's API.

use serde::Serialize;

use crate::dialects::{ErrorClass, ErrorReply};
use crate::labels::label_enum;

label_enum! {
    /// The `type` of an error.
    pub enum ErrorType {
        /// The request has no valid key.
        Authentication = "authentication_error",
        /// A limit is reached; a retry may succeed.
        RateLimit = "rate_limit_error",
        /// The request cannot succeed as it is.
        InvalidRequest = "invalid_request_error",
        /// The server or its upstream failed.
        Server = "server_error",
    }
}

impl From<ErrorClass> for ErrorType {
    fn from(class: ErrorClass) -> ErrorType {
        match class {
            ErrorClass::Authentication => ErrorType::Authentication,
            ErrorClass::RateLimit => ErrorType::RateLimit,
            ErrorClass::InvalidRequest => ErrorType::InvalidRequest,
            ErrorClass::Server => ErrorType::Server,
        }
    }
}

#[derive(Serialize)]
struct ErrorEnvelope<'a> {
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
    let class = ErrorType::from(error.class).as_str();
    serde_json::to_vec(&ErrorEnvelope { error: ErrorMember { message, class, param, code } })
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
            request_id: None,
        };
        let body = r#"{"error":{"message":"model must be a string","type":"invalid_request_error","param":"model","code":"invalid_input"}}"#;
        assert_eq!(String::from_utf8(error_body(&error)).unwrap(), body);
        assert_eq!(String::from_utf8(error_event(&error)).unwrap(), format!("data: {body}\n\n"));
    }
}
