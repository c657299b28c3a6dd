//! The log of changes that nodes share: its events, and where a follower stands in it. Plain values.

mod cursor;
mod event;
mod fingerprint;
mod new_token;

pub(super) use cursor::{Gap, LogCursor, LogPosition, Reading, ShardState};
pub(super) use event::{KIND_KEY, KIND_LEASE_ENDED, LogEvent, NodeId, SharedChange};
pub(super) use fingerprint::EntryFingerprint;
pub(super) use new_token::NewToken;
