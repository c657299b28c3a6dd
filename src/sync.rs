//! Locks: how they are taken, and those of modules whose tests try the orders in which threads can meet.
//!
//! The locks and atomics below are those of the standard library. With the feature `shuttle` they are ones whose scheduler tries
//! orders (`interleavings.rs` of each module).

use std::sync::LockResult;

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic};

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic};

/// The guard, also if a thread panicked while it held the lock: each section under a lock leaves its data valid.
pub(crate) fn ignore_poison<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes a lock as [`ignore_poison`] does.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    ignore_poison(mutex.lock())
}
