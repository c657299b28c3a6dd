//! The limit on concurrent requests, and the count of those in flight.

use std::sync::{Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use crate::http::metrics::HttpMetrics;

/// A permit of `http.requests_max`.
pub(in crate::http) struct ConcurrencyPermit(pub(super) Mutex<Option<OwnedSemaphorePermit>>);

impl ConcurrencyPermit {
    /// Releases the permit early: from here on the request only waits for an upstream.
    pub(in crate::http) fn release(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Counts a request as in flight until it is dropped, also when its client leaves.
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
