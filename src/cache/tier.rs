//! What every storage level can do.

use std::sync::Arc;

use super::policy::Namespace;
use crate::domain::{Entry, EntryMeta, Key, NamespaceId, TierName};
use crate::error::Result;
use futures_util::future::BoxFuture;

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

/// Chooses entries by their metadata.
pub type Choice = Arc<dyn Fn(&EntryMeta) -> bool + Send + Sync>;

/// A storage level below memory: asynchronous and in batches. A fault while reading is counted, logged where it is
/// handled, and answered as a miss.
pub trait Tier: Send + Sync {
    /// Which level this is.
    fn name(&self) -> TierName;

    /// The entries of `keys`, all of one namespace, in their order.
    fn get_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        keys: Vec<Key>,
    ) -> BoxFuture<'a, Vec<Option<Arc<Entry>>>>;

    /// Stores entries and returns when they are acknowledged as the policy of their namespace,
    /// or the tier itself, promises.
    ///
    /// # Errors
    /// Only from a tier whose writes are acknowledged; a tier of values that can be computed again counts the fault.
    fn put_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        entries: Vec<(Key, Arc<Entry>)>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Forgets entries.
    ///
    /// # Errors
    /// As [`Tier::put_many`].
    fn remove_many(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<()>>;

    /// The namespace of an entry. `None` without an entry, and if the tier does not store namespaces.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if the tier cannot be read.
    fn namespace_of(&self, key: Key) -> BoxFuture<'_, Result<Option<NamespaceId>>>;

    /// How many entries are chosen; `None` if the tier does not store the metadata by which they are chosen.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if the tier cannot be read.
    fn count(&self, choice: Choice) -> BoxFuture<'_, Result<Option<u64>>>;

    /// Makes everything stored so far survive a loss of power.
    fn flush(&self) -> BoxFuture<'_, ()>;

    /// Numbers of this moment.
    fn stats(&self) -> TierStats;
}
