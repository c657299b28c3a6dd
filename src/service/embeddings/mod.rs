//! Embeddings of texts: each text is embedded once.
//!
//! The flow of a request: a key for each distinct text → memory → for each missing key one flight, which looks in the tiers below and
//! then submits the text to the embedder. Vectors are returned in the order of the texts.

mod distinct_texts;
mod flights;
mod metrics;
mod node_flights;
mod request;
mod upstream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tracing::instrument;

pub use metrics::{TextMetrics, UnstoredReason};
pub use request::{LookupCounts, Options, Request, Response};
pub use upstream::{InputForm, UpstreamEmbeddings, UpstreamRequest};

use self::distinct_texts::DistinctTexts;
use self::flights::{FlightLeader, ServedEntry};
use super::Directives;
use super::spans::record_counts;
use crate::cache::{Cache, CounterId, Found, LookupCounters, Namespace, Namespaces, SingleFlight};
use crate::domain::{Entry, Key, LookupOutcome, TierName};
use crate::embed::{Embedder, Priority, TextToken};
use crate::error::{Error, FieldPath, Kind, Result};

/// The use case. Shared by `Arc`.
pub struct Embeddings {
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    flights: Arc<SingleFlight<ServedEntry>>,
    options: Options,
    metrics: Arc<TextMetrics>,
    models: LookupCounters,
    wait_max: Duration,
}

/// How one distinct text of a request was served.
struct ServedText {
    served: ServedEntry,
    /// Whether this request led the flight that returned the entry.
    has_led: bool,
}

impl Embeddings {
    /// A use case over `cache`, whose requests wait for a model as long as `wait_max`.
    pub fn new(
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        options: Options,
        metrics: Arc<TextMetrics>,
        wait_max: Duration,
    ) -> Embeddings {
        Embeddings {
            cache,
            namespaces,
            flights: SingleFlight::new(),
            options,
            metrics,
            models: LookupCounters::default(),
            wait_max,
        }
    }

    /// Requested texts by model.
    pub fn lookups_by_model(&self) -> &LookupCounters {
        &self.models
    }

    /// Decodes token ids to a text, by the vocabulary of `model`.
    ///
    /// # Errors
    /// `InvalidInput` if an id is outside the vocabulary, `TooLarge` if the text is too long.
    pub fn decode_tokens(&self, model: &dyn Embedder, ids: &[u32]) -> Result<String> {
        model.decode_tokens(ids, self.options.text_bytes_max)
    }

    /// The tokens of texts, however many a text has, by the vocabulary of `model`; with the special ones if `adds_specials`. Blocks for as
    /// long as that takes.
    ///
    /// # Errors
    /// `InvalidInput` if the vocabulary is not known here; `TooLarge` past the limits of bytes of a text and of tokens of a request.
    pub fn tokenize(
        &self,
        model: &dyn Embedder,
        texts: &[String],
        adds_specials: bool,
    ) -> Result<Vec<Vec<TextToken>>> {
        self.check_bytes(texts)?;
        let mut count = 0;
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            let tokens = model.tokenize(text, adds_specials)?;
            count += tokens.len();
            self.check_count(count)?;
            all.push(tokens);
        }
        Ok(all)
    }

    /// Embeds texts: from the cache, by joining flights, or by the model.
    ///
    /// # Errors
    /// `InvalidInput` for a text of too many tokens without `truncate` and for a TTL past its limit; `TooLarge` past the limits of
    /// bytes and tokens; `Overloaded` if what waits for the model takes longer than a request may; `NotCached` with `only_if_cached`; the errors of the embedder. A
    /// refused request stores nothing.
    ///
    /// Cancel safety: a job whose callers have all left is dropped before it starts; the vector of a started one is stored.
    #[instrument(level = "debug", skip_all, fields(model = %request.model.card().name, hits, misses, coalesced), err(level = "debug"))]
    pub async fn embed(&self, request: &Request) -> Result<Response> {
        let started = Instant::now();
        self.check_bytes(&request.texts)?;
        let prompt = request.model.card().prompts.for_input(request.input_type);
        let distinct = self.distinct(request, prompt)?;
        let mut outcomes: Vec<Option<ServedText>> = distinct
            .keys
            .iter()
            .map(|key| self.look_up(&request.directives, &distinct.namespace, key))
            .collect();
        let lookup = started.elapsed();

        if outcomes.iter().any(Option::is_none) {
            self.fill(request, prompt, &distinct, &mut outcomes).await?;
        }
        let outcomes: Vec<ServedText> = outcomes
            .into_iter()
            .map(|outcome| outcome.expect("every text was found or filled: this is a bug"))
            .collect();
        self.check_truncation(request, &distinct, &outcomes)?;
        if request.directives == Directives::default() {
            self.renew(&distinct, &outcomes);
            self.refresh(request, prompt, &distinct, &outcomes);
        }
        Ok(self.respond(request, &distinct, &outcomes, lookup, started.elapsed() - lookup))
    }

    /// Which texts of a request are in the cache, in their order. Embeds and counts nothing.
    ///
    /// # Errors
    /// As [`Embeddings::embed`], of the directives.
    pub async fn cached(&self, request: &Request) -> Result<Vec<bool>> {
        let prompt = request.model.card().prompts.for_input(request.input_type);
        let distinct = self.distinct(request, prompt)?;
        let mut outcomes: Vec<Option<ServedText>> = distinct
            .keys
            .iter()
            .map(|key| self.look_up(&request.directives, &distinct.namespace, key))
            .collect();
        self.look_below(&request.directives, &distinct, &mut outcomes).await;
        Ok(distinct.key_of_text.iter().map(|&key| outcomes[key].is_some()).collect())
    }

    fn check_bytes(&self, texts: &[String]) -> Result<()> {
        let max = self.options.text_bytes_max;
        match texts.iter().position(|text| text.len() > max) {
            None => Ok(()),
            Some(at) => {
                let fault = format!(" must have at most {max} bytes, got {}", texts[at].len());
                Err(Error::naming(Kind::TooLarge, element(at), "", &fault))
            }
        }
    }

    /// The distinct texts of a request with their keys.
    fn distinct(&self, request: &Request, prompt: &str) -> Result<DistinctTexts> {
        let directives = &request.directives;
        let namespace = directives.namespace.as_deref();
        let namespace = self.namespaces.of_embeddings(&request.principal.tenant, namespace)?;
        let ttl_seconds = directives.ttl_seconds(&namespace.policy)?;
        Ok(DistinctTexts::new(
            request,
            prompt,
            namespace,
            ttl_seconds,
            self.cache.freshness().tokens().stamp(),
        ))
    }

    fn look_up(&self, directives: &Directives, namespace: &Namespace, key: &Key) -> Option<ServedText> {
        if directives.no_cache {
            return None;
        }
        let found = self.cache.peek_within(key, &namespace.policy)?;
        self.accept(directives, found)
    }

    /// A found entry, if it satisfies the directives of the request.
    fn accept(&self, directives: &Directives, found: Found) -> Option<ServedText> {
        let is_accepted = directives.accept(self.cache.freshness(), &found);
        is_accepted.then(|| ServedText { served: ServedEntry::found(found), has_led: false })
    }

    /// Looks for the texts that are not in memory in the tiers below.
    async fn look_below(
        &self,
        directives: &Directives,
        distinct: &DistinctTexts,
        outcomes: &mut [Option<ServedText>],
    ) {
        let missing = missing_of(outcomes);
        let keys: Vec<Key> = missing.iter().map(|&place| distinct.keys[place]).collect();
        for (place, found) in missing.into_iter().zip(self.cache.fetch(&distinct.namespace, &keys).await) {
            outcomes[place] = found.and_then(|found| self.accept(directives, found));
        }
    }

    /// Serves the texts that are not in memory.
    async fn fill(
        &self,
        request: &Request,
        prompt: &str,
        distinct: &DistinctTexts,
        outcomes: &mut [Option<ServedText>],
    ) -> Result<()> {
        let directives = &request.directives;
        // A flight accepts entries of any age. A request with conditions looks in the tiers itself.
        if directives.only_if_cached || (directives.is_conditional() && !directives.no_cache) {
            self.look_below(directives, distinct, outcomes).await;
        }
        let missing = missing_of(outcomes);
        if missing.is_empty() {
            return Ok(());
        }
        if directives.only_if_cached {
            return Err(Error::new(
                Kind::NotCached,
                format!("{} of {} texts are not in the cache", missing.len(), outcomes.len()),
            ));
        }
        let texts: Vec<String> = missing
            .iter()
            .map(|&place| format!("{prompt}{}", request.texts[distinct.first_texts[place]]))
            .collect();
        self.check_tokens(request, &missing, distinct, &texts).await?;

        let reads_below = !directives.no_cache && !directives.is_conditional();
        let leader = self.flight_leader(request, distinct, reads_below);
        let is_plain = *directives == Directives::default();
        let keys = missing.iter().map(|&place| distinct.keys[place]);
        let landings = leader.join_or_lead(&self.flights, is_plain, keys.zip(texts));
        for (place, (landing, has_led)) in missing.into_iter().zip(landings) {
            let served = landing.wait().await.map_err(|error| in_text(error, distinct.first_texts[place]))?;
            outcomes[place] = Some(ServedText { served, has_led });
        }
        Ok(())
    }

    fn flight_leader(&self, request: &Request, distinct: &DistinctTexts, reads_below: bool) -> FlightLeader {
        FlightLeader {
            cache: Arc::clone(&self.cache),
            embedder: Arc::clone(&request.model),
            namespace: distinct.namespace.clone(),
            reads_below,
            stores: !request.directives.no_store,
            ttl_seconds: distinct.ttl_seconds,
            stamp: distinct.stamp,
            priority: self.priority(request),
            wait_max: self.wait_max,
            metrics: Arc::clone(&self.metrics),
        }
    }

    fn priority(&self, request: &Request) -> Priority {
        if request.texts.len() <= self.options.interactive_texts_max && !request.is_background {
            Priority::Interactive
        } else {
            Priority::Bulk
        }
    }

    /// Checks the tokens before any text is queued: a refused request must store nothing.
    async fn check_tokens(
        &self,
        request: &Request,
        missing: &[usize],
        distinct: &DistinctTexts,
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
            return Err(too_long(distinct.first_texts[missing[at]], tokens_max));
        }
        let total: usize = counts.iter().map(|&count| count.min(tokens_max)).sum();
        self.check_count(total)
    }

    /// Refuses more tokens than a request may have.
    fn check_count(&self, tokens: usize) -> Result<()> {
        let max = self.options.request_tokens_max;
        if tokens <= max {
            return Ok(());
        }
        let fault = format!(" must have at most {max} tokens, got {tokens}");
        Err(Error::naming(Kind::TooLarge, TEXTS, "", &fault))
    }

    /// Refuses cached vectors of truncated texts if the request forbids truncation.
    fn check_truncation(
        &self,
        request: &Request,
        distinct: &DistinctTexts,
        outcomes: &[ServedText],
    ) -> Result<()> {
        if request.truncate {
            return Ok(());
        }
        match outcomes.iter().position(|outcome| outcome.served.entry.meta.is_truncated) {
            Some(place) => Err(too_long(distinct.first_texts[place], request.model.card().tokens_max)),
            None => Ok(()),
        }
    }

    /// Extends the lifetime of entries that were hit, if that is due. The tiers are written in the background.
    fn renew(&self, distinct: &DistinctTexts, outcomes: &[ServedText]) {
        let freshness = self.cache.freshness();
        let due: Vec<(Key, Arc<Entry>)> = outcomes
            .iter()
            .zip(&distinct.keys)
            .filter(|(outcome, _)| outcome.served.tier.is_some() && !outcome.served.is_stale)
            .filter_map(|(outcome, key)| {
                let entry = &outcome.served.entry;
                let expires = freshness.renewal(&entry.meta, distinct.ttl_seconds)?;
                Some((*key, Arc::new(entry.ending(expires))))
            })
            .collect();
        if !due.is_empty() {
            let (cache, namespace) = (Arc::clone(&self.cache), distinct.namespace.clone());
            tokio::spawn(async move { cache.put_many(&namespace, due).await });
        }
    }

    /// Recomputes stale vectors in the background. Concurrent requests for the same texts join the same flights.
    fn refresh(&self, request: &Request, prompt: &str, distinct: &DistinctTexts, outcomes: &[ServedText]) {
        let stale: Vec<usize> =
            (0..outcomes.len()).filter(|&place| outcomes[place].served.is_stale).collect();
        if stale.is_empty() {
            return;
        }
        let keys = stale.iter().map(|&place| distinct.keys[place]);
        let texts =
            stale.iter().map(|&place| format!("{prompt}{}", request.texts[distinct.first_texts[place]]));
        let leader = self.flight_leader(request, distinct, false);
        let landings = leader.join_or_lead(&self.flights, false, keys.zip(texts));
        // A flight without a follower would be abandoned.
        tokio::spawn(join_all(landings.into_iter().map(|(landing, _)| landing.wait())));
    }

    fn respond(
        &self,
        request: &Request,
        distinct: &DistinctTexts,
        outcomes: &[ServedText],
        lookup: Duration,
        waiting: Duration,
    ) -> Response {
        let mut counts = LookupCounts::default();
        for (text, &place) in distinct.key_of_text.iter().enumerate() {
            let ServedText { served, has_led } = &outcomes[place];
            match served.tier {
                Some(_) => counts.hits += 1,
                None if *has_led && distinct.first_texts[place] == text => counts.misses += 1,
                None => counts.coalesced += 1,
            }
        }
        record_counts(counts.hits, counts.misses, counts.coalesced);
        self.metrics.hits.inc_by(counts.hits as u64);
        self.metrics.misses.inc_by(counts.misses as u64);
        self.metrics.coalesced.inc_by(counts.coalesced as u64);
        let model = &request.model.card().name;
        let by_model = self.models.of(CounterId::of_model(&request.principal.tenant, model), model);
        for by_name in [self.namespaces.lookups_in(&distinct.namespace), by_model] {
            by_name.add(LookupOutcome::Hit, counts.hits as u64);
            by_name.add(LookupOutcome::Miss, counts.misses as u64);
            by_name.add(LookupOutcome::Coalesced, counts.coalesced as u64);
        }

        let entries: Vec<Arc<Entry>> =
            distinct.key_of_text.iter().map(|&place| Arc::clone(&outcomes[place].served.entry)).collect();
        let freshness = self.cache.freshness();
        Response {
            counts,
            tier: lowest_tier(outcomes),
            age_seconds: entries.iter().map(|entry| freshness.age_seconds(&entry.meta)).max().unwrap_or(0),
            tokens: entries.iter().map(|entry| u64::from(entry.meta.tokens)).sum(),
            truncated: entries.iter().filter(|entry| entry.meta.is_truncated).count(),
            not_stored: outcomes.iter().find_map(|outcome| outcome.served.not_stored),
            entries,
            lookup,
            waiting,
            // A flight that another request leads may have been queued before this request began.
            queued: outcomes
                .iter()
                .map(|outcome| outcome.served.queued)
                .max()
                .unwrap_or_default()
                .min(waiting),
        }
    }
}

fn missing_of(outcomes: &[Option<ServedText>]) -> Vec<usize> {
    (0..outcomes.len()).filter(|&place| outcomes[place].is_none()).collect()
}

/// The slowest tier that served a text. `None` if the model embedded one.
fn lowest_tier(outcomes: &[ServedText]) -> Option<TierName> {
    outcomes.iter().try_fold(TierName::Memory, |lowest, outcome| Some(lowest.max(outcome.served.tier?)))
}

/// Names the text in an error of a model, which does not know its position in the request.
fn in_text(error: Error, text: usize) -> Error {
    if !error.field().is_some_and(|field| field.is_in("text")) {
        return error;
    }
    Error::naming(error.kind(), element(text), "", &format!(": {}", error.message()))
}

/// The field of a request that errors name.
const TEXTS: &str = "texts";

fn element(text: usize) -> FieldPath {
    FieldPath::from(TEXTS).element(text)
}

fn too_long(text: usize, tokens_max: usize) -> Error {
    let fault = format!(" must have at most {tokens_max} tokens if truncate is false");
    Error::naming(Kind::InvalidInput, element(text), "", &fault)
}
