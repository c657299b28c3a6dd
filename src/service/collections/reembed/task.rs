//! What is to be done with a collection.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::embed::Embedder;
use crate::search::Collection;

/// What is to be done with which collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReembedSpec {
    /// The name of the collection.
    pub collection: String,
    /// The model whose vectors it is to hold. `None` for a rollback.
    #[serde(default)]
    pub model: Option<String>,
    /// Whether the former generation is to be served again.
    #[serde(default)]
    pub rollback: bool,
    /// Whether it is only to be said what it would take.
    #[serde(default)]
    pub dry_run: bool,
    /// For how long the former generation is kept, in hours.
    #[serde(default = "keep_old_hours")]
    pub keep_old_hours: u32,
    /// Whether documents that cannot be embedded are left out of what is served. Otherwise the work pauses before it would.
    #[serde(default)]
    pub leave_refused: bool,
}

fn keep_old_hours() -> u32 {
    24
}

/// Documents that a generation has and the served one lacks, because its model refused them.
#[derive(Debug, Clone, Default)]
pub struct LeftDocuments {
    /// The number of the generation that has them.
    pub generation: u32,
    /// Their ids.
    pub ids: HashSet<String>,
}

/// A collection with the model that it is to have.
pub(super) struct ReembedTask {
    pub(super) source: Arc<Collection>,
    pub(super) from_model: String,
    pub(super) model: Arc<dyn Embedder>,
}
