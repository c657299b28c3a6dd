//! How the errors of a route are written: as the clients of its API read them.

use serde_json::json;

use crate::dialects::{Dialect, ErrorClass, ErrorReply};

/// The shape of the errors of a route.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum ErrorShape {
    /// That of OpenAI's API.
    #[default]
    OpenAi,
    /// That of a dialect.
    Of(&'static dyn Dialect),
    /// `{"error": "...", "error_type": "..."}`, as Text Embeddings Inference writes it.
    TextEmbeddingsInference,
    /// `{"error": "..."}`.
    Ollama,
    /// `{"message": "..."}`.
    Cohere,
}

impl ErrorShape {
    /// The body of an error; none for the shape that it has already.
    pub(super) fn body(self, reply: &ErrorReply<'_>) -> Option<Vec<u8>> {
        let message = reply.message;
        let body = match self {
            ErrorShape::OpenAi => return None,
            ErrorShape::Of(dialect) => return Some(dialect.error_body(reply)),
            ErrorShape::TextEmbeddingsInference => json!({ "error": message, "error_type": type_of(reply) }),
            ErrorShape::Ollama => json!({ "error": message }),
            ErrorShape::Cohere => json!({ "message": message }),
        };
        Some(body.to_string().into_bytes())
    }

    /// Distinguishes the shapes.
    pub(super) fn number(self) -> u16 {
        match self {
            ErrorShape::OpenAi => 0,
            ErrorShape::TextEmbeddingsInference => 1,
            ErrorShape::Ollama => 2,
            ErrorShape::Cohere => 3,
            ErrorShape::Of(dialect) => 256 + u16::from(dialect.record_code()),
        }
    }
}

/// The `ErrorType` of Text Embeddings Inference (`router/src/lib.rs`).
fn type_of(reply: &ErrorReply<'_>) -> &'static str {
    match (reply.class, reply.code) {
        (ErrorClass::RateLimit, _) => "Overloaded",
        (_, "unavailable") => "Unhealthy",
        (ErrorClass::InvalidRequest | ErrorClass::Authentication, _) => "Validation",
        (ErrorClass::Server, _) => "Backend",
    }
}
