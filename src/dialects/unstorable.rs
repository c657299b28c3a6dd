//! Why a reply cannot be stored, if the reply itself is the reason.

/// Why a reply cannot be replayed as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unstorable {
    /// A member, or a type of a known one, for which no exact replay is known.
    UnknownMember,
    /// The same member came twice, in ways that have no certain sum.
    Uncertain,
    /// An event that is neither JSON nor UTF-8.
    Garbled,
    /// The reply carries an error.
    Error,
    /// The stream ended before its last event.
    Incomplete,
    /// A choice ended by a filter, or gives no reason; a response is not completed.
    Unfinished,
    /// A choice has no content.
    Empty,
    /// A member that every chunk of a replay repeats is too long.
    Envelope,
    /// It is a stream, of a route that stores whole replies only.
    Stream,
    /// It is larger than `upstream.answer_bytes_max`.
    TooLarge,
}
