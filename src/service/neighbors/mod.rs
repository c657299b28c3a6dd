//! Documents in, neighbours out: collections searched by text or vector, each search run once.
//!
//! The walk of a search: the text's embedding, from its cache; the cached results for that vector, if no write has changed
//! them; else one flight per query and version of the collection, in which the rows are searched and the results kept.

mod writing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use super::Directives;
use super::embeddings::{self, Embeddings};
use crate::cache::{Cache, Landing, Namespace, Namespaces, SEARCH_RESULTS, SingleFlight, Verdict};
use crate::domain::{Codec, Entry, EntryMeta, InputType, Key, KeyHasher, Subject, Tag, Tenant};
use crate::error::{Error, Kind, Result};
use crate::metrics::{Metrics, OutcomeLabels};
use crate::search::{Catalog, Collection, Filter, Query, Results, Unfit, View, Watched};

pub use writing::{Draft, Spec};

/// The longest vector: of two such, neither the product nor the distance overflows an f32.
const NORM_MAX: f64 = 1e18;

/// What one request may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Default for Options {
    fn default() -> Options {
        Options { k_max: 1000, queries_max: 256, documents_max: 4096, dimensions_max: 8192 }
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
    /// Whose embeddings are used.
    pub tenant: Tenant,
    /// What the request says about the cache.
    pub directives: Directives,
    /// The fields that texts and vectors came in, for messages.
    pub fields: [&'static str; 2],
}

/// Results in the order of the queries, and how they came about.
#[derive(Debug, Clone)]
pub struct Found {
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
pub struct Neighbors {
    catalog: Arc<Catalog>,
    embeddings: Arc<Embeddings>,
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    flights: Arc<SingleFlight<Results>>,
    options: Options,
    hits: Counter,
    misses: Counter,
    coalesced: Counter,
}

/// One query on its way through the cache.
struct Wanted {
    key: Key,
    vector: Vec<f32>,
}

/// How a query was answered.
enum Outcome {
    Hit(Results, u64, u32),
    Waiting(Landing<Results>, u64, bool),
}

impl Neighbors {
    /// A use case over a catalogue, with results kept in `cache`.
    pub fn new(
        catalog: Arc<Catalog>,
        embeddings: Arc<Embeddings>,
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        options: Options,
        metrics: &Metrics,
    ) -> Neighbors {
        let counter = |outcome| metrics.searches.get_or_create(&OutcomeLabels { outcome }).clone();
        Neighbors {
            catalog,
            embeddings,
            cache,
            namespaces,
            flights: SingleFlight::new(),
            options,
            hits: counter("hit"),
            misses: counter("miss"),
            coalesced: counter("coalesced"),
        }
    }

    /// Searches a collection.
    ///
    /// # Errors
    /// `NotFound` for an unknown collection; `InvalidInput` for a `k` outside its limits, too many queries, or a vector
    /// that does not fit, naming the field; `Conflict` for texts in a collection of another model; `NotCached` with
    /// `only_if_cached`; `Overloaded`; what embedding may say.
    ///
    /// Cancel safety: a search that was begun is finished, and its results are kept.
    pub async fn search(self: &Arc<Self>, name: &str, search: Search) -> Result<Found> {
        let collection = self.catalog.get(name)?;
        self.check(&search)?;
        let started = Instant::now();
        let vectors = self.vectors(&collection, &search).await?;
        let embedding = started.elapsed();
        let searching = Instant::now();
        let namespace = self.namespaces.resolve(&search.tenant, SEARCH_RESULTS)?;
        let filter = search.filter.clone().map(Arc::new);
        let wanted: Vec<Wanted> = vectors
            .into_iter()
            .map(|vector| Wanted { key: key(&collection, &search, &vector), vector })
            .collect();
        let view = collection.view();
        let mut led = Vec::new();
        let outcomes: Vec<Outcome> = wanted
            .into_iter()
            .map(|wanted| match self.look(&collection, &search.directives, &wanted.key) {
                Some((results, version, age)) => Outcome::Hit(results, version, age),
                None => {
                    // Of one version: whoever asks after a write does not get what was found before it.
                    let (landing, duty) = self.flights.join(of_version(&wanted.key, view.version()));
                    let has_led = duty.is_some();
                    led.extend(duty.map(|duty| (duty, wanted)));
                    Outcome::Waiting(landing, view.version(), has_led)
                }
            })
            .collect();
        if search.directives.only_if_cached
            && outcomes.iter().any(|outcome| matches!(outcome, Outcome::Waiting(..)))
        {
            return Err(Error::new(Kind::NotCached, "the results are not in the cache"));
        }
        if !led.is_empty() {
            let query = Query {
                vectors: led.iter().flat_map(|(_, wanted)| wanted.vector.iter().copied()).collect(),
                k: search.k,
                filter,
                score_min: search.score_min,
                has_vectors: search.has_vectors,
            };
            let (own, no_store) = (Arc::clone(self), search.directives.no_store);
            let (duties, wanted): (Vec<_>, Vec<_>) = led.into_iter().unzip();
            tokio::spawn(async move {
                let query = Arc::new(query);
                let found = own.catalog.search(Arc::clone(&view), Arc::clone(&query)).await;
                match found {
                    Ok(found) => {
                        for ((duty, wanted), results) in duties.into_iter().zip(wanted).zip(found) {
                            if !no_store {
                                own.keep(&collection, &namespace, &view, &query, wanted, &results);
                            }
                            duty.land(Ok(results));
                        }
                    }
                    Err(error) => duties.into_iter().for_each(|duty| duty.land(Err(error.clone()))),
                }
            });
        }
        self.gather(outcomes, embedding, searching).await
    }

    async fn gather(&self, outcomes: Vec<Outcome>, embedding: Duration, searching: Instant) -> Result<Found> {
        let mut found = Found {
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
                Outcome::Hit(results, version, age) => Ok((results, version, Some(age), false)),
                Outcome::Waiting(landing, version, has_led) => {
                    landing.wait().await.map(|results| (results, version, None, has_led))
                }
            }
        };
        let waited = join_all(outcomes.into_iter().map(landed));
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
        self.hits.inc_by(found.hits as u64);
        self.misses.inc_by(found.misses as u64);
        self.coalesced.inc_by(found.coalesced as u64);
        found.searching = searching.elapsed();
        Ok(found)
    }

    fn check(&self, search: &Search) -> Result<()> {
        let k_max = self.options.k_max;
        if !(1..=k_max).contains(&search.k) {
            return Err(Error::invalid("k", format!("k is from 1 to {k_max}, got {}", search.k)));
        }
        let (count, field) = match &search.input {
            Input::Texts(texts) => (texts.len(), search.fields[0]),
            Input::Vectors(vectors) => (vectors.len(), search.fields[1]),
        };
        let max = self.options.queries_max;
        if !(1..=max).contains(&count) {
            return Err(Error::invalid(field, format!("a search has 1 to {max} queries, got {count}")));
        }
        Ok(())
    }

    /// The prepared vectors of a search.
    async fn vectors(&self, collection: &Collection, search: &Search) -> Result<Vec<Vec<f32>>> {
        let vectors = match &search.input {
            Input::Vectors(vectors) => vectors.clone(),
            Input::Texts(texts) => {
                if let Some(row) = texts.iter().position(String::is_empty) {
                    return Err(Error::invalid(search.fields[0], format!("text {row} is empty")));
                }
                self.check_model(collection, search.fields[0])?;
                self.embed(texts.clone(), InputType::Query, &search.tenant).await?
            }
        };
        let field = search.fields[1];
        let prepare = |(row, mut vector): (usize, Vec<f32>)| {
            let name = if field == "vectors" { format!("vectors[{row}]") } else { field.to_owned() };
            prepare(collection, &mut vector, &name).map(|()| vector)
        };
        vectors.into_iter().enumerate().map(prepare).collect()
    }

    async fn embed(
        &self,
        texts: Vec<String>,
        input_type: InputType,
        tenant: &Tenant,
    ) -> Result<Vec<Vec<f32>>> {
        let request = embeddings::Request {
            texts,
            input_type: Some(input_type),
            truncate: true,
            tenant: tenant.clone(),
            directives: Directives::default(),
        };
        let embedded = self.embeddings.embed(&request).await?;
        let vector = |entry: &Arc<Entry>| {
            entry.value.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number)).collect()
        };
        Ok(embedded.entries.iter().map(vector).collect())
    }

    /// Refuses texts where the model that embeds is not the one whose vectors the collection holds.
    fn check_model(&self, collection: &Collection, param: &str) -> Result<()> {
        let card = self.embeddings.card();
        let message = match &collection.settings().model {
            Some(model) if model.fingerprint == card.fingerprint.to_string() => return Ok(()),
            Some(model) => format!(
                "the collection holds vectors of the model {}, with another fingerprint than that of {}, which this \
                 server runs",
                model.name, card.name
            ),
            None => "the collection has no model: it takes vectors only".to_owned(),
        };
        Err(Error::new(Kind::Conflict, message).param(param))
    }

    /// Cached results that the request accepts; with the version of which they are true, and their age.
    fn look(
        &self,
        collection: &Collection,
        directives: &Directives,
        key: &Key,
    ) -> Option<(Results, u64, u32)> {
        let freshness = self.cache.freshness();
        let peek = || self.cache.peek(key).filter(|found| found.verdict == Verdict::Fresh);
        let (found, version) = collection.cached(key, peek)?;
        if !directives.accept(freshness, &found) {
            return None;
        }
        let age = freshness.age_seconds(&found.entry.meta);
        Some((Results::from_bytes(Arc::clone(&found.entry.value)), version, age))
    }

    fn keep(
        &self,
        collection: &Collection,
        namespace: &Namespace,
        view: &View,
        query: &Query,
        wanted: Wanted,
        results: &Results,
    ) {
        let freshness = self.cache.freshness();
        let stamp = freshness.versions().stamp();
        let tenant = Tenant::default();
        let mut tags: Vec<Subject> = results
            .iter()
            .flat_map(|hit| hit.document.tags().filter_map(Tag::named).collect::<Vec<_>>())
            .map(|tag| Subject::tag(&tenant, &tag))
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let Some(tokens) = freshness.versions().admit(stamp, namespace.subject, &tags) else { return };
        let lifetime = freshness.lifetime(&namespace.policy, namespace.policy.ttl_seconds);
        let meta = EntryMeta {
            namespace: namespace.subject,
            epoch: tokens.epoch,
            tags: tokens.tags,
            ..EntryMeta::ending(Codec::Raw, lifetime.created, lifetime.expires)
        };
        let entry = Arc::new(Entry { meta, value: Arc::clone(results.bytes()) });
        let watched = Watched::new(&wanted.vector, query.filter.clone(), query.k, query.score_min, results);
        let Wanted { key, .. } = wanted;
        collection.admit(view.version(), key, watched, || self.cache.keep(key, entry));
    }
}

/// Makes a vector fit for a collection.
fn prepare(collection: &Collection, vector: &mut [f32], param: &str) -> Result<()> {
    let settings = collection.settings();
    if vector.len() != settings.dim {
        let message =
            format!("{param} has {} numbers, the collection's vectors have {}", vector.len(), settings.dim);
        return Err(Error::invalid(param, message));
    }
    settings.metric.prepare(vector).map_err(|unfit| {
        let message = match unfit {
            Unfit::NotFinite { at } => format!("number {at} of {param} is not a finite number"),
            Unfit::Zero => format!("{param} is zero: it has no direction, which the cosine needs"),
        };
        Error::invalid(param, message)
    })?;
    let square: f64 = vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    if square > NORM_MAX * NORM_MAX {
        return Err(Error::invalid(
            param,
            format!("{param} is longer than {NORM_MAX:e}, and its scores would overflow"),
        ));
    }
    Ok(())
}

/// The identity of a query's results in a collection.
fn key(collection: &Collection, search: &Search, vector: &[f32]) -> Key {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    let score_min = search.score_min.map_or([0; 5], |min| {
        let [a, b, c, d] = min.to_le_bytes();
        [1, a, b, c, d]
    });
    let filter = search.filter.as_ref().map(|filter| format!("{filter:?}")).unwrap_or_default();
    KeyHasher::new("likewise/search/v1")
        .field(&collection.instance().to_le_bytes())
        .field(&bytes)
        .field(&(search.k as u64).to_le_bytes())
        .field(&score_min)
        .field(&[u8::from(search.has_vectors)])
        .field(filter.as_bytes())
        .finish()
}

fn of_version(key: &Key, version: u64) -> Key {
    KeyHasher::new("likewise/search-flight/v1").field(&key.0).field(&version.to_le_bytes()).finish()
}
