//! One budget for the bytes that requests hold while they are in flight: bodies, streams that are held for several readers, and
//! answers that are not sent yet.
//!
//! Limits on one request multiply by the number of requests: a thousand bodies of 32 MiB are 32 GiB. The budget limits their
//! sum. A reservation never waits: what does not fit is refused at once, so that a client that stalls makes others retry but
//! never makes them wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::metrics::{Counter, Gauge, ModuleMetrics, Registry};

/// As few bytes are not counted: their sum is limited by the number of requests.
pub const UNCOUNTED_BYTES: usize = 16 * 1024;

/// Reservations grow by steps of so many bytes, so that a body that comes in small pieces does not count each of them.
const STEP_BYTES: usize = 64 * 1024;

/// A reservation above this share of the limit is large.
const LARGE_DIVISOR: usize = 16;

/// Large reservations leave this share of the limit free, so that few large requests never shut out all others.
const KEPT_FREE_DIVISOR: usize = 4;

/// The budget. Shared by `Arc`.
#[derive(Debug)]
pub struct ByteBudget {
    limit: usize,
    reserved: AtomicUsize,
    metrics: Arc<BudgetMetrics>,
}

/// The metrics of the budget.
#[derive(Debug)]
pub struct BudgetMetrics {
    reserved_bytes: Gauge,
    refused: Counter,
}

impl ModuleMetrics for BudgetMetrics {
    fn register(registry: &mut Registry) -> BudgetMetrics {
        BudgetMetrics {
            reserved_bytes: registry.gauge("inflight_bytes", "Bytes reserved by requests in flight"),
            refused: registry.counter("inflight_refused", "Reservations of bytes that were refused"),
        }
    }
}

/// Bytes of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize, metrics: Arc<BudgetMetrics>) -> Arc<ByteBudget> {
        Arc::new(ByteBudget { limit, reserved: AtomicUsize::new(0), metrics })
    }

    /// The most that can be reserved.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are reserved now.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// A reservation of nothing, to grow.
    pub fn empty(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), bytes: 0 }
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// `TooLarge` for what never fits, `Overloaded` for what does not fit now.
    pub fn try_reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation> {
        let mut reservation = self.empty();
        reservation.try_grow(bytes)?;
        Ok(reservation)
    }

    /// Counts a reservation that was refused before it was tried.
    pub fn count_refused(&self) {
        self.metrics.refused.inc();
    }

    fn take(&self, bytes: usize, total: usize) -> Result<()> {
        let is_large = total > self.limit / LARGE_DIVISOR;
        let usable = if is_large { self.limit - self.limit / KEPT_FREE_DIVISOR } else { self.limit };
        let fits = |reserved: usize| reserved.checked_add(bytes).filter(|after| *after <= usable);
        if self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            self.metrics.reserved_bytes.inc_by(bytes as i64);
            return Ok(());
        }
        self.count_refused();
        if total > usable {
            let message = format!(
                "the request needs {total} bytes of memory, and all requests together may use {usable} (http.inflight_bytes_max)"
            );
            return Err(Error::new(Kind::TooLarge, message));
        }
        let message = "the requests in flight use all of http.inflight_bytes_max; retry later";
        Err(Error::new(Kind::Overloaded, message))
    }

    fn give_back(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.reserved_bytes.dec_by(bytes as i64);
    }
}

impl Reservation {
    /// Bytes that are reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// As [`ByteBudget::try_reserve`]; what was reserved before stays.
    pub fn try_grow(&mut self, bytes: usize) -> Result<()> {
        self.budget.take(bytes, self.bytes.saturating_add(bytes))?;
        self.bytes += bytes;
        Ok(())
    }

    /// Grows to at least `bytes`, in steps.
    ///
    /// # Errors
    /// As [`ByteBudget::try_reserve`]; what was reserved before stays.
    pub fn try_cover(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        self.try_grow(bytes.next_multiple_of(STEP_BYTES) - self.bytes)
    }

    /// Gives back what is above `bytes`, in steps.
    pub fn shrink_to(&mut self, bytes: usize) {
        let kept = bytes.next_multiple_of(STEP_BYTES);
        if kept < self.bytes {
            self.budget.give_back(self.bytes - kept);
            self.bytes = kept;
        }
    }
}

impl Reservation {
    /// The same bytes, which give the reservation back once no part of them is used any more.
    pub fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(HeldBytes { bytes, _reservation: Arc::clone(self) })
    }
}

/// Bytes with what they have reserved.
struct HeldBytes {
    bytes: Bytes,
    _reservation: Arc<Reservation>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 16 * STEP_BYTES;

    fn budget() -> Arc<ByteBudget> {
        ByteBudget::new(LIMIT, crate::metrics::unexported())
    }

    #[test]
    fn what_is_dropped_can_be_reserved_again() {
        let budget = budget();
        let first = budget.try_reserve(LIMIT / 2).unwrap();
        assert_eq!(budget.try_reserve(LIMIT / 2).unwrap_err().kind(), Kind::Overloaded);
        drop(first);
        assert!(budget.try_reserve(LIMIT / 2).is_ok());
        assert_eq!((budget.reserved(), budget.metrics.reserved_bytes.get()), (0, 0));
        assert_eq!(budget.metrics.refused.get(), 1);
    }

    #[test]
    fn what_never_fits_is_too_large() {
        let budget = budget();
        for bytes in [LIMIT + 1, LIMIT - LIMIT / KEPT_FREE_DIVISOR + 1, usize::MAX] {
            assert_eq!(budget.try_reserve(bytes).unwrap_err().kind(), Kind::TooLarge);
        }
    }

    #[test]
    fn large_reservations_leave_bytes_for_small_ones() {
        let budget = budget();
        let _large = budget.try_reserve(LIMIT - LIMIT / KEPT_FREE_DIVISOR).unwrap();
        assert!(budget.try_reserve(LIMIT / LARGE_DIVISOR + 1).is_err());
        let small: Vec<_> = (0..4).map(|_| budget.try_reserve(LIMIT / LARGE_DIVISOR).unwrap()).collect();
        assert_eq!(small.len() * LIMIT / LARGE_DIVISOR, LIMIT / KEPT_FREE_DIVISOR);
        assert!(budget.try_reserve(1).is_err());
    }

    #[test]
    fn a_reservation_grows_and_shrinks_in_steps() {
        let budget = budget();
        let mut reservation = budget.empty();
        reservation.try_cover(1).unwrap();
        reservation.try_cover(STEP_BYTES).unwrap();
        assert_eq!(budget.reserved(), STEP_BYTES);
        reservation.try_cover(STEP_BYTES + 1).unwrap();
        assert_eq!(budget.reserved(), 2 * STEP_BYTES);
        reservation.shrink_to(1);
        assert_eq!(budget.reserved(), STEP_BYTES);
        assert!(reservation.try_cover(usize::MAX - STEP_BYTES).is_err());
        assert_eq!((reservation.bytes(), budget.reserved()), (STEP_BYTES, STEP_BYTES));
        reservation.shrink_to(0);
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn bytes_hold_their_reservation_as_long_as_any_part_of_them_is_used() {
        let budget = budget();
        let reservation = Arc::new(budget.try_reserve(100).unwrap());
        let held = reservation.hold(Bytes::from_static(b"held"));
        drop(reservation);
        let part = held.slice(1..2);
        drop(held);
        assert_eq!((&part[..], budget.reserved()), (&b"e"[..], 100));
        drop(part);
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn many_threads_never_pass_the_limit() {
        let budget = budget();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in 1..2_000 {
                        let held = budget.try_reserve(bytes * 37);
                        assert!(budget.reserved() <= LIMIT);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(budget.reserved(), 0);
    }
}
