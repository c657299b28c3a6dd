//! The shape of an error in a stream of a response.

use serde_json::{Value, json};

use crate::dialects::ErrorReply;
use crate::dialects::choices::error_body;

/// An error as an event of a stream that has begun. It has the members that OpenAI documents, and `error`, by which its clients raise it. The
/// number is none of the stream's: how many events the upstream has sent is not counted here.
pub(super) fn error_event(error: &ErrorReply<'_>) -> Vec<u8> {
    let body: Value = serde_json::from_slice(&error_body(error)).unwrap_or_default();
    let event = json!({ "type": "error", "sequence_number": 0, "code": error.code, "message": error.message,
        "param": error.param, "error": body["error"] });
    format!("event: error\ndata: {event}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::ErrorClass;
    use crate::sse::Event;

    #[test]
    fn an_error_in_a_stream_is_an_event_of_its_own_type() {
        let error = ErrorReply {
            message: "too slow",
            class: ErrorClass::Server,
            param: None,
            code: "timeout",
            request_id: None,
        };
        let event = Event::read(error_event(&error).into());
        let data: Value = serde_json::from_str(&event.data.unwrap()).unwrap();
        assert!(event.is_error);
        assert_eq!(
            (&data["type"], &data["code"], &data["message"]),
            (&json!("error"), &json!("timeout"), &json!("too slow"))
        );
        assert_eq!(data["error"]["type"], "server_error");
    }
}
