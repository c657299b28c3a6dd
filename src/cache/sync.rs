//! The locks and atomics of this room: those of the standard library, or, with the feature `shuttle`, ones whose scheduler
//! tries the orders in which threads can meet (`interleavings.rs`).

#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic};
