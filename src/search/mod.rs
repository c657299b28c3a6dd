//! Collections of documents, searched by vector.
//!
//! Contains: documents, filters, the view that readers search, the writer that makes the next one, the catalogue.
//! Must not contain: HTTP, models, a cache of its own. The one idea: a collection is rows in the order in which they were
//! written. The store keeps them, a view shows those that are live, blocks of them are searched as they are; everything
//! else (codes, tables of ids, metadata indexes) is derived and can be rebuilt.

mod ann_index;
mod block;
mod build;
mod catalog;
mod change;
mod collection;
mod collection_table;
mod difference;
mod document;
mod document_patch;
mod filter;
mod generation;
mod generations;
mod index_builder;
mod indexing;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod listing;
mod metadata_index;
mod metrics;
mod query;
mod query_watch;
pub mod record;
mod replay;
mod results;
mod running_work;
mod scalar;
mod segment_view;
mod settings;
mod values;
mod view;
mod writer;

pub use build::{Program, build_index};
pub use catalog::{Catalog, Options};
pub use change::{Change, Receipt};
pub use collection::{ChangeGuard, Collection, PausedWrites};
pub use difference::Difference;
pub use document::{Document, DocumentRef, ID_BYTES_MAX, METADATA_BYTES_MAX, TAGS_MAX};
pub use document_patch::DocumentPatch;
pub use filter::{Filter, Test};
pub use index_builder::Indexing;
pub use likewise_index::{Metric, Unfit, Vectors, flat_header};
pub use listing::{DocumentPage, PageQuery};
pub use metrics::SearchMetrics;
pub use query::{Query, check_bytes};
pub use query_watch::WatchedQuery;
pub use results::{Hit, Results};
pub use running_work::{CollectionWork, CollectionWorkKind};
pub use scalar::{Scalar, number};
pub use settings::{CollectionModel, Indexed, Settings, metric_name};
pub use values::{FIELD_BYTES_MAX, check_metadata};
pub use view::{Cursor, DocumentBatch, View};
pub use writer::CompactionOptions;
