//! Long work in the background: recorded, paused, resumed and cancelled by clients, and gone on with after a crash.
//!
//! What lives here: the table of jobs and their runner. What must never: what a job does; that is a use case of its own. The one idea:
//! a job is recorded before it begins, and its work can be begun again at any moment. So a pause, a restart and a `kill -9` are alike: the
//! next run goes on with what is left.

mod live_job;
mod metrics;
mod options;
mod record;
mod retention;
mod runner;
mod spec;
mod state;
mod warm_start;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::live_job::JobStatus;
use self::live_job::LiveJob;
pub use self::metrics::JobMetrics;
pub use self::options::Options;
pub use self::record::{JobChange, JobLimits, JobRecord, JobResult, JobState, JobStore};
pub use self::spec::{JobKind, JobSpec};
pub use self::state::Jobs;
use super::background_work::Order;
use super::collections::{Collections, ReembedSpec};
use crate::domain::{Clock, Principal, TokenUsage};
use crate::error::{Error, Kind, Result};
use crate::sync::lock;
use crate::upstream::Prices;

/// How long an order waits until the job obeys.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);

/// A change of a job with which it is resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResumeChanges {
    /// A new limit of cost, in dollars over all runs.
    pub cost_usd_max: Option<f64>,
    /// Whether documents that cannot be embedded are left out of what is served.
    pub leave_refused: Option<bool>,
}

impl Jobs {
    /// The jobs that `store` has. None of them runs before [`Jobs::go_on`]. Blocks.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn open(
        collections: Arc<Collections>,
        store: Arc<dyn JobStore>,
        prices: Prices,
        clock: Arc<dyn Clock>,
        options: Options,
        metrics: Arc<JobMetrics>,
    ) -> Result<Jobs> {
        let recorded = record::read_all(&*store)?.into_iter();
        let table = recorded.map(|record| (record.number, Arc::new(LiveJob::new(record)))).collect();
        Ok(Jobs {
            collections,
            store,
            prices,
            clock,
            places: Arc::new(Semaphore::new(options.running_max)),
            options,
            metrics,
            table: Mutex::new(table),
            tasks: Mutex::default(),
            warm_target: Mutex::default(),
        })
    }

    /// Goes on with the jobs that were under way when the server ended. Must be called within a runtime.
    pub fn go_on(self: &Arc<Self>) {
        let under_way: Vec<Arc<LiveJob>> =
            lock(&self.table).values().filter(|job| job.state().is_under_way()).map(Arc::clone).collect();
        for job in under_way {
            self.spawn(job);
        }
        let own = Arc::clone(self);
        lock(&self.tasks).spawn(own.drop_former_generations());
    }

    /// Ends the runs of all jobs. Those that were under way go on with the next start.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
        // It answers requests for jobs too, and holds these therefore.
        drop(lock(&self.warm_target).take());
    }

    /// Begins a job. It is recorded when this returns.
    ///
    /// # Errors
    /// Those of [`Collections::resolve_reembed`]; `InvalidInput` at `cost_usd_max` if the price of the model is not known; `Conflict` if another
    /// job works on the collection; `Overloaded` if there are too many; `Io`, `DiskFull`.
    pub async fn start(
        self: &Arc<Self>,
        principal: &Principal,
        spec: ReembedSpec,
        limits: JobLimits,
    ) -> Result<JobStatus> {
        let spec = self.collections.resolve_reembed(principal, spec).await?;
        let model = spec.model.as_deref().unwrap_or_default();
        if limits.cost_usd_max.is_some() && self.usd_per_million_tokens(model).is_none() {
            let message =
                format!("the price of the model {model} is not known: list it under upstream.prices");
            return Err(Error::invalid("cost_usd_max", message));
        }
        let now = self.clock.now().0;
        let job = {
            let mut table = lock(&self.table);
            check_room(&table, self.options.active_max)?;
            check_collection(&table, principal, &spec.collection)?;
            let number = table.last_key_value().map_or(1, |(last, _)| last + 1);
            let job = Arc::new(LiveJob::new(JobRecord {
                number,
                tenant: principal.tenant.as_str().to_owned(),
                spec: JobSpec::Reembed(spec),
                limits,
                state: JobState::Queued,
                created_at: now,
                changed_at: now,
                progress: super::background_work::WorkProgress::default(),
                message: None,
                result: None,
                is_former_dropped: false,
            }));
            table.insert(number, Arc::clone(&job));
            job
        };
        self.record_and_run(job, None).await
    }

    /// Records a job that is queued, and runs it. If it cannot be recorded it is again what it was `before`, or forgotten if it is new.
    ///
    /// Cancel safety: what has begun is finished.
    async fn record_and_run(
        self: &Arc<Self>,
        job: Arc<LiveJob>,
        before: Option<JobRecord>,
    ) -> Result<JobStatus> {
        let own = Arc::clone(self);
        let recorded = tokio::spawn(async move {
            let record = job.record();
            if let Err(error) = own.write(&record).await {
                match before {
                    Some(before) => _ = job.update(|record| *record = before),
                    None => _ = lock(&own.table).remove(&record.number),
                }
                return Err(error);
            }
            own.metrics.transitions.with(JobState::Queued).inc();
            own.spawn(Arc::clone(&job));
            own.forget_old().await;
            Ok(job.status())
        });
        recorded.await.map_err(|died| Error::new(Kind::Internal, "cannot begin a job").source(died))?
    }

    async fn write(&self, record: &JobRecord) -> Result<()> {
        self.store.write(vec![record.put()?]).await
    }

    /// The jobs of the sender's tenant, newest first, without their lists of errors.
    pub fn list(&self, principal: &Principal) -> Vec<JobStatus> {
        let jobs: Vec<Arc<LiveJob>> = lock(&self.table).values().rev().map(Arc::clone).collect();
        let own = jobs.iter().map(|job| {
            let mut status = job.status();
            status.record.progress.errors.clear();
            status
        });
        own.filter(|status| status.record.tenant == principal.tenant.as_str()).collect()
    }

    /// A job of the sender's tenant.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, principal: &Principal, id: &str) -> Result<JobStatus> {
        self.find(principal, id).map(|job| job.status())
    }

    /// Stops a job until it is resumed. Returns once it has stopped, or after seconds if it has not by then.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is not under way.
    pub async fn pause(&self, principal: &Principal, id: &str) -> Result<JobStatus> {
        let job = self.find(principal, id)?;
        if !job.state().is_under_way() {
            return Err(not_in_state(&job, "is not under way"));
        }
        job.order(Order::Pause);
        self.obeyed(&job).await;
        Ok(job.status())
    }

    /// Goes on with a job that is paused or has failed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is in another state, or if another job works on its collection; `Io`, `DiskFull`.
    pub async fn resume(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        changes: ResumeChanges,
    ) -> Result<JobStatus> {
        let job = self.find(principal, id)?;
        let before = {
            let table = lock(&self.table);
            match job.state() {
                JobState::Paused => {}
                JobState::Failed => {
                    if let Some(collection) = job.record().spec.collection() {
                        check_collection(&table, principal, collection)?;
                    }
                }
                JobState::Queued | JobState::Running | JobState::Succeeded | JobState::Cancelled => {
                    return Err(not_in_state(&job, "is neither paused nor has it failed"));
                }
            }
            job.order(Order::Run);
            let before = job.record();
            job.update(|record| {
                record.limits.cost_usd_max = changes.cost_usd_max.or(record.limits.cost_usd_max);
                if let JobSpec::Reembed(spec) = &mut record.spec {
                    spec.leave_refused = changes.leave_refused.unwrap_or(spec.leave_refused);
                }
                record.state = JobState::Queued;
                record.changed_at = self.clock.now().0;
                record.message = None;
            });
            before
        };
        self.record_and_run(job, Some(before)).await
    }

    /// Stops a job for good and removes what it has made. Returns once it has stopped, or after seconds if it has not by then.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it has ended.
    pub async fn cancel(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<JobStatus> {
        let job = self.find(principal, id)?;
        // Under the lock, so that a paused job is not resumed and cancelled at the same time.
        let table = lock(&self.table);
        match job.state() {
            JobState::Queued | JobState::Running => job.order(Order::Cancel),
            JobState::Paused => {
                job.order(Order::Cancel);
                job.update(|record| record.state = JobState::Queued);
                self.spawn(Arc::clone(&job));
            }
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
                return Err(not_in_state(&job, "has ended"));
            }
        }
        drop(table);
        let ended = job.wait_for(|state| !state.is_active());
        // An order that is not obeyed in time is obeyed later.
        let _ = tokio::time::timeout(OBEYED_WITHIN, ended).await;
        Ok(job.status())
    }

    async fn obeyed(&self, job: &LiveJob) {
        let stopped = job.wait_for(|state| !state.is_under_way());
        // An order that is not obeyed in time is obeyed later.
        let _ = tokio::time::timeout(OBEYED_WITHIN, stopped).await;
    }

    fn find(&self, principal: &Principal, id: &str) -> Result<Arc<LiveJob>> {
        let number = id.strip_prefix("job-").and_then(|number| number.parse::<u64>().ok());
        let table = lock(&self.table);
        let found = number.and_then(|number| table.get(&number)).filter(|job| {
            let record = job.record();
            record.tenant == principal.tenant.as_str() && record.id() == id
        });
        found
            .map(Arc::clone)
            .ok_or_else(|| Error::new(Kind::NotFound, format!("there is no job {id:?}")).param("id"))
    }

    /// Dollars of a million tokens of a model, if the price table names it.
    fn usd_per_million_tokens(&self, model: &str) -> Option<f64> {
        self.prices.cost_usd(model, TokenUsage::new(1_000_000, 0))
    }

    /// Forgets the jobs that have ended first, beyond the limit.
    async fn forget_old(&self) {
        let forgotten: Vec<JobRecord> = {
            let mut table = lock(&self.table);
            let ended: Vec<JobRecord> = table
                .values()
                .map(|job| job.record())
                .filter(|record| !record.state.is_active() && !record.keeps_former())
                .collect();
            let count = ended.len().saturating_sub(self.options.ended_max);
            let forgotten: Vec<JobRecord> = ended.into_iter().take(count).collect();
            for record in &forgotten {
                table.remove(&record.number);
            }
            forgotten
        };
        if forgotten.is_empty() {
            return;
        }
        if let Err(error) = self.store.write(forgotten.iter().map(JobRecord::delete).collect()).await {
            tracing::warn!(%error, "jobs that are not listed any more are still recorded");
        }
    }
}

fn check_room(table: &BTreeMap<u64, Arc<LiveJob>>, active_max: usize) -> Result<()> {
    if table.values().filter(|job| job.state().is_active()).count() < active_max {
        return Ok(());
    }
    let message = format!("{active_max} jobs wait, run or are paused, and no more are allowed");
    Err(Error::new(Kind::Overloaded, message))
}

/// # Errors
/// `Conflict` if another job works on the collection.
fn check_collection(
    table: &BTreeMap<u64, Arc<LiveJob>>,
    principal: &Principal,
    collection: &str,
) -> Result<()> {
    let is_same = |record: &JobRecord| {
        record.tenant == principal.tenant.as_str()
            && record.spec.collection() == Some(collection)
            && record.state.is_active()
    };
    match table.values().map(|job| job.record()).find(is_same) {
        None => Ok(()),
        Some(record) => {
            let (id, state) = (record.id(), record.state.as_str());
            let message = format!("{id} works on the collection and is {state}: wait for it, or cancel it");
            Err(Error::new(Kind::Conflict, message).param("collection"))
        }
    }
}

fn not_in_state(job: &LiveJob, fault: &str) -> Error {
    let record = job.record();
    let message = format!("{} is {}: it {fault}", record.id(), record.state.as_str());
    Error::new(Kind::Conflict, message).param("id")
}
