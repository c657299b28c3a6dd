//! Under which conditions an entry is stored.

use super::lease::HeldLease;
use super::redis::Replaces;

/// Under which conditions an entry is stored where other nodes change it too.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteCondition {
    /// What it replaces.
    pub replaces: Replaces,
    /// The lease under which it was made, which must not have ended.
    pub lease: Option<HeldLease>,
}

impl From<Replaces> for WriteCondition {
    fn from(replaces: Replaces) -> WriteCondition {
        WriteCondition { replaces, lease: None }
    }
}
