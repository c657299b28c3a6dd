//! The recorded calls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Files as they would be found after a restart.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// One recorded call that changed something, or a mark that a test left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A file was created with this length.
    Create {
        /// Its name.
        path: PathBuf,
        /// Which file the name means.
        file: usize,
        /// Its length.
        bytes: u64,
    },
    /// Bytes were written.
    Write {
        /// To which file.
        file: usize,
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file was flushed.
    Sync {
        /// Which.
        file: usize,
    },
    /// A flush failed.
    FailedSync {
        /// Of which file.
        file: usize,
    },
    /// A name was changed.
    Rename {
        /// From this.
        from: PathBuf,
        /// To this.
        to: PathBuf,
    },
    /// A name was removed.
    Remove {
        /// This one.
        path: PathBuf,
    },
    /// The directory was flushed.
    SyncDir,
    /// A test's own mark: something was acknowledged.
    Mark(u64),
}
