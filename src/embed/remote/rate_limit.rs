//! The rate limit of an endpoint, which all requests to it share.
//!
//! At the end of a wait one request probes the endpoint. The others wait for its outcome, each until its own deadline. A
//! request whose deadline is before the end of the wait fails at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};

/// Shared by all requests to one endpoint.
pub(super) struct RateLimit(watch::Sender<LimitState>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitState {
    /// Requests may start.
    Open,
    /// No request may start before this moment; the first one after it probes.
    Paused(Instant),
    /// One request probes the endpoint.
    Probing,
}

/// The permission to send one request. If a probe is dropped without an outcome, the next request probes.
pub(super) struct RequestPermit<'a> {
    rate_limit: &'a RateLimit,
    is_probe: bool,
}

impl RateLimit {
    pub(super) fn new() -> RateLimit {
        RateLimit(watch::Sender::new(LimitState::Open))
    }

    /// Waits until a request may start.
    ///
    /// # Errors
    /// `Overloaded` if `deadline` is earlier; at once if the wait is known to end after it.
    pub(super) async fn admit(&self, deadline: Instant) -> Result<RequestPermit<'_>> {
        let mut states = self.0.subscribe();
        loop {
            let (state, now) = (*states.borrow_and_update(), Instant::now());
            match state {
                LimitState::Open => return Ok(RequestPermit { rate_limit: self, is_probe: false }),
                LimitState::Paused(until) if until >= deadline => return Err(rate_limited(until - now)),
                LimitState::Paused(until) if until <= now => {
                    if self.change(state, LimitState::Probing) {
                        return Ok(RequestPermit { rate_limit: self, is_probe: true });
                    }
                }
                LimitState::Paused(until) => _ = tokio::time::timeout_at(until, states.changed()).await,
                LimitState::Probing => {
                    let changed = tokio::time::timeout_at(deadline, states.changed()).await;
                    changed.map_err(|_| rate_limited(Duration::ZERO)).map(drop)?;
                }
            }
        }
    }

    /// Delays all requests until `until`.
    pub(super) fn pause(&self, until: Instant) {
        self.0.send_modify(|state| {
            *state = match *state {
                LimitState::Paused(other) => LimitState::Paused(other.max(until)),
                LimitState::Open | LimitState::Probing => LimitState::Paused(until),
            };
        });
    }

    /// Compare and set. False if another request has changed the state first.
    fn change(&self, from: LimitState, to: LimitState) -> bool {
        self.0.send_if_modified(|state| {
            let is_unchanged = *state == from;
            if is_unchanged {
                *state = to;
            }
            is_unchanged
        })
    }
}

impl RequestPermit<'_> {
    /// Ends the probe: the endpoint has replied, and not with a rate limit.
    pub(super) fn answered(mut self) {
        if self.is_probe {
            self.is_probe = false;
            self.rate_limit.change(LimitState::Probing, LimitState::Open);
        }
    }
}

impl Drop for RequestPermit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.rate_limit.change(LimitState::Probing, LimitState::Paused(Instant::now()));
        }
    }
}

/// The error of a request whose deadline is before the end of the wait.
pub(super) fn rate_limited(wait: Duration) -> Error {
    Error::new(Kind::Overloaded, "the remote model limits the rate of requests").retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_request_probes_and_the_others_follow_its_outcome() {
        let rate_limit = RateLimit::new();
        let start = Instant::now();
        let deadline = start + 20 * SECOND;
        rate_limit.pause(start + 5 * SECOND);
        let probe = rate_limit.admit(deadline).await.unwrap();
        assert!(probe.is_probe && start.elapsed() >= 5 * SECOND);
        let mut other = Box::pin(rate_limit.admit(deadline));
        assert!(tokio::time::timeout(SECOND, &mut other).await.is_err(), "it waits for the probe");
        probe.answered();
        assert!(!other.await.unwrap().is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_leaves_its_turn_to_the_next() {
        let rate_limit = RateLimit::new();
        let deadline = Instant::now() + 20 * SECOND;
        rate_limit.pause(Instant::now() + SECOND);
        let probe = rate_limit.admit(deadline).await.unwrap();
        let mut other = Box::pin(rate_limit.admit(deadline));
        assert!(tokio::time::timeout(SECOND, &mut other).await.is_err());
        drop(probe);
        assert!(other.await.unwrap().is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_limited_again_prolongs_the_wait() {
        let rate_limit = RateLimit::new();
        let start = Instant::now();
        rate_limit.pause(start + SECOND);
        let probe = rate_limit.admit(start + 20 * SECOND).await.unwrap();
        rate_limit.pause(start + 10 * SECOND);
        drop(probe);
        let next = rate_limit.admit(start + 20 * SECOND).await.unwrap();
        assert!(next.is_probe && start.elapsed() >= 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_past_the_deadline_fails_at_once_and_names_itself() {
        let rate_limit = RateLimit::new();
        let start = Instant::now();
        rate_limit.pause(start + 60 * SECOND);
        let error = rate_limit.admit(start + 5 * SECOND).await.err().expect("it is refused");
        assert_eq!((error.kind(), error.retry_after_seconds()), (Kind::Overloaded, Some(60)));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_holds_the_others_until_their_deadline_only() {
        let rate_limit = RateLimit::new();
        let start = Instant::now();
        rate_limit.pause(start + SECOND);
        let _probe = rate_limit.admit(start + 60 * SECOND).await.unwrap();
        let error = rate_limit.admit(start + 5 * SECOND).await.err().expect("it is refused");
        assert_eq!(error.kind(), Kind::Overloaded);
        assert!(start.elapsed() >= 5 * SECOND);
    }
}
