//! A search of a collection, and what it comes to.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Landing;
use crate::domain::Principal;
use crate::search::{Filter, Results};
use crate::service::Directives;

/// What a search is by.
#[derive(Debug, Clone)]
pub enum Input {
    /// Texts, embedded by the collection's model.
    Texts(Vec<String>),
    /// Vectors as they are, all of the collection's length.
    Vectors(Vec<Vec<f32>>),
}

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// Of what the nearest documents are wanted.
    pub input: Input,
    /// How many results each query is to have at most.
    pub k: usize,
    /// Which documents may be found.
    pub filter: Option<Filter>,
    /// Scores below it are not results.
    pub score_min: Option<f32>,
    /// Whether results carry their vectors.
    pub has_vectors: bool,
    /// Whether the results must be exact, whatever index there is.
    pub is_exact: bool,
    /// Nodes that a graph expands at least; the server's choice if it is left out.
    pub ef: Option<usize>,
    /// The sender, whose tenant's collection is searched.
    pub principal: Arc<Principal>,
    /// What the request says about the cache.
    pub directives: Directives,
}

/// Results in the order of the queries, and how they came about.
#[derive(Debug, Clone)]
pub struct SearchOutcome {
    /// Results of each query, best first.
    pub results: Vec<Results>,
    /// The version of the collection of which they are true; the oldest, if a write came between.
    pub version: u64,
    /// Queries whose results were cached.
    pub hits: usize,
    /// Queries searched for this request.
    pub misses: usize,
    /// Queries searched once for several.
    pub coalesced: usize,
    /// Age of the oldest cached results in seconds.
    pub age_seconds: u32,
    /// Time spent on embeddings.
    pub embedding: Duration,
    /// Time spent on results.
    pub searching: Duration,
}

/// How a query was answered.
pub(super) enum QueryOutcome {
    /// Results, the version of which they are true, their age in seconds.
    Hit(Results, u64, u32),
    /// The flight, the version that it searches, whether this request leads it.
    Waiting(Landing<Results>, u64, bool),
}
