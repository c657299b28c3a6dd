//! The log of changes that nodes share: its events, and where a follower stands in it. Plain values.

mod cursor;
mod event;
mod new_token;

pub(super) use cursor::{Cursor, Gap, Reading, ShardState};
pub(super) use event::{Event, KIND_KEY, NodeId, SharedChange};
pub(super) use new_token::NewToken;
