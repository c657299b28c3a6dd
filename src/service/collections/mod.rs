//! Collections of documents, searched by text or vector. Each search is run once.
//!
//! The flow of a search: the cached results of the text or vector, if no write has changed them; else the text's embedding, from its
//! own cache, and one flight per query and version of the collection, in which the rows are searched and the results are cached.

mod documents;
mod metrics;
mod query_vectors;
mod recall;
mod result_cache;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::Directives;
use super::embeddings::Embeddings;
use crate::cache::{Cache, Landing, Namespaces, SEARCH_RESULTS, SingleFlight};
use crate::domain::{Key, Principal};
use crate::embed::ModelRegistry;
use crate::error::{Error, Kind, Result};
use crate::search::{Catalog, Collection, Filter, Query, Results, check_bytes};

use self::query_vectors::MissingQuery;
use self::recall::Recall;
use self::result_cache::{StoreContext, key, key_base, of_version};
pub use documents::{NewDocument, Spec};
pub use metrics::QueryMetrics;

/// Larger results are looked through for tags and ids off the runtime.
const STORED_AT_ONCE_BYTES_MAX: usize = 256 << 10;

/// What one request may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Results of one query.
    pub k_max: usize,
    /// Queries of one request.
    pub queries_max: usize,
    /// Documents of one request that writes or removes.
    pub documents_max: usize,
    /// Numbers that a vector may have.
    pub dimensions_max: usize,
    /// Bytes of the documents and vectors that one search finds, all queries together.
    pub result_bytes_max: usize,
    /// Nodes that a search may let a graph expand.
    pub ef_max: usize,
    /// The share of the searches by index that are run again exactly, to know what indexes find.
    pub recall_sample: f64,
    /// The share of the exact results below which there is a warning.
    pub recall_target: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            k_max: 1000,
            queries_max: 256,
            documents_max: 4096,
            dimensions_max: 8192,
            result_bytes_max: 64 << 20,
            ef_max: 8192,
            recall_sample: 0.005,
            recall_target: 0.95,
        }
    }
}

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

/// The use case. Shared by `Arc`.
pub struct Collections {
    catalog: Arc<Catalog>,
    models: Arc<ModelRegistry>,
    embeddings: Arc<Embeddings>,
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    flights: Arc<SingleFlight<Results>>,
    options: Options,
    recall: Arc<Recall>,
    metrics: Arc<QueryMetrics>,
}

/// How a query was answered.
enum QueryOutcome {
    /// Results, the version of which they are true, their age in seconds.
    Hit(Results, u64, u32),
    /// The flight, the version that it searches, whether this request leads it.
    Waiting(Landing<Results>, u64, bool),
}

impl Collections {
    /// A use case over a catalogue, with results kept in `cache`.
    pub fn new(
        catalog: Arc<Catalog>,
        models: Arc<ModelRegistry>,
        embeddings: Arc<Embeddings>,
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        options: Options,
        metrics: Arc<QueryMetrics>,
    ) -> Collections {
        Collections {
            catalog,
            models,
            embeddings,
            cache,
            namespaces,
            flights: SingleFlight::new(),
            recall: Arc::new(Recall::new(options.recall_sample, options.recall_target, &metrics)),
            options,
            metrics,
        }
    }

    /// Searches a collection.
    ///
    /// # Errors
    /// `NotFound` for an unknown collection; `InvalidInput` for a `k` or a lifetime outside its limits, too many queries, or a vector
    /// that does not fit, naming the field; `Conflict` for texts in a collection of another model; `NotCached` with
    /// `only_if_cached`; `Overloaded`; what embedding may say.
    ///
    /// Cancel safety: a search that was begun is finished, and its results are kept.
    pub async fn search(self: &Arc<Self>, name: &str, search: Search) -> Result<SearchOutcome> {
        let collection = self.catalog.get(&search.principal.tenant, name)?;
        self.check(&search)?;
        let asked = self.query_inputs(&collection, &search)?;
        let started = Instant::now();
        // Before anything is looked for: what is invalidated from here on is not kept.
        let stamp = self.cache.freshness().tokens().stamp();
        let name = search.directives.namespace.as_deref().unwrap_or(SEARCH_RESULTS);
        let namespace = self.namespaces.resolve(&search.principal.tenant, name)?;
        let asked_ttl = search.directives.ttl_seconds;
        let ttl_seconds = super::ttl_seconds(&namespace.policy, asked_ttl)?;
        let context =
            StoreContext { namespace, ttl_seconds, stamp, principal: Arc::clone(&search.principal) };
        let key_base = key_base(&collection, &search, self.ef(&search), &context.namespace);
        let keys: Vec<Key> = asked.iter().map(|asked| key(&key_base, asked)).collect();
        let mut outcomes: Vec<Option<QueryOutcome>> =
            keys.iter().map(|key| self.cached(&collection, &search.directives, key)).collect();
        let mut missing = Vec::new();
        for (place, (key, asked)) in keys.into_iter().zip(asked).enumerate() {
            if outcomes[place].is_none() {
                missing.push((place, key, asked));
            }
        }
        let mut embedding = Duration::ZERO;
        if !missing.is_empty() {
            if search.directives.only_if_cached {
                return Err(Error::new(Kind::NotCached, "the results are not in the cache"));
            }
            let wanted = self.with_vectors(&collection, &search, missing).await?;
            embedding = started.elapsed();
            self.search_missing(&collection, &search, context, wanted, &mut outcomes);
        }
        self.gather(outcomes, embedding, started).await
    }

    /// Joins a flight for each of the missing queries, and leads those that are not in flight.
    fn search_missing(
        self: &Arc<Self>,
        collection: &Arc<Collection>,
        search: &Search,
        context: StoreContext,
        wanted: Vec<MissingQuery>,
        outcomes: &mut [Option<QueryOutcome>],
    ) {
        let view = collection.view();
        let (mut flights, mut led) = (Vec::new(), Vec::new());
        for wanted in wanted {
            // A flight is of one version, so that a search after a write does not get results from before it.
            let (landing, flight) = self.flights.join(of_version(&wanted.key, view.version()));
            outcomes[wanted.place] = Some(QueryOutcome::Waiting(landing, view.version(), flight.is_some()));
            if let Some(flight) = flight {
                flights.push(flight);
                led.push(wanted);
            }
        }
        if led.is_empty() {
            return;
        }
        let query = Query {
            vectors: led.iter().flat_map(|wanted| wanted.vector.iter().copied()).collect(),
            k: search.k,
            filter: search.filter.clone().map(Arc::new),
            score_min: search.score_min,
            has_vectors: search.has_vectors,
            ef: self.ef(search),
            bytes_max: self.options.result_bytes_max,
        };
        let (own, collection, no_store) =
            (Arc::clone(self), Arc::clone(collection), search.directives.no_store);
        tokio::spawn(async move {
            let query = Arc::new(query);
            match own.catalog.search(Arc::clone(&view), Arc::clone(&query)).await {
                Ok(found) => {
                    own.recall.sample(&own.catalog, &view, &query, &found);
                    let bytes: usize = found.iter().map(|results| results.bytes().len()).sum();
                    let land = move || {
                        for ((flight, wanted), results) in flights.into_iter().zip(led).zip(found) {
                            if !no_store {
                                own.store(&collection, &context, &view, &query, wanted, &results);
                            }
                            flight.land(Ok(results));
                        }
                    };
                    if bytes <= STORED_AT_ONCE_BYTES_MAX {
                        land();
                    } else if let Err(error) = tokio::task::spawn_blocking(land).await {
                        tracing::error!(%error, "results that were found could not be kept");
                    }
                }
                Err(error) => flights.into_iter().for_each(|flight| flight.land(Err(error.clone()))),
            }
        });
    }

    async fn gather(
        &self,
        outcomes: Vec<Option<QueryOutcome>>,
        embedding: Duration,
        started: Instant,
    ) -> Result<SearchOutcome> {
        let mut found = SearchOutcome {
            results: Vec::with_capacity(outcomes.len()),
            version: u64::MAX,
            hits: 0,
            misses: 0,
            coalesced: 0,
            age_seconds: 0,
            embedding,
            searching: Duration::ZERO,
        };
        let landed = |outcome| async {
            match outcome {
                QueryOutcome::Hit(results, version, age) => Ok((results, version, Some(age), false)),
                QueryOutcome::Waiting(landing, version, has_led) => {
                    landing.wait().await.map(|results| (results, version, None, has_led))
                }
            }
        };
        let waited = join_all(outcomes.into_iter().flatten().map(landed));
        for outcome in waited.await {
            let (results, version, age, has_led) = outcome?;
            match (age, has_led) {
                (Some(age), _) => {
                    found.hits += 1;
                    found.age_seconds = found.age_seconds.max(age);
                }
                (None, true) => found.misses += 1,
                (None, false) => found.coalesced += 1,
            }
            found.version = found.version.min(version);
            found.results.push(results);
        }
        // Results that were cached take no memory of their own, but their answer does.
        check_bytes(found.results.iter(), self.options.result_bytes_max)?;
        self.metrics.hits.inc_by(found.hits as u64);
        self.metrics.misses.inc_by(found.misses as u64);
        self.metrics.coalesced.inc_by(found.coalesced as u64);
        found.searching = started.elapsed() - embedding;
        Ok(found)
    }

    fn check(&self, search: &Search) -> Result<()> {
        let k_max = self.options.k_max;
        if !(1..=k_max).contains(&search.k) {
            return Err(Error::invalid("k", format!("k must be 1 to {k_max}, got {}", search.k)));
        }
        let ef_max = self.options.ef_max;
        if let Some(ef) = search.ef
            && !(1..=ef_max).contains(&ef)
        {
            return Err(Error::invalid("ef", format!("ef must be 1 to {ef_max}, got {ef}")));
        }
        let (count, field) = match &search.input {
            Input::Texts(texts) => (texts.len(), "texts"),
            Input::Vectors(vectors) => (vectors.len(), "vectors"),
        };
        let max = self.options.queries_max;
        if !(1..=max).contains(&count) {
            return Err(Error::invalid(field, format!("a search must have 1 to {max} queries, got {count}")));
        }
        Ok(())
    }

    /// Nodes that a graph expands for a search; none if it must be exact.
    fn ef(&self, search: &Search) -> Option<usize> {
        (!search.is_exact).then(|| search.ef.unwrap_or_else(|| self.catalog.ef()))
    }
}
