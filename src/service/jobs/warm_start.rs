//! The job that warms the caches at the start of the server.

use std::sync::Arc;

use super::Jobs;
use super::live_job::LiveJob;
use super::record::{JobLimits, JobRecord, JobState};
use super::spec::JobSpec;
use crate::domain::Principal;
use crate::service::background_work::WorkProgress;
use crate::service::warming::{Options, WarmTarget};
use crate::sync::lock;

impl Jobs {
    /// Records the job that `options` ask for, for [`Jobs::go_on`] to run. One of an earlier run that has not ended and warms with the same
    /// is gone on with, so that its limit of cost holds over all runs; one that is paused stays so. Others are cancelled.
    pub async fn warm_at_start(&self, options: &Options, target: Arc<dyn WarmTarget>) {
        *lock(&self.warm_target) = Some(target);
        let wanted = options.spec().map(|spec| (JobSpec::Warm(spec), limits(options)));
        let mut is_there = false;
        for job in self.active_warm_jobs() {
            let record = job.record();
            if wanted.as_ref().is_some_and(|(spec, limits)| is_same(&record, spec, limits)) {
                is_there = true;
                continue;
            }
            self.record(&job, |record| {
                record.state = JobState::Cancelled;
                record.message = Some("the configuration asks for something else".to_owned());
            })
            .await;
        }
        if let Some((spec, limits)) = wanted.filter(|_| !is_there) {
            self.enqueue(spec, limits).await;
        }
    }

    /// Records a job of the default tenant.
    async fn enqueue(&self, spec: JobSpec, limits: JobLimits) {
        let now = self.clock.now().0;
        let job = {
            let mut table = lock(&self.table);
            let number = table.last_key_value().map_or(1, |(last, _)| last + 1);
            let job = Arc::new(LiveJob::new(JobRecord {
                number,
                tenant: Principal::default().tenant.as_str().to_owned(),
                spec,
                limits,
                state: JobState::Queued,
                created_at: now,
                changed_at: now,
                progress: WorkProgress::default(),
                message: None,
                result: None,
                is_former_dropped: false,
            }));
            table.insert(number, Arc::clone(&job));
            job
        };
        // Without a record it runs all the same: the next start begins another one.
        self.record(&job, |_| ()).await;
        self.metrics.transitions.with(JobState::Queued).inc();
        self.forget_old().await;
    }

    fn active_warm_jobs(&self) -> Vec<Arc<LiveJob>> {
        let is_warm =
            |job: &&Arc<LiveJob>| job.state().is_active() && matches!(job.record().spec, JobSpec::Warm(_));
        lock(&self.table).values().filter(is_warm).map(Arc::clone).collect()
    }
}

/// Whether a job does what is asked for. A client may have raised its limit of cost.
fn is_same(record: &JobRecord, spec: &JobSpec, limits: &JobLimits) -> bool {
    let JobLimits { requests_per_minute, tokens_per_minute, cost_usd_max } = record.limits;
    let has_same_cost = match (cost_usd_max, limits.cost_usd_max) {
        (Some(own), Some(asked)) => own >= asked,
        (own, asked) => own == asked,
    };
    record.spec == *spec
        && requests_per_minute == limits.requests_per_minute
        && tokens_per_minute == limits.tokens_per_minute
        && has_same_cost
}

fn limits(options: &Options) -> JobLimits {
    JobLimits {
        requests_per_minute: options.requests_per_minute,
        tokens_per_minute: options.tokens_per_minute,
        cost_usd_max: options.cost_usd_max,
    }
}
