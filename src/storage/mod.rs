//! Everything that touches the disk.
//!
//! What lives here: the file layer and its recording, failing twin; the store of vectors (segments of fixed slots);
//! the store of small records and the objects in it; the data directory with its lock and its format; verification and repair. What must
//! never: judgement about freshness (tags, namespaces, soft expiry belong to the cache), HTTP, models.
//!
//! The one idea: nothing that was written is ever written again. A segment is preallocated, filled from front to back,
//! sealed, and at last unlinked as a whole; a slot becomes visible only after it is as durable as its writer was
//! promised; and a reader trusts no byte before the checksum, the segment's salt and the full key agree. So a crash can
//! lose what nobody was promised, but it cannot make a wrong value.
//!
//! `docs/store-format.md` shows every byte, `docs/durability.md` what survives which fault.

mod active;
mod codec;
pub mod directory;
mod end_mark;
mod fields;
pub mod files;
mod header_copy;
pub mod index_file;
mod log;
pub mod manifest;
mod mapped_file;
mod metrics;
mod mirror;
pub mod objects;
mod open_segment;
mod options;
mod overlay;
mod range_checksums;
pub mod recording;
pub mod records;
mod recovery;
mod redb_header;
pub mod rows;
mod scrub;
pub mod segment;
mod table;
mod vectors;
pub mod verify;
mod writer;

pub use directory::DataDirectory;
pub use files::{Files, OsFiles, StoredFile};
pub use mapped_file::{FrozenFile, MappedFile};
pub use metrics::StorageMetrics;
pub use objects::ObjectStore;
pub use options::{Durability, Options, ReadMode};
pub use records::{Change, Records};
pub use recovery::Recovery;
pub use rows::{RowSegment, RowStore};
pub use scrub::ScrubReport;
pub use vectors::{Stats, VectorStore};
