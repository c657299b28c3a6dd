//! What connections hold of the byte budget while they wait for their clients.
//!
//! The one idea: where there are keys, the connections that have shown none share a part of the budget, so that they cannot take
//! from the holders of keys what their requests need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Connections;
use crate::byte_budget::Reservation;
use crate::error::{Error, Kind, Result};

/// What one connection holds, given back when it is dropped.
pub(in crate::http) struct Buffers {
    connections: Arc<Connections>,
    reservation: Reservation,
    /// What of it counts as held without a key.
    keyless: usize,
}

impl Buffers {
    pub(super) fn new(connections: &Arc<Connections>) -> Buffers {
        let reservation = connections.budget.empty();
        Buffers { connections: Arc::clone(connections), reservation, keyless: 0 }
    }

    /// Grows to at least `bytes`.
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`; what was held before stays.
    pub(super) fn cover(&mut self, bytes: usize, has_key: bool) -> Result<()> {
        let missing = bytes.saturating_sub(self.reservation.bytes());
        if missing == 0 {
            return Ok(());
        }
        if !has_key {
            if !self.connections.keyless.take(missing) {
                self.connections.budget.count_refused();
                let message = "the connections that have shown no key use all memory that they may (a quarter of \
                    http.inflight_bytes_max); retry later";
                return Err(Error::new(Kind::Overloaded, message));
            }
            self.keyless += missing;
        }
        self.reservation.try_grow(missing)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.keyless > 0 {
            self.connections.keyless.held.fetch_sub(self.keyless, Ordering::Relaxed);
        }
    }
}
