//! Why a reply cannot be stored, if the reply itself is the reason.

/// What is wrong with a reply as an answer to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unstorable {
    /// A member, or a type of a known one, for which no exact replay is known.
    UnknownMember,
    /// The same member was said twice, in ways that have no certain sum.
    Uncertain,
    /// An event that is neither JSON nor UTF-8.
    Garbled,
    /// The reply carries an error.
    Error,
    /// It ended without its end.
    Incomplete,
    /// A choice ended by a limit or a filter, or gives no reason.
    Unfinished,
    /// A choice says nothing.
    Empty,
    /// A member that every chunk of a replay repeats is too long.
    Envelope,
    /// It is larger than `upstream.answer_bytes_max`.
    TooLarge,
}
