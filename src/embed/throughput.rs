//! The throughput of a model, which says how long the texts of its queue take.

use std::sync::Mutex;
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::sync::lock;

/// Passes over fewer texts are not measured.
const TEXTS_MIN: usize = 8;
/// Weight of the newest pass in the mean.
const NEWEST: f64 = 0.2;
/// OpenAI's clients ignore a longer `retry-after`.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A moving mean of the time that one text takes.
#[derive(Debug)]
pub(super) struct Throughput {
    /// Passes that run at the same time.
    concurrent_passes: usize,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    /// Passes of several texts so far.
    passes: u64,
    /// Zero before the second pass.
    seconds_per_text: f64,
}

impl Throughput {
    pub(super) fn new(concurrent_passes: usize) -> Throughput {
        Throughput { concurrent_passes, measured: Mutex::default() }
    }

    /// Records a pass over `texts` texts. One over a few says nothing of the rate of many, and the first one also warms up.
    pub(super) fn observe(&self, texts: usize, took: Duration) {
        if texts < TEXTS_MIN {
            return;
        }
        let seconds = took.as_secs_f64() / texts as f64;
        let mut measured = lock(&self.measured);
        measured.passes += 1;
        measured.seconds_per_text = match measured.passes {
            1 => 0.0,
            2 => seconds,
            _ => measured.seconds_per_text + NEWEST * (seconds - measured.seconds_per_text),
        };
    }

    /// The time that so many texts take. Zero before it is known.
    pub(super) fn time_of(&self, texts: usize) -> Duration {
        let seconds =
            lock(&self.measured).seconds_per_text * texts as f64 / self.concurrent_passes.max(1) as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// The error of a caller whose texts exceed the queue. Its retry hint is the time that half of the queue takes.
    pub(super) fn queue_full(&self, waiting: usize, max: usize) -> Error {
        let message = format!("the model's queue is full: {waiting} texts wait, the limit is {max}");
        Error::new(Kind::Overloaded, message).retry_after((self.time_of(waiting) / 2).min(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(rate: &Throughput, waiting: usize) -> Option<u32> {
        rate.queue_full(waiting, waiting).retry_after_seconds()
    }

    #[test]
    fn the_wait_follows_the_measured_rate() {
        let rate = Throughput::new(1);
        assert_eq!(wait(&rate, 8192), Some(1), "nothing is known yet");
        rate.observe(1, Duration::from_secs(3600));
        rate.observe(32, Duration::from_secs(3600));
        assert_eq!(wait(&rate, 8192), Some(1), "neither a few texts nor the first pass");
        rate.observe(32, Duration::from_millis(320));
        assert_eq!(wait(&rate, 2000), Some(10));
        assert_eq!(wait(&rate, 8192), Some(41));
        assert_eq!(wait(&rate, 10), Some(1));
        for _ in 0..50 {
            rate.observe(8, Duration::from_secs(3600));
        }
        assert_eq!(wait(&rate, 8192), Some(60));
        let wide = Throughput::new(4);
        for _ in 0..2 {
            wide.observe(10, Duration::from_millis(100));
        }
        assert_eq!(wait(&wide, 8000), Some(10));
    }
}
