//! How fast work may ask a model: requests and tokens of a minute.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

const MINUTE: Duration = Duration::from_secs(60);

/// A limit of requests and of tokens of a minute, without bursts: each request keeps the next one waiting for its share of a minute.
#[derive(Debug)]
pub(super) struct ModelPace {
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    next: Mutex<Instant>,
}

impl ModelPace {
    pub(super) fn new(requests_per_minute: Option<u64>, tokens_per_minute: Option<u64>) -> ModelPace {
        ModelPace { requests_per_minute, tokens_per_minute, next: Mutex::new(Instant::now()) }
    }

    /// How long a request of so many tokens waits, from `now` on. The time that it takes of the pace is taken.
    pub(super) fn take(&self, tokens: u64, now: Instant) -> Duration {
        let share = |count: u64, per_minute: Option<u64>| {
            per_minute.map_or(Duration::ZERO, |max| MINUTE.mul_f64(count as f64 / max.max(1) as f64))
        };
        let spent = share(1, self.requests_per_minute).max(share(tokens, self.tokens_per_minute));
        let mut next = lock(&self.next);
        let due = (*next).max(now);
        *next = due.checked_add(spent).unwrap_or(due + MINUTE);
        due - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_for_the_share_of_those_before_them() {
        let now = Instant::now();
        let waits =
            |pace: &ModelPace| [100, 10, 0].map(|tokens| pace.take(tokens, now).as_secs_f64().round());
        assert_eq!(waits(&ModelPace::new(None, None)), [0.0, 0.0, 0.0]);
        assert_eq!(waits(&ModelPace::new(Some(60), None)), [0.0, 1.0, 2.0]);
        assert_eq!(
            waits(&ModelPace::new(Some(60), Some(600))),
            [0.0, 10.0, 11.0],
            "the slower of both counts"
        );
        let pace = ModelPace::new(Some(60), None);
        pace.take(1, now);
        assert_eq!(pace.take(1, now + MINUTE), Duration::ZERO, "time that was not used is not kept");
        assert_eq!(pace.take(1, now + MINUTE).as_secs(), 1);
    }
}
