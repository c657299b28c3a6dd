//! What is recorded of a job, as JSON, and what records it.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::spec::JobSpec;
use crate::domain::{Principal, TenantId};
use crate::error::{Error, Kind, Result};
use crate::labels::label_enum;
use crate::service::background_work::WorkProgress;
use crate::service::collections::{ReembedPlan, ReembedReport};
use crate::service::warming::WarmReport;

/// A change of what is recorded of a job, by its number: the new record, or none if the job is forgotten.
pub type JobChange = (u64, Option<Vec<u8>>);

/// Where jobs are recorded.
pub trait JobStore: Send + Sync {
    /// All records, in the order of their numbers. Blocks.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    fn read_all(&self) -> Result<Vec<Vec<u8>>>;

    /// Makes all changes or none, durably.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`.
    fn write(&self, changes: Vec<JobChange>) -> BoxFuture<'_, Result<()>>;

    /// Makes a change that may be lost. Returns at once.
    ///
    /// # Errors
    /// `Unavailable`.
    fn write_soon(&self, change: JobChange) -> Result<()>;
}

label_enum! {
    /// The state of a job.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum JobState {
        /// It waits until other jobs have ended.
        Queued = "queued",
        /// It runs.
        Running = "running",
        /// It goes on when it is resumed.
        Paused = "paused",
        /// It has done its work.
        Succeeded = "succeeded",
        /// It has ended with an error. It may be resumed.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// Whether it runs, or will without being asked to.
    pub fn is_under_way(self) -> bool {
        matches!(self, JobState::Queued | JobState::Running)
    }

    /// Whether it holds its collection: no other job may work on that.
    pub fn is_active(self) -> bool {
        self.is_under_way() || self == JobState::Paused
    }
}

/// What a job has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobResult {
    /// What it would take to embed a collection again.
    Plan(ReembedPlan),
    /// What came of embedding it again.
    Reembedded(ReembedReport),
    /// What came of filling the caches.
    Warmed(WarmReport),
}

/// How fast a job may ask a model, and what it may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobLimits {
    /// Requests of a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens of a minute.
    pub tokens_per_minute: Option<u64>,
    /// Dollars, over all runs of the job.
    pub cost_usd_max: Option<f64>,
}

/// What is recorded of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its number, which no other job has had.
    pub number: u64,
    /// Whose it is.
    pub tenant: String,
    /// What it does.
    pub spec: JobSpec,
    /// How fast, and for how much.
    #[serde(default)]
    pub limits: JobLimits,
    /// Its state.
    pub state: JobState,
    /// When it was made, in seconds since 1970.
    pub created_at: u32,
    /// When it last came to its state.
    pub changed_at: u32,
    /// How far it is.
    #[serde(default)]
    pub progress: WorkProgress,
    /// Why it is paused, or has failed.
    #[serde(default)]
    pub message: Option<String>,
    /// What it has made.
    #[serde(default)]
    pub result: Option<JobResult>,
    /// Whether the generation that it has replaced is gone.
    #[serde(default)]
    pub is_former_dropped: bool,
}

impl JobRecord {
    /// Its id, as clients see it.
    pub fn id(&self) -> String {
        format!("job-{}", self.number)
    }

    /// What came of embedding a collection again, if that is what it did.
    pub(super) fn report(&self) -> Option<&ReembedReport> {
        match &self.result {
            Some(JobResult::Reembedded(report)) if self.state == JobState::Succeeded => Some(report),
            _ => None,
        }
    }

    /// # Errors
    /// `Internal`.
    pub(super) fn put(&self) -> Result<JobChange> {
        let encoded = serde_json::to_vec(self)
            .map_err(|error| Error::new(Kind::Internal, "cannot write the record of a job").source(error))?;
        Ok((self.number, Some(encoded)))
    }

    pub(super) fn delete(&self) -> JobChange {
        (self.number, None)
    }

    /// Whether the generation that the job has replaced is there, as far as is known.
    pub(super) fn keeps_former(&self) -> bool {
        self.report().is_some() && !self.is_former_dropped
    }

    pub(super) fn is_of_same_collection(&self, other: &JobRecord) -> bool {
        self.tenant == other.tenant && self.spec.collection() == other.spec.collection()
    }

    /// The sender of the job's requests: its tenant.
    pub(super) fn principal(&self) -> Principal {
        Principal { tenant: TenantId::named(&self.tenant).unwrap_or_default(), ..Principal::default() }
    }
}

/// All recorded jobs, oldest first. Blocks. A record that cannot be read is left out, with a line in the log.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(super) fn read_all(store: &dyn JobStore) -> Result<Vec<JobRecord>> {
    let read = |record: Vec<u8>| match serde_json::from_slice(&record) {
        Ok(job) => Some(job),
        Err(error) => {
            tracing::error!(%error, "the record of a job cannot be read; the job is left out");
            None
        }
    };
    Ok(store.read_all()?.into_iter().filter_map(read).collect())
}
