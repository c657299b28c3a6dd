//! A job in memory.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::watch;

use super::record::{JobRecord, JobState};
use crate::service::background_work::{Order, WorkControl, WorkLimits, WorkProgress};
use crate::sync::lock;

/// When the present run of a job began, and what was done then.
#[derive(Debug, Clone, Copy)]
struct RunStart {
    at: Instant,
    done: u64,
}

/// A job in memory. Shared by `Arc`.
#[derive(Debug)]
pub(super) struct LiveJob {
    record: Mutex<JobRecord>,
    pub(super) progress: Arc<Mutex<WorkProgress>>,
    orders: watch::Sender<Order>,
    states: watch::Sender<JobState>,
    run: Mutex<Option<RunStart>>,
}

/// A job as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    /// What is recorded, with the progress of now.
    pub record: JobRecord,
    /// Items of a second since its present run began; `None` while it does not run.
    pub rate: Option<f64>,
    /// Seconds that it will take at this rate.
    pub seconds_left: Option<f64>,
}

impl LiveJob {
    pub(super) fn new(record: JobRecord) -> LiveJob {
        LiveJob {
            progress: Arc::new(Mutex::new(record.progress.clone())),
            orders: watch::Sender::new(Order::Run),
            states: watch::Sender::new(record.state),
            run: Mutex::new(None),
            record: Mutex::new(record),
        }
    }

    /// What is recorded, with the progress of now.
    pub(super) fn record(&self) -> JobRecord {
        let mut record = lock(&self.record).clone();
        record.progress = lock(&self.progress).clone();
        record
    }

    pub(super) fn state(&self) -> JobState {
        *self.states.borrow()
    }

    pub(super) fn status(&self) -> JobStatus {
        let record = self.record();
        let run = lock(&self.run).filter(|_| record.state == JobState::Running);
        let rate = run.and_then(|run| {
            let seconds = run.at.elapsed().as_secs_f64();
            let done = record.progress.done.saturating_sub(run.done);
            (done > 0 && seconds > 0.0).then(|| done as f64 / seconds)
        });
        let left = record.progress.total.saturating_sub(record.progress.done);
        JobStatus { seconds_left: rate.map(|rate| left as f64 / rate), rate, record }
    }

    /// Changes what is recorded, and returns it.
    pub(super) fn update(&self, change: impl FnOnce(&mut JobRecord)) -> JobRecord {
        let state = {
            let mut record = lock(&self.record);
            change(&mut record);
            record.state
        };
        if state == JobState::Running {
            let done = lock(&self.progress).done;
            lock(&self.run).get_or_insert(RunStart { at: Instant::now(), done });
        } else {
            *lock(&self.run) = None;
        }
        self.states.send_replace(state);
        self.record()
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Waits until the job is in one of the states that `is_awaited` names.
    pub(super) async fn wait_for(&self, is_awaited: impl Fn(JobState) -> bool) -> JobState {
        let mut states = self.states.subscribe();
        match states.wait_for(|state| is_awaited(*state)).await {
            Ok(state) => *state,
            // The sender lives as long as the job.
            Err(_) => self.state(),
        }
    }

    /// What the work of the job asks between two steps.
    pub(super) fn control(&self, usd_per_million_tokens: Option<f64>) -> WorkControl {
        let limits = lock(&self.record).limits;
        let limits = WorkLimits {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            cost_usd_max: limits.cost_usd_max,
            usd_per_million_tokens,
        };
        WorkControl::new(self.orders.subscribe(), Arc::clone(&self.progress), limits)
    }
}
