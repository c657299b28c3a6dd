//! The state that readers, writer and scrubber share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::key_table::Table;
use super::options::Options;
use super::segment_file::OpenSegment;
use crate::domain::Clock;
use crate::error::{Error, Kind, Result};
use crate::storage::files::Files;
use crate::storage::metrics::StorageMetrics;
use crate::sync::ignore_poison;

/// What readers, writer and scrubber share.
pub(super) struct Shared {
    pub files: Arc<dyn Files>,
    pub dir: PathBuf,
    pub options: Options,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<StorageMetrics>,
    pub table: Table,
    pub segments: RwLock<BTreeMap<u32, Arc<OpenSegment>>>,
    pub is_on: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("dir", &self.dir).field("is_on", &self.is_on()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn segments(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Arc<OpenSegment>>> {
        ignore_poison(self.segments.read())
    }

    pub(super) fn segments_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u32, Arc<OpenSegment>>> {
        ignore_poison(self.segments.write())
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    pub(super) fn check_is_on(&self) -> Result<()> {
        if self.is_on() {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, "the disk tier has turned itself off until the next start"))
    }

    pub(super) fn turn_off(&self, error: &Error) {
        if self.is_on.swap(false, Ordering::AcqRel) {
            tracing::warn!(%error, "the disk tier has turned itself off; the server goes on without it");
        }
    }

    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.segments().values().map(|segment| segment.bytes.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn count_evictions(&self, entries: u64) {
        self.metrics.evictions.inc_by(entries);
    }

    /// Notes a failure that no caller waits for.
    pub(super) fn count_background(&self, error: &Error) {
        self.metrics.background_errors.with(error.kind()).inc();
        tracing::warn!(%error, "the disk tier goes on");
    }
}
