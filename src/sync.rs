//! The locks and atomics of modules that share state between threads: those of the standard library, or, with the feature `shuttle`, ones
//! whose scheduler tries the orders in which they can (`interleavings.rs` of each module).

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic};

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic};
