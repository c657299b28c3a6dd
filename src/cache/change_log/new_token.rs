//! A new token on its way to the change log.

use crate::cache::invalidation_tokens::{Mode, Subject, TokenChange};
use crate::domain::InvalidationId;

/// A new token of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) struct NewToken {
    pub(in crate::cache) subject: Subject,
    pub(in crate::cache) token: u64,
    pub(in crate::cache) mode: Mode,
}

impl NewToken {
    /// The new token of a change. `None` for what is forgotten.
    pub(in crate::cache) fn of_change(change: &TokenChange) -> Option<NewToken> {
        let (subject, history) = (change.subject()?, change.history()?);
        let mode = if history.has_outdated() { Mode::Soft } else { Mode::Hard };
        Some(NewToken { subject, token: history.token(), mode })
    }
}

impl Subject {
    /// Nothing for everything, otherwise eight bytes of an invalidation id.
    pub(in crate::cache) fn bytes(self) -> Vec<u8> {
        match self {
            Subject::Everything => Vec::new(),
            Subject::Id(id) => id.0.to_le_bytes().into(),
        }
    }

    /// The subject of these bytes.
    pub(in crate::cache) fn of_bytes(bytes: &[u8]) -> Option<Subject> {
        match bytes {
            [] => Some(Subject::Everything),
            id => Some(Subject::Id(InvalidationId(u64::from_le_bytes(id.try_into().ok()?)))),
        }
    }
}
