//! Why a reply was not stored as an answer: one word each, in headers, trailers and metrics.

use crate::dialects::Unstorable;

/// Why a reply was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The reply itself is the reason.
    Unstorable(Unstorable),
    /// The request's temperature is above `answers.temperature_max`.
    Temperature,
    /// A number of the request cannot be represented exactly.
    Number,
    /// The request sends `no-store`.
    NoStore,
    /// It calls tools, and `answers.cache_tool_calls` is off.
    ToolCalls,
    /// It is larger than its namespace allows.
    TooLarge,
    /// One of its tags was invalidated since the generation began.
    Invalidated,
    /// It was deleted while it was in flight.
    Deleted,
    /// The answer of a later generation was stored before.
    Superseded,
    /// The disk write failed: it is in memory only.
    Disk,
    /// The reply is a success and no chat completion.
    NoAnswer,
    /// The status of the reply is not a success.
    Status,
    /// The reply is compressed in a way that cannot be read.
    Encoding,
    /// All clients disconnected before its end.
    Abandoned,
}

impl Reason {
    /// The label in headers and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Unstorable(unstorable) => unstorable.label(),
            Reason::Temperature => "temperature",
            Reason::Number => "number",
            Reason::NoStore => "no_store",
            Reason::ToolCalls => "tool_calls",
            Reason::TooLarge => Unstorable::TooLarge.label(),
            Reason::Invalidated => "invalidated",
            Reason::Deleted => "deleted",
            Reason::Superseded => "superseded",
            Reason::Disk => "disk",
            Reason::NoAnswer => "no_answer",
            Reason::Status => "status",
            Reason::Encoding => "encoding",
            Reason::Abandoned => "abandoned",
        }
    }

    /// Whether the upstream sent a success that is no answer.
    pub(super) fn is_no_answer(self) -> bool {
        matches!(self, Reason::NoAnswer | Reason::Encoding)
    }
}

impl From<Unstorable> for Reason {
    fn from(unstorable: Unstorable) -> Reason {
        Reason::Unstorable(unstorable)
    }
}
