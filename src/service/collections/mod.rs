//! Collections of documents, searched by text or vector. Each search is run once.
//!
//! The flow of a search: the cached results of the text or vector, if no write has changed them; else the text's embedding, from its
//! own cache, and one flight per query and version of the collection, in which the rows are searched and the results are cached.

mod document_ids;
mod documents;
mod listing;
mod metrics;
mod options;
mod patch;
mod query;
mod query_vectors;
mod recall;
mod reembed;
mod result_cache;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tracing::instrument;

use super::embeddings::Embeddings;
use super::spans::record_counts;
use crate::cache::{Cache, Namespaces, SEARCH_RESULTS, SingleFlight};
use crate::domain::{Key, LookupOutcome};
use crate::embed::ModelRegistry;
use crate::error::{Error, Kind, Result};
use crate::search::{Catalog, Collection, Query, check_bytes};

use self::document_ids::DocumentIds;
use self::query::QueryOutcome;
use self::query_vectors::MissingQuery;
use self::recall::Recall;
use self::result_cache::{StoreContext, key, key_base, of_version};
pub use documents::{NewDocument, Spec, UpsertOutcome};
pub use listing::{DocumentCount, LIMIT_MAX, Selection};
pub use metrics::QueryMetrics;
pub use options::Options;
pub use query::{Input, Search, SearchOutcome};
pub use reembed::{LeftDocuments, ReembedPlan, ReembedReport, ReembedSpec, ReembedVerification};
pub use state::Collections;

/// Larger results are looked through for tags and ids off the runtime.
const STORED_AT_ONCE_BYTES_MAX: usize = 256 << 10;

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
            document_ids: DocumentIds::default(),
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
    #[instrument(level = "debug", skip_all, fields(collection = name, hits, misses, coalesced), err(level = "debug"))]
    pub async fn search(self: &Arc<Self>, name: &str, search: Search) -> Result<SearchOutcome> {
        let collection = self.catalog.get(&search.principal.tenant, name)?;
        self.check(&search)?;
        let asked = self.query_inputs(&collection, &search)?;
        let started = Instant::now();
        // Before anything is looked for: what is invalidated from here on is not kept.
        let stamp = self.cache.freshness().tokens().stamp();
        let name = search.directives.namespace.as_deref().unwrap_or(SEARCH_RESULTS);
        let namespace = self.namespaces.resolve(&search.principal.tenant, name)?;
        let lookups = self.namespaces.lookups_in(&namespace);
        let ttl_seconds = search.directives.ttl_seconds(&namespace.policy)?;
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
        let found = self.gather(outcomes, embedding, started).await?;
        lookups.add(LookupOutcome::Hit, found.hits as u64);
        lookups.add(LookupOutcome::Miss, found.misses as u64);
        lookups.add(LookupOutcome::Coalesced, found.coalesced as u64);
        Ok(found)
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
        record_counts(found.hits, found.misses, found.coalesced);
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

    /// Searches that wait or run, as a share of those that may; 1 if the next one is refused.
    pub fn share_of_searches(&self) -> f64 {
        self.catalog.share_of_searches()
    }

    /// Nodes that a graph expands for a search; none if it must be exact.
    fn ef(&self, search: &Search) -> Option<usize> {
        (!search.is_exact).then(|| search.ef.unwrap_or_else(|| self.catalog.ef()))
    }
}
