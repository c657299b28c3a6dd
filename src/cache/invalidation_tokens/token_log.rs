//! Where tokens are durable.

use std::collections::HashMap;
use std::fmt::Debug;

use futures_util::future::BoxFuture;

use super::history::TokenHistory;
use crate::domain::{ByPrefix, InvalidationId};
use crate::error::Result;
use crate::labels::label_enum;

/// The record of all that tenants other than the default one have: an invalidation id that no entry carries, as programs from
/// before there were tenants read it.
pub(in crate::cache) const OTHER_TENANTS: InvalidationId = InvalidationId(u64::from_le_bytes(*b"tenants*"));

pub(in crate::cache) type InvalidationIds = HashMap<InvalidationId, TokenHistory, ByPrefix>;

/// The tokens that a log holds.
#[derive(Debug)]
pub struct LoadedTokens {
    pub(in crate::cache) everything: TokenHistory,
    pub(in crate::cache) invalidation_ids: InvalidationIds,
}

/// A change of the tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenChange {
    /// Everything has new tokens.
    Everything(TokenHistory),
    /// An invalidation id has new tokens.
    InvalidationId(InvalidationId, TokenHistory),
    /// An invalidation id has no tokens of its own.
    Forget(InvalidationId),
}

label_enum! {
    /// How far a change has come.
    #[derive(PartialOrd, Ord)]
    pub enum Propagation {
        /// Every node applies it before it serves entries as fresh again.
        Complete = "complete",
        /// It waits, durably, until other nodes can be reached.
        Pending = "pending",
    }
}

/// The future of queued changes.
pub type Queued = BoxFuture<'static, Result<Propagation>>;

/// Queues the changes of one invalidation at once, in the order of the calls. The future returns when the changes are durable here, and the other nodes have them or cannot be reached; they are made also if it is dropped.
pub type QueueChanges = Box<dyn FnOnce(Vec<TokenChange>) -> Result<Queued> + Send>;

/// The durable copy of all tokens. The table in memory judges; the log is loaded at the start and receives each change.
pub trait TokenLog: Debug + Send + Sync {
    /// The tokens that the log holds. A log without the tokens of everything, or those of all other tenants, draws random
    /// ones: entries that were stored before its tokens were lost are misses. Blocks.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Corrupt`.
    fn load(&self) -> BoxFuture<'_, Result<LoadedTokens>>;

    /// Whether other nodes write to the log too.
    fn is_shared(&self) -> bool {
        false
    }

    /// Refuses invalidations that requests ask for while too many changes wait for other nodes.
    ///
    /// # Errors
    /// `Overloaded`.
    fn check_room(&self) -> Result<()> {
        Ok(())
    }

    /// Waits for room in the queue for so many changes. The caller queues them under the lock of its table, so that memory and
    /// log agree on which of two invalidations came last.
    ///
    /// # Errors
    /// `Unavailable` if the log takes no more changes.
    fn append(&self, changes: usize) -> BoxFuture<'_, Result<QueueChanges>>;
}
