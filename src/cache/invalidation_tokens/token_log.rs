//! Where tokens are durable.

use std::collections::HashMap;
use std::fmt::Debug;

use futures_util::future::BoxFuture;

use super::history::TokenHistory;
use crate::domain::{ByPrefix, InvalidationId};
use crate::error::Result;

/// The record of all that tenants other than the default one have: an invalidation id that no entry carries, as programs from
/// before there were tenants read it.
pub(super) const OTHER_TENANTS: InvalidationId = InvalidationId(u64::from_le_bytes(*b"tenants*"));

pub(in crate::cache) type InvalidationIds = HashMap<InvalidationId, TokenHistory, ByPrefix>;

/// The tokens that a log holds.
#[derive(Debug)]
pub struct LoadedTokens {
    pub(in crate::cache) everything: TokenHistory,
    pub(in crate::cache) invalidation_ids: InvalidationIds,
}

/// A change of the tokens.
#[derive(Debug)]
pub enum TokenChange {
    /// Everything has new tokens.
    Everything(TokenHistory),
    /// An invalidation id has new tokens.
    InvalidationId(InvalidationId, TokenHistory),
    /// An invalidation id has no tokens of its own.
    Forget(InvalidationId),
}

/// Queues changes at once, in the order of the calls. The future returns when they are durable; they are made also if it is
/// dropped.
pub type QueueChanges = Box<dyn FnOnce(Vec<TokenChange>) -> Result<BoxFuture<'static, Result<()>>> + Send>;

/// The durable copy of all tokens. The table in memory judges; the log is loaded at the start and receives each change.
pub trait TokenLog: Debug + Send + Sync {
    /// The tokens that the log holds. A log without the tokens of everything, or those of all other tenants, draws random
    /// ones: entries that were stored before its tokens were lost are misses. Blocks.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Corrupt`.
    fn load(&self) -> BoxFuture<'_, Result<LoadedTokens>>;

    /// Waits for room in the queue for so many changes. The caller queues them under the lock of its table, so that memory and
    /// log agree on which of two invalidations came last.
    ///
    /// # Errors
    /// `Unavailable` if the log takes no more changes.
    fn append(&self, changes: usize) -> BoxFuture<'_, Result<QueueChanges>>;
}
