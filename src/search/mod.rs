//! Collections of documents, searched by vector.
//!
//! What lives here: documents, filters, the view that readers search, the writer that makes the next one, the catalogue.
//! What must never: HTTP, models, a cache of its own. The one idea: a collection is rows in the order in which they were
//! written. The store keeps them, a view shows those that are live, blocks of them are searched as they are; everything
//! else (codes, tables of ids, fields turned round) is derived and can be made again.

mod block;
mod build;
mod catalog;
mod change;
mod collection;
mod document;
mod fields;
mod filter;
mod indexing;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod metrics;
mod nearest;
pub mod record;
mod replay;
mod results;
mod sealed;
mod settings;
mod values;
mod view;
mod watch;
mod workshop;
mod writer;

pub use build::{Program, build_index};
pub use catalog::{Catalog, Options};
pub use change::{Change, Receipt};
pub use collection::Collection;
pub use document::{Document, DocumentRef, ID_BYTES_MAX, METADATA_BYTES_MAX, TAGS_MAX};
pub use filter::{Filter, Scalar, Test, number};
pub use likewise_index::{Metric, Unfit, Vectors, flat_header};
pub use metrics::SearchMetrics;
pub use nearest::{Query, check_bytes};
pub use results::{Hit, Results};
pub use settings::{Indexed, Model, Settings, metric_name};
pub use values::{FIELD_BYTES_MAX, check_metadata};
pub use view::{Batch, View};
pub use watch::Watched;
pub use workshop::Indexing;
pub use writer::Tidying;
