//! The minimum rate at which a peer must send or read, so that a slow one does not hold memory and a slot for hours.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Watches one direction of a connection. The clock runs only while the server waits for the peer, and each period
/// is judged on its own: a fast start is no credit for a later standstill.
pub(in crate::http) struct MinRate {
    period: Duration,
    bytes_min: u64,
    bytes: u64,
    is_running: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MinRate {
    /// At least `bytes_per_second`, measured over `period`.
    pub(in crate::http) fn new(bytes_per_second: u64, period: Duration) -> MinRate {
        let bytes_min = bytes_per_second.saturating_mul(period.as_secs());
        MinRate { period, bytes_min, bytes: 0, is_running: false, timer: None }
    }

    /// Counts bytes that the peer has sent or taken.
    pub(in crate::http) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Ends the wait: the peer owes nothing.
    pub(in crate::http) fn pause(&mut self) {
        self.is_running = false;
    }

    /// Whether the peer moved too few bytes in the period that has just ended; to be asked whenever it keeps the
    /// server waiting. Otherwise the task of `cx` is woken at the end of the period.
    pub(in crate::http) fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => self.timer.insert(Box::pin(tokio::time::sleep(self.period))),
        };
        if !self.is_running {
            self.is_running = true;
            self.bytes = 0;
            timer.as_mut().reset(Instant::now() + self.period);
        }
        while let Poll::Ready(()) = timer.as_mut().poll(cx) {
            if self.bytes < self.bytes_min {
                return true;
            }
            self.bytes = 0;
            timer.as_mut().reset(Instant::now() + self.period);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn is_too_slow_after(rate: &mut MinRate, wait: Duration) -> bool {
        tokio::time::advance(wait).await;
        poll_fn(|cx| Poll::Ready(rate.is_too_slow(cx))).await
    }

    #[tokio::test(start_paused = true)]
    async fn each_period_is_judged_on_its_own() {
        let second = Duration::from_secs(1);
        let mut rate = MinRate::new(10, 10 * second);
        assert!(!is_too_slow_after(&mut rate, second).await);
        rate.add(1_000_000);
        assert!(!is_too_slow_after(&mut rate, 10 * second).await);
        rate.add(99);
        assert!(is_too_slow_after(&mut rate, 11 * second).await, "99 bytes of 100");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_not_counted() {
        let second = Duration::from_secs(1);
        let mut rate = MinRate::new(10, 10 * second);
        assert!(!is_too_slow_after(&mut rate, second).await);
        rate.pause();
        assert!(!is_too_slow_after(&mut rate, 3600 * second).await);
        assert!(!is_too_slow_after(&mut rate, 9 * second).await);
        assert!(is_too_slow_after(&mut rate, 2 * second).await);
    }
}
