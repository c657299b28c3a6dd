//! The part of the byte budget for connections that have shown no key.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The share of the budget for connections that have shown no key.
const KEYLESS_DIVISOR: usize = 4;

/// What all connections that have shown no key hold together.
pub(super) struct KeylessBudget {
    limit: usize,
    pub(super) held: AtomicUsize,
}

impl KeylessBudget {
    pub(super) fn of(budget_bytes: usize) -> KeylessBudget {
        KeylessBudget { limit: budget_bytes / KEYLESS_DIVISOR, held: AtomicUsize::new(0) }
    }

    pub(super) fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|after| *after <= self.limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}
