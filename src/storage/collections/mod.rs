//! A store of rows: the vectors and documents of one collection, which outlive every index that is made of them.
//!
//! What lives here: segments, which are written once and mapped; the log of what is in no segment yet; the manifest that
//! says which of them hold; snapshots of indexes, which are derived. What must never: search, filters, or what a document means. The one idea: a change is
//! acknowledged when its record in the log is flushed; segments and manifest only make the log shorter, and a crash
//! between any two calls leaves the old manifest or the new one, each with all it needs.
//!
//! All calls block: a collection's writer owns its store.

mod build_record;
mod check;
mod manifest;
mod place;
mod repair;
mod salt;
mod salvage;
mod segment;
mod snapshot;
mod store;

pub use crate::storage::files::log::Replay;
pub use build_record::BuildRecord;
pub use check::Checked;
pub use manifest::{Listing, Manifest};
pub use place::Place;
pub use salt::Salt;
pub use segment::{HEADER_BYTES, Header, Row, RowSegment};
pub use snapshot::{Coverage, Covered, Draft, IndexFile, Snapshot};
pub use store::{LogFate, Opened, RowStore};
