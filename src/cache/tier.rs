//! What every storage level can do.

use std::sync::Arc;

use super::policy::Namespace;
use crate::domain::{Entry, EntryMeta, EntryNames, Key, NamespaceId, TierName};
use crate::error::Result;
use crate::storage::objects::{NamespaceCount, Position, ScanScope};
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

/// An entry as a scan meets it: everything but its value.
#[derive(Debug, Clone, PartialEq)]
pub struct ScannedEntry {
    /// Where it stands in the order of scans.
    pub position: Position,
    /// Its names.
    pub names: EntryNames,
    /// Its metadata.
    pub meta: EntryMeta,
    /// Length of its value as stored.
    pub value_bytes: u32,
}

/// A part of a scan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EntryScan {
    /// The entries of the part.
    pub entries: Vec<ScannedEntry>,
    /// Records that were read for it.
    pub records: usize,
    /// The last position of the part. `None` if the scan is at its end.
    pub last: Option<Position>,
}

/// Which part of a scan is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRequest {
    /// Which entries are scanned.
    pub scope: ScanScope,
    /// Behind which position the part begins.
    pub after: Option<Position>,
    /// How many records are read.
    pub records: usize,
}

/// Chooses entries by their metadata.
pub type Choice = Arc<dyn Fn(&EntryMeta) -> bool + Send + Sync>;

/// A storage level below memory: asynchronous and in batches. A fault while reading is counted, logged where it is
/// handled, and answered as a miss. Questions that a tier without names and metadata cannot answer have a default.
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

    /// Stores an entry with the names by which it is listed. [`Tier::put_many`] leaves the names of an entry as they are.
    ///
    /// # Errors
    /// As [`Tier::put_many`].
    fn put_named<'a>(
        &'a self,
        namespace: &'a Namespace,
        key: Key,
        entry: Arc<Entry>,
        names: &'a EntryNames,
    ) -> BoxFuture<'a, Result<()>>;

    /// Reads a part of a scan over the entries that have names. `None` if the tier does not store names.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if the tier cannot be read; `Unavailable` once it is off; `Overloaded` if too many scans and counts wait.
    fn scan(&self, _: ScanRequest) -> BoxFuture<'_, Result<Option<EntryScan>>> {
        Box::pin(async { Ok(None) })
    }

    /// The entry of a key as a scan meets it. `None` if the tier does not store names.
    ///
    /// # Errors
    /// As [`Tier::scan`].
    fn named(&self, _: Key) -> BoxFuture<'_, Result<Option<ScannedEntry>>> {
        Box::pin(async { Ok(None) })
    }

    /// The namespaces that have entries, in no order; none if the tier does not store namespaces.
    fn namespaces(&self) -> Vec<NamespaceCount> {
        Vec::new()
    }

    /// Forgets entries.
    ///
    /// # Errors
    /// As [`Tier::put_many`].
    fn remove_many(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<()>>;

    /// The namespace of an entry. `None` without an entry, and if the tier does not store namespaces.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if the tier cannot be read.
    fn namespace_of(&self, _: Key) -> BoxFuture<'_, Result<Option<NamespaceId>>> {
        Box::pin(async { Ok(None) })
    }

    /// How many entries are chosen; `None` if the tier does not store the metadata by which they are chosen.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if the tier cannot be read; `Overloaded` if too many scans and counts wait.
    fn count(&self, _: Choice) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(async { Ok(None) })
    }

    /// Makes everything stored so far survive a loss of power.
    fn flush(&self) -> BoxFuture<'_, ()> {
        // Nothing to do where what is stored was durable before it was acknowledged, or need not be.
        Box::pin(async {})
    }

    /// Numbers of this moment.
    fn stats(&self) -> TierStats;
}
