//! Why a reply was not stored as an answer: one word each, in headers, trailers and metrics.

use crate::upstream::Unfit;

/// Why a reply was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The reply itself is the reason.
    Unfit(Unfit),
    /// The request's temperature is above `answers.temperature_max`.
    Temperature,
    /// A number of the request cannot be told from others.
    Number,
    /// The request says so.
    NoStore,
    /// It calls tools, and `answers.keeps_tool_calls` is off.
    ToolCalls,
    /// It is larger than its namespace allows.
    TooLarge,
    /// Something that it depends on was invalidated meanwhile.
    Invalidated,
    /// It was deleted while it was made.
    Deleted,
    /// A later request for the same has been answered before.
    Outrun,
    /// The disk did not take it: it is in memory only.
    Disk,
    /// It succeeds, and is no chat completion.
    NoAnswer,
    /// Its status is none of success.
    Status,
    /// It is compressed in a way that cannot be read.
    Encoding,
    /// All clients left before its end.
    Abandoned,
}

impl Reason {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Unfit(unfit) => unfit.label(),
            Reason::Temperature => "temperature",
            Reason::Number => "number",
            Reason::NoStore => "no_store",
            Reason::ToolCalls => "tool_calls",
            Reason::TooLarge => Unfit::TooLarge.label(),
            Reason::Invalidated => "invalidated",
            Reason::Deleted => "deleted",
            Reason::Outrun => "outrun",
            Reason::Disk => "disk",
            Reason::NoAnswer => "no_answer",
            Reason::Status => "status",
            Reason::Encoding => "encoding",
            Reason::Abandoned => "abandoned",
        }
    }

    /// Whether the upstream succeeded with something that is no answer.
    pub(super) fn is_no_answer(self) -> bool {
        matches!(self, Reason::NoAnswer | Reason::Encoding)
    }
}

impl From<Unfit> for Reason {
    fn from(unfit: Unfit) -> Reason {
        Reason::Unfit(unfit)
    }
}
