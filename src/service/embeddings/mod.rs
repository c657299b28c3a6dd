//! Texts in, vectors out, each text embedded once.
//!
//! The walk of a request: a key per text, equal texts joined; memory; then one flight per missing key, in which the
//! tiers below are asked and the rest goes to the embedder. Every vector ends at its own place, whatever mixture of
//! hits, misses and other requests' flights it came from.

mod making;
mod metrics;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

pub use metrics::TextMetrics;

use self::making::{Making, Served};
use super::Directives;
use crate::cache::{Cache, Found, Namespace, Namespaces, SingleFlight, Stamp};
use crate::domain::{ByPrefix, Entry, InputType, Key, KeyHasher, Principal, TierName};
use crate::embed::{Embedder, Priority};
use crate::error::{Error, FieldPath, Kind, Result};

/// What one request may ask for. How long embeddings are kept is the policy of their namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bytes of one text; a longer one is refused before it is tokenized.
    pub text_bytes_max: usize,
    /// Tokens that one request may send to the model, after truncation.
    pub request_tokens_max: usize,
    /// Requests with at most this many texts go before larger ones.
    pub interactive_texts_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            text_bytes_max: 1024 * 1024,
            request_tokens_max: 4 * 1024 * 1024,
            interactive_texts_max: 16,
        }
    }
}

/// A request for embeddings.
#[derive(Clone)]
pub struct Request {
    /// The model that embeds the texts.
    pub model: Arc<dyn Embedder>,
    /// The texts, none of them empty.
    pub texts: Vec<String>,
    /// What the texts are for, which chooses the model's prompt.
    pub input_type: Option<InputType>,
    /// Whether a text longer than the model reads is cut; otherwise it is refused.
    pub truncate: bool,
    /// The sender, whose tenant's entries are used.
    pub principal: Arc<Principal>,
    /// What the request says about the cache.
    pub directives: Directives,
}

/// How the texts of a request were served; the three add up to the number of texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Found in a tier.
    pub hits: usize,
    /// Embedded for this request.
    pub misses: usize,
    /// Embedded once for several: an equal text of this request, or another request's flight.
    pub coalesced: usize,
}

/// Vectors in the order of the texts, and how they came about.
#[derive(Debug, Clone)]
pub struct Response {
    /// One entry for each text; the value is the vector as little-endian f32.
    pub entries: Vec<Arc<Entry>>,
    /// Hits, misses and coalesced texts.
    pub counts: Counts,
    /// The lowest tier that was needed, where every text was a hit.
    pub tier: Option<TierName>,
    /// Age of the oldest entry in seconds, where every text was a hit.
    pub age_seconds: u32,
    /// Tokens of all texts.
    pub tokens: u64,
    /// Texts that the model read only in part.
    pub truncated: usize,
    /// Time spent looking in memory.
    pub lookup: Duration,
    /// Time spent waiting for flights: lower tiers, queue and model.
    pub waiting: Duration,
    /// Of it, the longest time that a text waited for the model to be free.
    pub queued: Duration,
}

/// The use case. Shared by `Arc`.
pub struct Embeddings {
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    flights: Arc<SingleFlight<Served>>,
    options: Options,
    metrics: Arc<TextMetrics>,
}

/// How one distinct text of a request was served.
struct Outcome {
    served: Served,
    /// Whether this request led the flight that the entry came from.
    has_led: bool,
}

/// The distinct texts of a request, and where their embeddings are kept.
struct Wanted {
    namespace: Namespace,
    /// Lifetime of what this request stores.
    ttl_seconds: u32,
    /// When the request began, in the order of invalidations.
    stamp: Stamp,
    keys: Vec<Key>,
    /// For each key, its first place in the request.
    firsts: Vec<usize>,
    /// For each text of the request, the place of its key.
    places: Vec<usize>,
}

impl Embeddings {
    /// A use case over `cache`.
    pub fn new(
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        options: Options,
        metrics: Arc<TextMetrics>,
    ) -> Embeddings {
        Embeddings { cache, namespaces, flights: SingleFlight::new(), options, metrics }
    }

    /// The text that OpenAI-style token ids stand for to a model, at most as long as a text may be.
    ///
    /// # Errors
    /// `InvalidInput` if an id is outside the vocabulary, `TooLarge` if the text is too long.
    pub fn decode_tokens(&self, model: &dyn Embedder, ids: &[u32]) -> Result<String> {
        model.decode_tokens(ids, self.options.text_bytes_max)
    }

    /// Embeds texts, from the cache where it can.
    ///
    /// # Errors
    /// `InvalidInput` for a text that is too long with `truncate` off or a lifetime past the limit, `TooLarge` past
    /// the token limit, `Overloaded` if the model's queue is full, `NotCached` with `only_if_cached`, or the
    /// embedder's own error. A request that is refused has cached nothing.
    ///
    /// Cancel safety: work whose callers have all left is dropped before it starts; the result of started work is cached.
    pub async fn embed(&self, request: &Request) -> Result<Response> {
        let started = Instant::now();
        self.refuse_oversized(&request.texts)?;
        let prompt = request.model.card().prompts.for_input(request.input_type);
        let wanted = self.distinct(request, prompt)?;
        let mut outcomes: Vec<Option<Outcome>> =
            wanted.keys.iter().map(|key| self.look_up(&request.directives, &wanted.namespace, key)).collect();
        let lookup = started.elapsed();

        if outcomes.iter().any(Option::is_none) {
            self.fill(request, prompt, &wanted, &mut outcomes).await?;
        }
        let outcomes: Vec<Outcome> = outcomes
            .into_iter()
            .map(|outcome| outcome.expect("every text was found or filled: this is a bug"))
            .collect();
        self.refuse_truncated(request, &wanted, &outcomes)?;
        if request.directives == Directives::default() {
            self.renew(&wanted, &outcomes);
            self.refresh(request, prompt, &wanted, &outcomes);
        }
        Ok(self.respond(&wanted, &outcomes, lookup, started.elapsed() - lookup))
    }

    fn refuse_oversized(&self, texts: &[String]) -> Result<()> {
        let max = self.options.text_bytes_max;
        match texts.iter().position(|text| text.len() > max) {
            None => Ok(()),
            Some(at) => {
                let fault = format!(" has {} bytes, at most {max} are allowed", texts[at].len());
                Err(Error::naming(Kind::TooLarge, element(at), "", &fault))
            }
        }
    }

    /// A key for each text, equal ones joined.
    fn distinct(&self, request: &Request, prompt: &str) -> Result<Wanted> {
        let Directives { namespace, ttl_seconds, .. } = &request.directives;
        let namespace = self.namespaces.of_embeddings(&request.principal.tenant, namespace.as_deref())?;
        let ttl_seconds = super::ttl_seconds(&namespace.policy, *ttl_seconds)?;
        let mut base = KeyHasher::new("likewise/embedding/v1");
        base.field(&request.model.card().fingerprint.0)
            .field(request.principal.tenant.as_str().as_bytes())
            .field(namespace.name.as_bytes())
            .field(prompt.as_bytes());
        let count = request.texts.len();
        let mut wanted = Wanted {
            namespace,
            ttl_seconds,
            stamp: self.cache.freshness().tokens().stamp(),
            keys: Vec::with_capacity(count),
            firsts: Vec::with_capacity(count),
            places: Vec::with_capacity(count),
        };
        let mut seen = HashMap::with_capacity_and_hasher(count, ByPrefix);
        for (first, text) in request.texts.iter().enumerate() {
            let key = base.clone().field(text.as_bytes()).finish();
            let place = match seen.entry(key) {
                Slot::Occupied(place) => *place.get(),
                Slot::Vacant(slot) => {
                    wanted.keys.push(key);
                    wanted.firsts.push(first);
                    *slot.insert(wanted.keys.len() - 1)
                }
            };
            wanted.places.push(place);
        }
        Ok(wanted)
    }

    fn look_up(&self, directives: &Directives, namespace: &Namespace, key: &Key) -> Option<Outcome> {
        if directives.no_cache {
            return None;
        }
        let found = self.cache.peek_within(key, &namespace.policy)?;
        self.accept(directives, found)
    }

    /// A found entry as an outcome, if it satisfies this request.
    fn accept(&self, directives: &Directives, found: Found) -> Option<Outcome> {
        let is_accepted = directives.accept(self.cache.freshness(), &found);
        is_accepted.then(|| Outcome { served: Served::found(found), has_led: false })
    }

    /// Fills the outcomes that memory could not.
    async fn fill(
        &self,
        request: &Request,
        prompt: &str,
        wanted: &Wanted,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<()> {
        let directives = &request.directives;
        // A flight serves whatever age the tiers below hold; a request with conditions of its own looks for itself.
        if directives.only_if_cached || (directives.is_conditional() && !directives.no_cache) {
            let open = open_places(outcomes);
            let keys: Vec<Key> = open.iter().map(|&place| wanted.keys[place]).collect();
            for (place, found) in open.into_iter().zip(self.cache.fetch(&wanted.namespace, &keys).await) {
                outcomes[place] = found.and_then(|found| self.accept(directives, found));
            }
        }
        let open = open_places(outcomes);
        if open.is_empty() {
            return Ok(());
        }
        if directives.only_if_cached {
            return Err(Error::new(
                Kind::NotCached,
                format!("{} of {} texts are not in the cache", open.len(), outcomes.len()),
            ));
        }
        let texts: Vec<String> =
            open.iter().map(|&place| format!("{prompt}{}", request.texts[wanted.firsts[place]])).collect();
        self.check_lengths(request, &open, wanted, &texts).await?;

        let reads_below = !directives.no_cache && !directives.is_conditional();
        let making = self.making(request, wanted, reads_below);
        let is_plain = *directives == Directives::default();
        let keys = open.iter().map(|&place| wanted.keys[place]);
        let landings = making.take_off(&self.flights, is_plain, keys.zip(texts));
        for (place, (landing, has_led)) in open.into_iter().zip(landings) {
            let served = landing.wait().await.map_err(|error| of_text(error, wanted.firsts[place]))?;
            outcomes[place] = Some(Outcome { served, has_led });
        }
        Ok(())
    }

    fn making(&self, request: &Request, wanted: &Wanted, reads_below: bool) -> Making {
        Making {
            cache: Arc::clone(&self.cache),
            embedder: Arc::clone(&request.model),
            namespace: wanted.namespace.clone(),
            reads_below,
            stores: !request.directives.no_store,
            ttl_seconds: wanted.ttl_seconds,
            stamp: wanted.stamp,
            priority: self.priority(request),
        }
    }

    fn priority(&self, request: &Request) -> Priority {
        if request.texts.len() <= self.options.interactive_texts_max {
            Priority::Interactive
        } else {
            Priority::Bulk
        }
    }

    /// Refuses a request before any of its texts is queued: what is refused must not be cached.
    async fn check_lengths(
        &self,
        request: &Request,
        open: &[usize],
        wanted: &Wanted,
        texts: &[String],
    ) -> Result<()> {
        let tokens_max = request.model.card().tokens_max;
        let could_exceed = texts.len().saturating_mul(tokens_max) > self.options.request_tokens_max;
        if request.truncate && !could_exceed {
            return Ok(());
        }
        let Some(counts) = request.model.count_tokens(texts.to_vec()).await? else {
            return Ok(());
        };
        if !request.truncate
            && let Some(at) = counts.iter().position(|&count| count > tokens_max)
        {
            return Err(too_long(wanted.firsts[open[at]], tokens_max));
        }
        let total: usize = counts.iter().map(|&count| count.min(tokens_max)).sum();
        if total > self.options.request_tokens_max {
            let max = self.options.request_tokens_max;
            let fault = format!(" has {total} tokens, at most {max} are allowed");
            return Err(Error::naming(Kind::TooLarge, TEXTS, "", &fault));
        }
        Ok(())
    }

    /// A cached vector of a cut text is no answer to a request that forbids cutting.
    fn refuse_truncated(&self, request: &Request, wanted: &Wanted, outcomes: &[Outcome]) -> Result<()> {
        if request.truncate {
            return Ok(());
        }
        match outcomes.iter().position(|outcome| outcome.served.entry.meta.is_truncated) {
            Some(place) => Err(too_long(wanted.firsts[place], request.model.card().tokens_max)),
            None => Ok(()),
        }
    }

    /// Moves the end of entries that were used, where it is due. The disk learns of it in the background.
    fn renew(&self, wanted: &Wanted, outcomes: &[Outcome]) {
        let freshness = self.cache.freshness();
        let due: Vec<(Key, Arc<Entry>)> = outcomes
            .iter()
            .zip(&wanted.keys)
            .filter(|(outcome, _)| outcome.served.tier.is_some() && !outcome.served.is_stale)
            .filter_map(|(outcome, key)| {
                let entry = &outcome.served.entry;
                let expires = freshness.renewal(&entry.meta, wanted.ttl_seconds)?;
                Some((*key, Arc::new(entry.ending(expires))))
            })
            .collect();
        if !due.is_empty() {
            let (cache, namespace) = (Arc::clone(&self.cache), wanted.namespace.clone());
            tokio::spawn(async move { cache.put_many(&namespace, due).await });
        }
    }

    /// Recomputes in the background the vectors that were served stale. Requests that are served one of them stale
    /// meanwhile join the same work.
    fn refresh(&self, request: &Request, prompt: &str, wanted: &Wanted, outcomes: &[Outcome]) {
        let stale: Vec<usize> =
            (0..outcomes.len()).filter(|&place| outcomes[place].served.is_stale).collect();
        if stale.is_empty() {
            return;
        }
        let keys = stale.iter().map(|&place| wanted.keys[place]);
        let texts = stale.iter().map(|&place| format!("{prompt}{}", request.texts[wanted.firsts[place]]));
        let making = self.making(request, wanted, false);
        let landings = making.take_off(&self.flights, false, keys.zip(texts));
        // A flight without a waiter would be dropped.
        tokio::spawn(join_all(landings.into_iter().map(|(landing, _)| landing.wait())));
    }

    fn respond(
        &self,
        wanted: &Wanted,
        outcomes: &[Outcome],
        lookup: Duration,
        waiting: Duration,
    ) -> Response {
        let mut counts = Counts::default();
        for (text, &place) in wanted.places.iter().enumerate() {
            let Outcome { served, has_led } = &outcomes[place];
            match served.tier {
                Some(_) => counts.hits += 1,
                None if *has_led && wanted.firsts[place] == text => counts.misses += 1,
                None => counts.coalesced += 1,
            }
        }
        self.metrics.hits.inc_by(counts.hits as u64);
        self.metrics.misses.inc_by(counts.misses as u64);
        self.metrics.coalesced.inc_by(counts.coalesced as u64);

        let entries: Vec<Arc<Entry>> =
            wanted.places.iter().map(|&place| Arc::clone(&outcomes[place].served.entry)).collect();
        let freshness = self.cache.freshness();
        Response {
            counts,
            tier: lowest_tier(outcomes),
            age_seconds: entries.iter().map(|entry| freshness.age_seconds(&entry.meta)).max().unwrap_or(0),
            tokens: entries.iter().map(|entry| u64::from(entry.meta.tokens)).sum(),
            truncated: entries.iter().filter(|entry| entry.meta.is_truncated).count(),
            entries,
            lookup,
            waiting,
            // A flight that others lead may have begun to queue before this request came.
            queued: outcomes
                .iter()
                .map(|outcome| outcome.served.queued)
                .max()
                .unwrap_or_default()
                .min(waiting),
        }
    }
}

fn open_places(outcomes: &[Option<Outcome>]) -> Vec<usize> {
    (0..outcomes.len()).filter(|&place| outcomes[place].is_none()).collect()
}

/// The slowest tier that served a text, or none if a model had to.
fn lowest_tier(outcomes: &[Outcome]) -> Option<TierName> {
    outcomes.iter().try_fold(TierName::Memory, |lowest, outcome| Some(lowest.max(outcome.served.tier?)))
}

/// A model that refuses a text does not know which one of its request it is.
fn of_text(error: Error, text: usize) -> Error {
    if !error.field().is_some_and(|field| field.is_in("text")) {
        return error;
    }
    Error::naming(error.kind(), element(text), "", &format!(": {}", error.message()))
}

/// The field of a request that a fault is about.
const TEXTS: &str = "texts";

fn element(text: usize) -> FieldPath {
    FieldPath::from(TEXTS).element(text)
}

fn too_long(text: usize, tokens_max: usize) -> Error {
    let fault = format!(" has more tokens than the model reads, {tokens_max}, and truncate is false");
    Error::naming(Kind::InvalidInput, element(text), "", &fault)
}
