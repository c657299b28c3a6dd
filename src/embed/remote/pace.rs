//! The rate limit of an endpoint: how long all requests wait, and which one asks first afterwards.
//!
//! Once a wait is over, one request probes the endpoint and the others wait for its outcome, each until its own
//! deadline. A request whose deadline lies before the end of the wait fails at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};

/// Shared by all requests to one endpoint.
pub(super) struct Pace(watch::Sender<State>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Requests may start.
    Open,
    /// No request may start before this moment; the first one after it probes.
    Paused(Instant),
    /// One request probes.
    Probing,
}

/// The right to send one request. A probe that is dropped without an outcome leaves its turn to the next request.
pub(super) struct Admission<'a> {
    pace: &'a Pace,
    is_probe: bool,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace(watch::Sender::new(State::Open))
    }

    /// Waits until a request may start.
    ///
    /// # Errors
    /// `Overloaded` if `deadline` comes first, at once where that is known.
    pub(super) async fn admit(&self, deadline: Instant) -> Result<Admission<'_>> {
        let mut states = self.0.subscribe();
        loop {
            let (state, now) = (*states.borrow_and_update(), Instant::now());
            match state {
                State::Open => return Ok(Admission { pace: self, is_probe: false }),
                State::Paused(until) if until >= deadline => return Err(limited(until - now)),
                State::Paused(until) if until <= now => {
                    if self.change(state, State::Probing) {
                        return Ok(Admission { pace: self, is_probe: true });
                    }
                }
                State::Paused(until) => _ = tokio::time::timeout_at(until, states.changed()).await,
                State::Probing => {
                    let changed = tokio::time::timeout_at(deadline, states.changed()).await;
                    changed.map_err(|_| limited(Duration::ZERO)).map(drop)?;
                }
            }
        }
    }

    /// Lets no request start before `until`.
    pub(super) fn pause(&self, until: Instant) {
        self.0.send_modify(|state| {
            *state = match *state {
                State::Paused(other) => State::Paused(other.max(until)),
                State::Open | State::Probing => State::Paused(until),
            };
        });
    }

    /// Moves from one state to another; false if another request has moved it first.
    fn change(&self, from: State, to: State) -> bool {
        self.0.send_if_modified(|state| {
            let is_unchanged = *state == from;
            if is_unchanged {
                *state = to;
            }
            is_unchanged
        })
    }
}

impl Admission<'_> {
    /// The endpoint has answered with something else than a rate limit.
    pub(super) fn answered(mut self) {
        if self.is_probe {
            self.is_probe = false;
            self.pace.change(State::Probing, State::Open);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.pace.change(State::Probing, State::Paused(Instant::now()));
        }
    }
}

/// The error of a request that cannot wait for as long as the endpoint asks.
pub(super) fn limited(wait: Duration) -> Error {
    Error::new(Kind::Overloaded, "wait for the remote model's rate limit").retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_request_probes_and_the_others_follow_its_outcome() {
        let pace = Pace::new();
        let start = Instant::now();
        let deadline = start + 20 * SECOND;
        pace.pause(start + 5 * SECOND);
        let probe = pace.admit(deadline).await.unwrap();
        assert!(probe.is_probe && start.elapsed() >= 5 * SECOND);
        let mut other = Box::pin(pace.admit(deadline));
        assert!(tokio::time::timeout(SECOND, &mut other).await.is_err(), "it waits for the probe");
        probe.answered();
        assert!(!other.await.unwrap().is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_leaves_its_turn_to_the_next() {
        let pace = Pace::new();
        let deadline = Instant::now() + 20 * SECOND;
        pace.pause(Instant::now() + SECOND);
        let probe = pace.admit(deadline).await.unwrap();
        let mut other = Box::pin(pace.admit(deadline));
        assert!(tokio::time::timeout(SECOND, &mut other).await.is_err());
        drop(probe);
        assert!(other.await.unwrap().is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_limited_again_prolongs_the_wait() {
        let pace = Pace::new();
        let start = Instant::now();
        pace.pause(start + SECOND);
        let probe = pace.admit(start + 20 * SECOND).await.unwrap();
        pace.pause(start + 10 * SECOND);
        drop(probe);
        let next = pace.admit(start + 20 * SECOND).await.unwrap();
        assert!(next.is_probe && start.elapsed() >= 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_past_the_deadline_fails_at_once_and_names_itself() {
        let pace = Pace::new();
        let start = Instant::now();
        pace.pause(start + 60 * SECOND);
        let error = pace.admit(start + 5 * SECOND).await.err().expect("it is refused");
        assert_eq!((error.kind(), error.retry_after_seconds()), (Kind::Overloaded, Some(60)));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_holds_the_others_until_their_deadline_only() {
        let pace = Pace::new();
        let start = Instant::now();
        pace.pause(start + SECOND);
        let _probe = pace.admit(start + 60 * SECOND).await.unwrap();
        let error = pace.admit(start + 5 * SECOND).await.err().expect("it is refused");
        assert_eq!(error.kind(), Kind::Overloaded);
        assert!(start.elapsed() >= 5 * SECOND);
    }
}
