//! Everything that touches the disk.
//!
//! What lives here: the file layer and its recording, failing twin; the store of vectors (segments of fixed slots);
//! the store of small records and the objects in it; the data directory with its lock and its format; verification and repair. What must
//! never: judgement about freshness (tags, namespaces, soft expiry belong to the cache), HTTP, models.
//!
//! The one idea: nothing that was written is ever written again. A segment is preallocated, filled from front to back,
//! sealed, and at last unlinked as a whole; a slot becomes visible only after it is as durable as its writer was
//! promised; and a reader trusts no byte before the checksum, the segment's salt and the full key agree. So a crash can
//! lose what was not acknowledged, but it cannot make a wrong value.
//!
//! `docs/internals/store-format.md` shows every byte, `docs/internals/durability.md` what survives which fault.

pub(crate) mod codec;
pub mod collections;
pub mod directory;
pub mod files;
mod hot_keys_file;
pub(crate) mod le_bytes;
mod metrics;
pub mod objects;
pub mod records;
pub mod vectors;
pub mod verify;

pub use collections::{RowSegment, RowStore};
pub use directory::DataDirectory;
pub use files::{Files, FrozenFile, MappedFile, OsFiles, ReadMode, StoredFile};
pub use hot_keys_file::{HotKeysFile, HotKeysList};
pub use metrics::StorageMetrics;
pub use objects::ObjectStore;
pub use records::{Change, Records};
pub use vectors::{Durability, Options, Recovery, ScrubReport, Stats, VectorStore};
