//! What long work and its runner share: the order to stop, the progress, the pace, the limit of cost.
//!
//! What lives here: [`WorkControl`]. What must never: what the work is, and where it is recorded. The one idea: work can be begun again at
//! any moment and goes on where it was, so that a pause, a restart and a crash are the same to it.

mod control;
mod pace;
mod progress;

pub use control::{Interruption, Order, WorkControl, WorkLimits};
pub use progress::{ITEM_ERRORS_MAX, ItemError, WorkProgress};
