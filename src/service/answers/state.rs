//! The use case with everything that it works on.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::costs::Costs;
use super::inflight::InflightTable;
use super::lookup::Lookup;
use super::metrics::AnswerMetrics;
use super::misses::MissComparison;
use super::options::Options;
use super::recomputation::Recomputation;
use super::refresh_backoff::RefreshBackoff;
use super::semantic::SemanticLookup;
use crate::byte_budget::ByteBudget;
use crate::cache::{LookupCounters, Namespaces};
use crate::service::early_refresh::EarlyRefresh;
use crate::upstream::Origin;

/// The use case. Shared by `Arc`.
pub struct Answers {
    pub(super) lookup: Lookup,
    /// Finds questions in other words, where there is an embedding model.
    pub(super) semantic: Option<SemanticLookup>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) origin: Arc<dyn Origin>,
    pub(super) costs: Costs,
    pub(super) inflight: Arc<InflightTable>,
    /// The byte budget of all requests in flight.
    pub(super) budget: Arc<ByteBudget>,
    pub(super) refreshes: Arc<Semaphore>,
    pub(super) refresh_backoff: RefreshBackoff,
    pub(super) early_refresh: EarlyRefresh,
    /// Which callers of the routes without the proxy compute an answer.
    pub(super) recomputation: Recomputation,
    /// Names what separates a miss from a stored request, if it is on.
    pub(super) misses: Option<MissComparison>,
    pub(super) options: Options,
    pub(super) answer_bytes_max: usize,
    pub(super) request_usage: bool,
    /// Whether upstreams see the credentials of clients.
    pub(super) forwards_client_keys: bool,
    pub(super) metrics: Arc<AnswerMetrics>,
    /// Requests by model.
    pub(super) models: LookupCounters,
}
