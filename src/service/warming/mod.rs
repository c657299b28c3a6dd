//! Warming: the lines of files are asked for before clients do, so that their answers are in the caches.
//!
//! What lives here: what a line asks for ([`WarmLine`]), and the work of a job that warms ([`warm`]). What must never: how a request is
//! answered; that is a [`WarmTarget`]. The one idea: each line is looked up first, and only what no cache has is paced and paid. So the
//! work needs no record of how far it was: begun from the start again, it costs lookups and no calls of a model.

mod options;
mod target;
mod tokens;
mod warm_line;
mod work;

pub use self::options::{Options, WarmSpec, has_json_lines};
pub use self::target::{WarmOutcome, WarmTarget};
pub use self::tokens::estimate;
pub use self::warm_line::{LineRequest, WarmLine};
pub use self::work::WarmReport;
pub(in crate::service) use self::work::{WarmWork, warm};
