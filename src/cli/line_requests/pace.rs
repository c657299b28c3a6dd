//! When the next request may start.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Spreads the requests of a minute evenly, and holds all of them back while the server is busy.
pub(super) struct RequestPace {
    interval: Duration,
    next: Mutex<Instant>,
}

impl RequestPace {
    /// A pace of so many requests a minute, or without a limit.
    pub(super) fn new(requests_per_minute: Option<u32>) -> RequestPace {
        let interval = requests_per_minute.map(|count| Duration::from_secs(60) / count.max(1));
        RequestPace { interval: interval.unwrap_or_default(), next: Mutex::new(Instant::now()) }
    }

    /// Waits until a request may start. Cancel safe.
    pub(super) async fn turn(&self) {
        loop {
            let next = {
                let mut next = self.next();
                let now = Instant::now();
                if *next <= now {
                    *next = now + self.interval;
                    return;
                }
                *next
            };
            // Another request may have its turn first, or a busy server may ask for a longer wait meanwhile.
            sleep_until(next).await;
        }
    }

    /// Lets no request start within this time.
    pub(super) fn hold(&self, wait: Duration) {
        let mut next = self.next();
        *next = (*next).max(Instant::now() + wait);
    }

    /// A moment is as whole after a panic as before it.
    fn next(&self) -> MutexGuard<'_, Instant> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn turns(pace: &Arc<RequestPace>, count: usize) -> Vec<u128> {
        let began = Instant::now();
        let turn = |_| {
            let pace = Arc::clone(pace);
            tokio::spawn(async move {
                pace.turn().await;
                began.elapsed().as_millis()
            })
        };
        let mut times = Vec::new();
        for task in Vec::from_iter((0..count).map(turn)) {
            times.push(task.await.unwrap());
        }
        times.sort_unstable();
        times
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_spread_over_the_minute() {
        let pace = Arc::new(RequestPace::new(Some(120)));
        let times = turns(&pace, 5).await;
        let expected = [0, 500, 1000, 1500, 2000];
        let is_near = |(time, expected): (&u128, u128)| (expected..expected + 20).contains(time);
        assert!(times.iter().zip(expected).all(is_near), "{times:?}");
        assert_eq!(turns(&Arc::new(RequestPace::new(None)), 5).await, [0; 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_holds_all_requests_back() {
        let pace = Arc::new(RequestPace::new(None));
        pace.hold(Duration::from_secs(7));
        pace.hold(Duration::from_secs(3));
        let times = turns(&pace, 3).await;
        assert!(times.iter().all(|time| (7000..7020).contains(time)), "{times:?}");
    }
}
