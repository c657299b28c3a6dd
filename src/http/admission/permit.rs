//! The requests that are being answered: a limit on those that are worked on, and a count of all.

use std::sync::{Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use crate::http::metrics::HttpMetrics;

/// A place among the requests that are worked on.
pub(in crate::http) struct Place(pub(super) Mutex<Option<OwnedSemaphorePermit>>);

impl Place {
    /// Leaves the place to another request: from here on this one only waits.
    pub(in crate::http) fn leave(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Counts a request as being answered for as long as it lives, also when its client leaves.
pub(super) struct InFlight<'a>(&'a HttpMetrics);

impl<'a> InFlight<'a> {
    pub(super) fn new(metrics: &'a HttpMetrics) -> InFlight<'a> {
        metrics.requests_in_flight.inc();
        InFlight(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.requests_in_flight.dec();
    }
}
