//! The limit on concurrent requests, and the count of those in flight.

use std::sync::Mutex;

use tokio::sync::OwnedSemaphorePermit;

use crate::http::metrics::HttpMetrics;
use crate::sync::lock;

/// A permit of `http.requests_max`.
pub(in crate::http) struct ConcurrencyPermit(pub(super) Mutex<Option<OwnedSemaphorePermit>>);

impl ConcurrencyPermit {
    /// Releases the permit early: from here on the request only waits for an upstream.
    pub(in crate::http) fn release(&self) {
        drop(lock(&self.0).take());
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
