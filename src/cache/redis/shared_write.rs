//! A value that is written with its event, under which conditions, and what came of it.

use crate::cache::change_log::EntryFingerprint;
use crate::cache::lease::Lease;
use crate::domain::Key;

/// What a write may replace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replaces {
    /// Anything, or nothing.
    #[default]
    Any,
    /// What this write has written.
    Write(u64),
    /// Nothing.
    Nothing,
    /// Nothing, and no event of the key is behind this one: what this node has is not changed by one that it has not read.
    NothingSince(u64),
}

/// The write is not made if the key has events behind this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) struct NoneBehind {
    /// The last event of the shard that this node has applied.
    pub(in crate::cache) number: u64,
    /// Whether those of other nodes do not matter.
    pub(in crate::cache) ignores_others: bool,
}

/// A value to be written with its event.
#[derive(Debug, Clone, Copy)]
pub(in crate::cache) struct SharedWrite<'a> {
    pub(in crate::cache) key: Key,
    /// The envelope and the milliseconds that it lives. `None` removes the value.
    pub(in crate::cache) value: Option<(&'a [u8], u64)>,
    /// The entry, also if its value is too long for Redis. `None` if it is removed.
    pub(in crate::cache) entry: Option<EntryFingerprint>,
    pub(in crate::cache) replaces: Replaces,
    /// Events of the key that must not have come before the write.
    pub(in crate::cache) after: Option<NoneBehind>,
    /// The lease of the key that the writer holds.
    pub(in crate::cache) lease: Option<Lease>,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Written {
    /// It is the event of this number.
    Done(u64),
    /// Redis holds another value than the one that was to be replaced.
    Conflict,
    /// Another node has changed the key, by an event that this node has not applied.
    Contested,
    /// This node has changed the key by an event that it has not applied; or the events that it has not applied are too many to be
    /// looked at.
    Behind,
    /// The lease of the writer has ended.
    LeaseEnded,
}

impl Replaces {
    pub(super) fn none_behind(self) -> Option<NoneBehind> {
        match self {
            Replaces::NothingSince(number) => Some(NoneBehind { number, ignores_others: false }),
            Replaces::Any | Replaces::Write(_) | Replaces::Nothing => None,
        }
    }

    pub(super) fn argument(self) -> Vec<u8> {
        match self {
            Replaces::Any => Vec::new(),
            Replaces::Nothing | Replaces::NothingSince(_) => b"-".into(),
            Replaces::Write(id) => id.to_le_bytes().into(),
        }
    }
}
