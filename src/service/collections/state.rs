//! The use case with everything that it works on.

use std::sync::Arc;

use super::document_ids::DocumentIds;
use super::metrics::QueryMetrics;
use super::options::Options;
use super::recall::Recall;
use crate::cache::{Cache, Namespaces, SingleFlight};
use crate::embed::ModelRegistry;
use crate::search::{Catalog, Results};
use crate::service::embeddings::Embeddings;

/// The use case. Shared by `Arc`.
pub struct Collections {
    pub(super) catalog: Arc<Catalog>,
    pub(super) models: Arc<ModelRegistry>,
    pub(super) embeddings: Arc<Embeddings>,
    pub(super) cache: Arc<Cache>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) flights: Arc<SingleFlight<Results>>,
    pub(super) document_ids: DocumentIds,
    pub(super) options: Options,
    pub(super) recall: Arc<Recall>,
    pub(super) metrics: Arc<QueryMetrics>,
}
