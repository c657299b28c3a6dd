//! What is recorded of a job: a line of a table of the small records, as JSON.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::labels::label_enum;
use crate::service::background_work::Progress;
use crate::service::collections::{ReembedPlan, ReembedReport, ReembedSpec};
use crate::storage::{Change, Records};

const TABLE: &str = "jobs";
/// Records read at a time when opening.
const CHUNK: usize = 256;

label_enum! {
    /// What a job does.
    pub enum JobKind {
        /// Embeds a collection by another model.
        Reembed = "reembed",
        /// Builds the index of a collection. The server begins it by itself; it is listed while it runs.
        IndexBuild = "index_build",
    }
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
    pub spec: ReembedSpec,
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
    pub progress: Progress,
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
    pub(super) fn put(&self) -> Result<Change> {
        let encoded = serde_json::to_vec(self)
            .map_err(|error| Error::new(Kind::Internal, "cannot write the record of a job").source(error))?;
        Ok(Change::put(TABLE, self.number.to_be_bytes(), encoded))
    }

    pub(super) fn delete(&self) -> Change {
        Change::delete(TABLE, self.number.to_be_bytes())
    }
}

/// All recorded jobs, oldest first. Blocks. A record that cannot be read is left out, with a line in the log.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(super) fn read_all(records: &Records) -> Result<Vec<JobRecord>> {
    let (mut jobs, mut from) = (Vec::new(), Vec::new());
    loop {
        let chunk = records.range(TABLE, &from, CHUNK)?;
        let Some((last, _)) = chunk.last() else { return Ok(jobs) };
        from.clone_from(last);
        from.push(0);
        for (_, value) in &chunk {
            match serde_json::from_slice::<JobRecord>(value) {
                Ok(job) => jobs.push(job),
                Err(error) => {
                    tracing::error!(%error, "the record of a job cannot be read; the job is left out")
                }
            }
        }
    }
}
