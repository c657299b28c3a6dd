//! Vectors in, neighbours out: exact search over blocks of rows.
//!
//! What lives here: the metrics, the kernels with the processor's vector instructions, int8 codes, the scan. What must
//! never: documents, files of ours, a server. The one idea: a search by codes is not an approximation. Each row knows how
//! far its code is from it, so that most rows are ruled out by a bound and the others are scored as they are; the result
//! is that of a plain loop over all rows, to the bit and in the same order.

mod bits;
mod codes;
mod kernels;
mod metric;
mod scan;
mod top;

pub use bits::Bits;
pub use codes::{Codes, CodesView};
pub use metric::{Metric, NORM_MAX, Unfit, score};
pub use scan::{Block, Neighbor, Scanner};
