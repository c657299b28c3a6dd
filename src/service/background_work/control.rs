//! What work asks between two steps: whether it goes on, how fast, and for how much.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::pace::ModelPace;
use super::progress::WorkProgress;
use crate::error::Error;
use crate::sync::lock;

/// What is wanted of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// To go on.
    #[default]
    Run,
    /// To stop, and to go on later.
    Pause,
    /// To stop for good, and to remove what it has made.
    Cancel,
}

/// Why work has stopped before its end.
#[derive(Debug)]
pub enum Interruption {
    /// It goes on when it is resumed. With a reason if no client has asked for it.
    Paused(Option<String>),
    /// It was cancelled.
    Cancelled,
    /// It failed.
    Failed(Error),
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Interruption {
        Interruption::Failed(error)
    }
}

/// What work may use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WorkLimits {
    /// Requests of a minute that may be sent to a model.
    pub requests_per_minute: Option<u64>,
    /// Tokens of a minute that may be sent to a model.
    pub tokens_per_minute: Option<u64>,
    /// Dollars that the work may cost, over all of its runs.
    pub cost_usd_max: Option<f64>,
    /// Dollars of a million tokens, if that is known.
    pub usd_per_million_tokens: Option<f64>,
}

/// What work and its runner share. Shared by `Arc`.
#[derive(Debug)]
pub struct WorkControl {
    order: watch::Receiver<Order>,
    progress: Arc<Mutex<WorkProgress>>,
    limits: WorkLimits,
    pace: ModelPace,
}

impl WorkControl {
    /// Over the progress of the work as it was recorded.
    pub fn new(
        order: watch::Receiver<Order>,
        progress: Arc<Mutex<WorkProgress>>,
        limits: WorkLimits,
    ) -> WorkControl {
        let pace = ModelPace::new(limits.requests_per_minute, limits.tokens_per_minute);
        WorkControl { order, progress, limits, pace }
    }

    /// Returns at once.
    ///
    /// # Errors
    /// The interruption, if one was ordered.
    pub fn check(&self) -> Result<(), Interruption> {
        match *self.order.borrow() {
            Order::Run => Ok(()),
            Order::Pause => Err(Interruption::Paused(None)),
            Order::Cancel => Err(Interruption::Cancelled),
        }
    }

    /// Waits.
    ///
    /// # Errors
    /// The interruption, as soon as one is ordered.
    pub async fn wait(&self, time: Duration) -> Result<(), Interruption> {
        let mut order = self.order.clone();
        let interrupted = order.wait_for(|order| *order != Order::Run);
        match tokio::time::timeout(time, interrupted).await {
            Ok(Ok(_)) | Err(_) => self.check(),
            // The runner has ended.
            Ok(Err(_)) => Err(Interruption::Paused(None)),
        }
    }

    /// Waits for an order to stop.
    pub async fn interrupted(&self) -> Interruption {
        loop {
            if let Err(interruption) = self.wait(Duration::MAX).await {
                return interruption;
            }
        }
    }

    /// Waits until a request of so many tokens may be sent, and counts them as sent.
    ///
    /// # Errors
    /// The interruption that is ordered meanwhile, and `Paused` if the request would cost more than is left.
    pub async fn spend(&self, tokens: u64) -> Result<(), Interruption> {
        self.spend_usd(tokens, self.price_of(tokens)).await
    }

    /// As [`WorkControl::spend`], for a request with a price of its own; `None` if that is not known, which counts as nothing.
    ///
    /// # Errors
    /// As [`WorkControl::spend`].
    pub async fn spend_usd(&self, tokens: u64, usd: Option<f64>) -> Result<(), Interruption> {
        self.check_cost(&lock(&self.progress), usd)?;
        self.wait(self.pace.take(tokens, Instant::now())).await?;
        let mut progress = lock(&self.progress);
        // Requests at the same time may have spent meanwhile.
        self.check_cost(&progress, usd)?;
        progress.tokens += tokens;
        progress.add_cost(usd);
        Ok(())
    }

    /// Counts a cost that was not known before the request was sent.
    pub fn charge(&self, usd: f64) {
        lock(&self.progress).add_cost(Some(usd));
    }

    /// Whether the cost is limited.
    pub fn has_cost_limit(&self) -> bool {
        self.limits.cost_usd_max.is_some()
    }

    fn check_cost(&self, progress: &WorkProgress, usd: Option<f64>) -> Result<(), Interruption> {
        let spent = progress.cost_usd.unwrap_or_default();
        match (self.limits.cost_usd_max, usd) {
            (Some(max), Some(usd)) if spent + usd > max => Err(Interruption::Paused(Some(format!(
                "the next request would exceed cost_usd_max: {spent:.6} of {max} dollars are spent; resume with a higher cost_usd_max to \
                 go on"
            )))),
            _ => Ok(()),
        }
    }

    /// Dollars of so many tokens, if the price is known.
    pub fn price_of(&self, tokens: u64) -> Option<f64> {
        Some(self.limits.usd_per_million_tokens? * tokens as f64 / 1e6)
    }

    /// Sets how many items there are and how many are done.
    pub fn set_progress(&self, done: u64, total: u64) {
        let mut progress = lock(&self.progress);
        (progress.done, progress.total) = (done, total);
    }

    /// Forgets the items that could not be done: the work looks at all of them again.
    pub fn clear_errors(&self) {
        let mut progress = lock(&self.progress);
        progress.errors.clear();
        progress.errors_total = 0;
    }

    /// Items that could not be done.
    pub fn refused(&self) -> usize {
        lock(&self.progress).errors_total as usize
    }

    /// Notes an item that cannot be done.
    pub fn refuse(&self, item: &str, message: &str) {
        lock(&self.progress).refuse(item, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(limits: WorkLimits) -> (watch::Sender<Order>, Arc<Mutex<WorkProgress>>, WorkControl) {
        let (orders, order) = watch::channel(Order::Run);
        let progress = Arc::new(Mutex::new(WorkProgress::default()));
        let control = WorkControl::new(order, Arc::clone(&progress), limits);
        (orders, progress, control)
    }

    #[tokio::test]
    async fn an_order_ends_a_wait() {
        let (orders, _, control) =
            control(WorkLimits { requests_per_minute: Some(1), ..WorkLimits::default() });
        control.spend(1).await.unwrap();
        let waiting = control.spend(1);
        let ordered = async { orders.send(Order::Pause).unwrap() };
        let (stopped, ()) = tokio::join!(waiting, ordered);
        assert!(matches!(stopped, Err(Interruption::Paused(None))));
        orders.send(Order::Cancel).unwrap();
        assert!(matches!(control.check(), Err(Interruption::Cancelled)));
    }

    #[tokio::test]
    async fn a_request_that_would_exceed_the_cost_is_not_sent() {
        let limits = WorkLimits {
            cost_usd_max: Some(0.01),
            usd_per_million_tokens: Some(2.0),
            ..WorkLimits::default()
        };
        let (_orders, progress, control) = control(limits);
        control.spend(4000).await.unwrap();
        let Err(Interruption::Paused(Some(reason))) = control.spend(1001).await else {
            panic!("the limit is exceeded");
        };
        assert!(reason.contains("0.008000 of 0.01 dollars"), "{reason}");
        control.spend(1000).await.unwrap();
        let progress = lock(&progress);
        assert_eq!((progress.tokens, progress.cost_usd), (5000, Some(0.01)));
    }
}
