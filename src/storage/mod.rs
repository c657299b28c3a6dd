//! Everything that touches the disk.
//!
//! What lives here: the file layer, segments of fixed slots, their index files, the manifest, the store over them, and
//! the data directory with its lock. What must never: an opinion on what is worth keeping for how long, beyond the
//! expiry and the budget that it is told. The one idea: a slot is written once, checked whole, and only then believed;
//! whatever does not hold is a miss. `docs/store-format.md` has the bytes.

mod directory;
mod files;
mod index_file;
mod manifest;
mod mapped_file;
mod recovery;
mod segment;
mod table;
mod vectors;
mod writer;

use serde::{Deserialize, Serialize};

pub use directory::DataDirectory;
pub use files::{Files, OsFiles, StoredFile};
pub use recovery::Recovery;
pub use vectors::{Stats, VectorStore};

/// Options of the vector store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Budget in bytes; the oldest segments are dropped to keep it.
    pub bytes_max: u64,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// With `async`, the longest time between flushes, which is what a power cut can take.
    pub flush_interval_ms: u64,
    /// Size of a segment file; reserved at once.
    pub segment_bytes: u64,
    /// Bytes that may wait to be written; writers beyond that wait for room.
    pub queue_bytes_max: u64,
    /// How slots are read.
    pub read: ReadMode,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bytes_max: 8 * 1024 * 1024 * 1024,
            durability: Durability::Async,
            flush_interval_ms: 1000,
            segment_bytes: SEGMENT_BYTES_MAX,
            queue_bytes_max: 64 * 1024 * 1024,
            read: ReadMode::Mmap,
        }
    }
}

/// The largest segment: small enough to drop whole, large enough that files stay few.
pub const SEGMENT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Also a loss of power.
    Sync,
    /// The death of the process; a loss of power takes at most the last flush interval.
    Async,
}

/// How slots are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadMode {
    /// Through a read-only mapping. A disk that fails under it ends the process.
    Mmap,
    /// By `pread`, which reports a failing disk and costs a system call.
    Pread,
}
