//! Vectors in, neighbours out.
//!
//! Contains: the exact scan of rows, in f32 or by int8 codes; sketches that leave out rows which are not near; the search of HNSW graphs in FAISS's files; FAISS,
//! which builds them; the kernels under all that. Must not contain: documents, ids, collections, requests; this crate sees
//! rows. The one idea of the scan: whatever path a search takes (how many queries at a time, which threads, with codes or
//! without), its result is bit for bit that of the naive loop, which calls [`score`] for every kept row and sorts by
//! score, then block, then row. The one idea of the rest: an index only proposes rows, which are scored by [`score`] like
//! all others; so it can miss a row, and never give one a wrong score.

mod bits;
mod code_table;
mod codes;
mod faiss;
mod faiss_check;
mod faiss_file;
mod ffi;
mod graph;
mod kernels;
mod metric;
mod neighbor;
mod scan;
mod score;
mod sketches;
mod spec;
mod top_k;

pub use bits::Bits;
pub use codes::{Codes, CodesView, QueryCodes};
pub use faiss::{BuildParams, Builder, FaissError, FaissIndex, check_processor, training};
pub use faiss_check::check as check_faiss_index;
pub use faiss_file::{Malformed, Vectors, flat_header};
pub use graph::{Graph, SearchParams};
pub use metric::{Metric, Unfit};
pub use neighbor::Neighbor;
pub use scan::{Block, Scanner};
pub use score::{score, scores};
pub use sketches::{Sketch, SketchRadius, Sketcher, Sketches};
pub use spec::{Cost, GRAMMAR, IndexSpec, SpecError};
