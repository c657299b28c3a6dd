//! The use case with everything that it works on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::live_job::LiveJob;
use super::metrics::JobMetrics;
use super::options::Options;
use super::record::JobStore;
use crate::domain::Clock;
use crate::service::collections::Collections;
use crate::service::warming::WarmTarget;
use crate::upstream::Prices;

/// The jobs of this server. Shared by `Arc`.
pub struct Jobs {
    pub(super) collections: Arc<Collections>,
    pub(super) store: Arc<dyn JobStore>,
    pub(super) prices: Prices,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    pub(super) metrics: Arc<JobMetrics>,
    pub(super) table: Mutex<BTreeMap<u64, Arc<LiveJob>>>,
    /// Held by the jobs that run.
    pub(super) places: Arc<Semaphore>,
    pub(super) tasks: Mutex<JoinSet<()>>,
    /// What answers the lines of a job that warms; `None` until the server is ready.
    pub(super) warm_target: Mutex<Option<Arc<dyn WarmTarget>>>,
}
