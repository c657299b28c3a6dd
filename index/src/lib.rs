//! Vectors in, neighbours out.
//!
//! What lives here: the exact scan of rows, in f32 or by int8 codes, and the kernels under it. What must never: documents,
//! ids, collections, files, requests; this crate sees rows. The one idea: whatever path a search takes (how many queries
//! at a time, which threads, with codes or without), its result is bit for bit that of the naive loop, which calls
//! [`score`] for every kept row and sorts by score, then block, then row.

mod best;
mod bits;
mod codes;
mod kernels;
mod metric;
mod scan;

pub use bits::Bits;
pub use codes::{Codes, CodesView};
pub use metric::{Metric, Unfit, score, scores};
pub use scan::{Block, Neighbor, Scanner};
