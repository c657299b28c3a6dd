//! The metrics of jobs.

use super::record::JobState;
use crate::metrics::{ByLabel, Counter, Gauge, ModuleMetrics, Registry};

/// The metrics of jobs.
#[derive(Debug)]
pub struct JobMetrics {
    /// Jobs that run now.
    pub(super) running: Gauge,
    /// Jobs that have come to a state.
    pub(super) transitions: ByLabel<JobState, Counter>,
}

impl ModuleMetrics for JobMetrics {
    fn register(registry: &mut Registry) -> JobMetrics {
        JobMetrics {
            running: registry.gauge("jobs_running", "Jobs that run now"),
            transitions: registry.by_label("job_states", "Jobs that have come to a state", "state"),
        }
    }
}
