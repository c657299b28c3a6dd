//! The run of a job, from its place in the queue to its end.

use std::sync::Arc;
use std::time::Duration;

use super::Jobs;
use super::live_job::LiveJob;
use super::record::{JobRecord, JobResult, JobState};
use super::spec::JobSpec;
use crate::domain::Principal;
use crate::service::background_work::{Interruption, WorkControl};
use crate::service::collections::LeftDocuments;
use crate::service::warming::{WarmWork, warm};
use crate::sync::lock;

/// How often the progress of a job is recorded. What a crash makes forgotten of it is counted again, and not done again.
const RECORD_EVERY: Duration = Duration::from_secs(2);

impl Jobs {
    /// Runs a job once there is a place for it.
    pub(super) fn spawn(self: &Arc<Self>, job: Arc<LiveJob>) {
        let own = Arc::clone(self);
        let mut tasks = lock(&self.tasks);
        // Those that have ended are not needed.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move { own.run(&job).await });
    }

    async fn run(&self, job: &Arc<LiveJob>) {
        let outcome = self.run_in_turn(job).await;
        if let Err(Interruption::Cancelled) = &outcome {
            self.clean_up(&job.record()).await;
        }
        self.end(job, outcome).await;
    }

    async fn run_in_turn(&self, job: &Arc<LiveJob>) -> Result<JobResult, Interruption> {
        let record = job.record();
        let principal = Arc::new(record.principal());
        let price = record.spec.model().and_then(|model| self.usd_per_million_tokens(model));
        let control = job.control(price);
        let _place = self.place(&control).await?;
        self.record(job, |record| record.state = JobState::Running).await;
        self.metrics.running.inc();
        let work = self.work(&record, &principal, &control);
        let outcome = tokio::select! {
            outcome = self.recording(job, work) => outcome,
            // An order does not wait until a model has answered.
            interrupted = control.interrupted() => Err(interrupted),
        };
        self.metrics.running.dec();
        outcome
    }

    /// Waits for a place among the jobs that run.
    async fn place(&self, control: &WorkControl) -> Result<tokio::sync::OwnedSemaphorePermit, Interruption> {
        control.check()?;
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::select! {
            place = place => place.map_err(|_| Interruption::Paused(None)),
            interrupted = control.interrupted() => Err(interrupted),
        }
    }

    async fn work(
        &self,
        record: &JobRecord,
        principal: &Arc<Principal>,
        control: &WorkControl,
    ) -> Result<JobResult, Interruption> {
        match &record.spec {
            JobSpec::Reembed(spec) if spec.dry_run => {
                self.collections.plan_reembed(principal, spec, control).await.map(JobResult::Plan)
            }
            JobSpec::Reembed(spec) => {
                let left = self.left_in_former(record);
                let report = self.collections.reembed(principal, spec, left, control).await?;
                Ok(JobResult::Reembedded(report))
            }
            JobSpec::Warm(spec) => {
                // It is there before jobs run, and as long as they do.
                let target = lock(&self.warm_target).clone().ok_or(Interruption::Paused(None))?;
                let work = WarmWork { spec, target: &*target, prices: &self.prices, control };
                warm(work).await.map(JobResult::Warmed)
            }
        }
    }

    /// What the last job on the same collection left in the generation that it replaced.
    fn left_in_former(&self, record: &JobRecord) -> LeftDocuments {
        let jobs: Vec<JobRecord> = lock(&self.table).values().map(|job| job.record()).collect();
        let last = jobs.iter().rev().find(|job| job.report().is_some() && job.is_of_same_collection(record));
        let left = last.and_then(|job| {
            let ids = job.progress.errors.iter().map(|error| error.item.clone()).collect();
            Some(LeftDocuments { generation: job.report()?.former_generation, ids })
        });
        left.unwrap_or_default()
    }

    /// Awaits the work of a job, and records its progress meanwhile.
    async fn recording(
        &self,
        job: &Arc<LiveJob>,
        work: impl Future<Output = Result<JobResult, Interruption>>,
    ) -> Result<JobResult, Interruption> {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(RECORD_EVERY);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = ticks.tick() => {
                    if let Err(error) = job.record().put().and_then(|change| self.store.write_soon(change)) {
                        tracing::warn!(%error, "the progress of a job is not recorded");
                    }
                }
            }
        }
    }

    async fn clean_up(&self, record: &JobRecord) {
        // What is cached stays cached.
        let Some(spec) = record.spec.reembed() else { return };
        if let Err(error) = self.collections.cancel_reembed(&record.principal(), spec).await {
            tracing::warn!(%error, job = record.id(), "what a cancelled job has made is not removed");
        }
    }

    async fn end(&self, job: &Arc<LiveJob>, outcome: Result<JobResult, Interruption>) {
        let (state, message, result) = match outcome {
            Ok(result) => (JobState::Succeeded, None, Some(result)),
            Err(Interruption::Paused(reason)) => (JobState::Paused, reason, None),
            Err(Interruption::Cancelled) => (JobState::Cancelled, None, None),
            Err(Interruption::Failed(error)) => (JobState::Failed, Some(error.to_string()), None),
        };
        tracing::info!(job = job.record().id(), state = state.as_str(), message, "a job has come to a state");
        self.record(job, |record| {
            record.state = state;
            record.message = message;
            record.result = result;
        })
        .await;
    }

    /// Changes what is recorded of a job: durably, as far as the disk takes it, and then for clients to see.
    pub(super) async fn record(&self, job: &LiveJob, change: impl FnOnce(&mut JobRecord)) {
        let before = job.state();
        let mut record = job.record();
        change(&mut record);
        record.changed_at = self.clock.now().0;
        let written = match record.put() {
            Ok(change) => self.store.write(vec![change]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::error!(%error, job = record.id(), "the state of a job is not recorded: the next start finds the one before");
        }
        if record.state != before {
            self.metrics.transitions.with(record.state).inc();
        }
        job.update(|known| *known = record);
    }
}
