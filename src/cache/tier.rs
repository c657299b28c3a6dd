//! What every storage level can do.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::{Entry, Key};

/// The name of a tier in headers, metrics and statistics. Ordered from the fastest to the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierName {
    /// The memory of this process.
    Memory,
    /// The memory-mapped files of this node.
    Disk,
}

impl TierName {
    /// The name as clients and dashboards see it.
    pub fn as_str(self) -> &'static str {
        match self {
            TierName::Memory => "memory",
            TierName::Disk => "disk",
        }
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Numbers of one tier, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierStats {
    /// Entries held.
    pub entries: u64,
    /// Bytes held against the budget.
    pub bytes: u64,
    /// The budget.
    pub bytes_max: u64,
    /// Whether the tier takes part; a tier that failed for good is off.
    pub is_on: bool,
}

/// A storage level below memory: asynchronous and in batches. It never fails its caller: a fault is counted, logged
/// once where it is handled, and answered as a miss.
pub trait Tier: Send + Sync {
    /// Which level this is.
    fn name(&self) -> TierName;

    /// The entries of `keys`, in their order.
    fn get_many(&self, keys: Vec<Key>) -> BoxFuture<'_, Vec<Option<Arc<Entry>>>>;

    /// Stores entries and returns when they are acknowledged as the tier's durability promises.
    fn put_many(&self, entries: Vec<(Key, Arc<Entry>)>) -> BoxFuture<'_, ()>;

    /// Forgets entries.
    fn remove_many(&self, keys: Vec<Key>) -> BoxFuture<'_, ()>;

    /// Makes everything stored so far survive a loss of power.
    fn flush(&self) -> BoxFuture<'_, ()>;

    /// Numbers of this moment.
    fn stats(&self) -> TierStats;
}
