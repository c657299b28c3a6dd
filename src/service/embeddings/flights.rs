//! The flights of a request: a leader looks in the tiers, submits the text to the embedder, and stores the vector.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::metrics::{TextMetrics, UnstoredReason};
use crate::cache::{Cache, EntryTokens, Flight, Found, Landing, Namespace, SingleFlight, Stamp, Verdict};
use crate::domain::{Codec, Embedding, Entry, EntryMeta, Key, KeyHasher, TierName};
use crate::embed::{EmbedJob, Embedder, Priority, QueuePlace};
use crate::error::Result;

/// The result of a flight.
#[derive(Debug, Clone)]
pub(super) struct ServedEntry {
    pub(super) entry: Arc<Entry>,
    /// The tier that held it. `None` if the model embedded the text.
    pub(super) tier: Option<TierName>,
    /// Whether it is due for a refresh.
    pub(super) is_stale: bool,
    /// How long its text was queued.
    pub(super) queued: Duration,
    /// Why it was not stored. `None` if it is.
    pub(super) not_stored: Option<UnstoredReason>,
}

impl ServedEntry {
    pub(super) fn found(found: Found) -> ServedEntry {
        let is_stale = found.verdict == Verdict::Stale;
        ServedEntry {
            entry: found.entry,
            tier: Some(found.tier),
            is_stale,
            queued: Duration::ZERO,
            not_stored: None,
        }
    }
}

/// Texts that wait for room together: a large request begins with the room that there is.
const TEXTS_AT_ONCE: usize = 256;

/// Leads the flights of one request.
pub(super) struct FlightLeader {
    pub(super) cache: Arc<Cache>,
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) namespace: Namespace,
    pub(super) reads_below: bool,
    pub(super) stores: bool,
    pub(super) ttl_seconds: u32,
    /// Taken before the flights began: a vector is not stored if its namespace was invalidated since.
    pub(super) stamp: Stamp,
    pub(super) priority: Priority,
    /// How long the request may wait for its vectors.
    pub(super) wait_max: Duration,
    pub(super) metrics: Arc<TextMetrics>,
}

/// A flight that this request leads.
pub(super) struct LedFlight {
    pub(super) key: Key,
    text: String,
    pub(super) flight: Flight<ServedEntry>,
}

impl LedFlight {
    /// The flight, unless its waiters have left.
    pub(super) fn with_waiters(mut self) -> Option<LedFlight> {
        self.flight.abandoned().now_or_never().is_none().then_some(self)
    }
}

fn chunks_of(mut led: Vec<LedFlight>, texts_max: usize) -> Vec<Vec<LedFlight>> {
    let mut chunks = Vec::with_capacity(led.len().div_ceil(texts_max));
    while led.len() > texts_max {
        let rest = led.split_off(texts_max);
        chunks.push(std::mem::replace(&mut led, rest));
    }
    chunks.push(led);
    chunks
}

impl FlightLeader {
    /// Joins or leads a flight for each text. A separate task runs the flights that this request leads, so a client that
    /// disconnects does not cancel those of its followers.
    ///
    /// Returns the landing of each text, and whether this request leads its flight.
    pub(super) fn join_or_lead(
        self,
        flights: &Arc<SingleFlight<ServedEntry>>,
        is_plain: bool,
        texts: impl Iterator<Item = (Key, String)>,
    ) -> Vec<(Landing<ServedEntry>, bool)> {
        let mut led = Vec::new();
        let landings = texts
            .map(|(key, text)| {
                let (landing, duty) = flights.join(if is_plain { key } else { self.flight_key(key) });
                let has_led = duty.is_some();
                led.extend(duty.map(|flight| LedFlight { key, text, flight }));
                (landing, has_led)
            })
            .collect();
        if !led.is_empty() {
            tokio::spawn(self.lead(led).in_current_span());
        }
        landings
    }

    /// The key of a flight with conditions: requests share it only if they agree on reading, storing and the TTL.
    fn flight_key(&self, key: Key) -> Key {
        KeyHasher::new("likewise/flight/v1")
            .field(&key.0)
            .field(&[u8::from(self.reads_below), u8::from(self.stores)])
            .field(&self.ttl_seconds.to_le_bytes())
            .finish()
    }

    async fn lead(self, led: Vec<LedFlight>) {
        if !self.reads_below {
            return self.embed(led).await;
        }
        let led = self.land_stored(led).await;
        match self.cache.embedding_claims().filter(|_| self.stores) {
            Some(claims) => self.embed_among_nodes(led, claims).await,
            None => self.embed(led).await,
        }
    }

    /// Embeds the texts of flights, and lands them. Texts wait for room in the queue of the model.
    pub(super) async fn embed(&self, led: Vec<LedFlight>) {
        let Some(room) = self.embedder.room() else {
            return self.submit(led, Vec::new(), Instant::now()).await;
        };
        if let Err(error) = room.check(self.priority, self.wait_max) {
            led.into_iter().for_each(|one| one.flight.land(Err(error.clone())));
            return;
        }
        let since = Instant::now();
        let chunk_max = TEXTS_AT_ONCE.min(room.texts_max(self.priority));
        let chunks = chunks_of(led, chunk_max).into_iter().map(async |chunk| {
            let places = room.take(chunk.len(), self.priority).await;
            // Some clients may have left meanwhile.
            let wanted = chunk.into_iter().filter_map(LedFlight::with_waiters).collect();
            self.submit(wanted, places, since).await;
        });
        join_all(chunks).await;
    }

    /// Submits the texts of flights, which have waited `since` then, and lands them.
    async fn submit(&self, led: Vec<LedFlight>, places: Vec<QueuePlace>, since: Instant) {
        let mut jobs = Vec::with_capacity(led.len());
        let mut waiting = Vec::with_capacity(led.len());
        let mut places = places.into_iter();
        for LedFlight { key, text, flight } in led {
            let (reply, answer) = oneshot::channel();
            let is_abandoned = Arc::new(AtomicBool::new(false));
            jobs.push(EmbedJob {
                text,
                priority: self.priority,
                reply,
                is_abandoned: Arc::clone(&is_abandoned),
                since,
                place: places.next(),
            });
            waiting.push((key, flight, answer, is_abandoned));
        }
        drop(places);
        if jobs.is_empty() {
            return;
        }
        if let Err(error) = self.embedder.submit(jobs) {
            for (_, flight, _, _) in waiting {
                flight.land(Err(error.clone()));
            }
            return;
        }
        join_all(waiting.into_iter().map(|(key, flight, answer, is_abandoned)| {
            self.store_and_land(key, flight, answer, is_abandoned)
        }))
        .await;
    }

    /// Lands the flights whose entry is in a tier, and returns the others.
    pub(super) async fn land_stored(&self, led: Vec<LedFlight>) -> Vec<LedFlight> {
        let mut missing = Vec::with_capacity(led.len());
        let mut unseen = Vec::with_capacity(led.len());
        for one in led {
            // An earlier flight of this key may have landed since the lookup in memory.
            match self.cache.peek_within(&one.key, &self.namespace.policy).filter(is_alive) {
                Some(found) => one.flight.land(Ok(ServedEntry::found(found))),
                None => unseen.push(one),
            }
        }
        let keys: Vec<Key> = unseen.iter().map(|one| one.key).collect();
        for (one, found) in unseen.into_iter().zip(self.cache.fetch(&self.namespace, &keys).await) {
            match found.filter(is_alive) {
                Some(found) => one.flight.land(Ok(ServedEntry::found(found))),
                None => missing.push(one),
            }
        }
        missing
    }

    /// Waits for one vector, stores it, and lands its flight. If all followers leave, the embedder drops a text that has not started;
    /// the vector of a started one is stored for later requests.
    async fn store_and_land(
        &self,
        key: Key,
        mut flight: Flight<ServedEntry>,
        mut answer: oneshot::Receiver<Result<Embedding>>,
        is_abandoned: Arc<AtomicBool>,
    ) {
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            () = flight.abandoned() => {
                is_abandoned.store(true, Ordering::Relaxed);
                (&mut answer).await
            }
        };
        // The embedder has dropped the text. Dropping the flight notifies its followers.
        let Ok(outcome) = outcome else { return };
        match outcome {
            Err(error) => flight.land(Err(error)),
            Ok(embedding) => {
                let current = self.cache.freshness().tokens();
                let tokens = current.admit(self.stamp, self.namespace.id, &[]);
                let is_current = tokens.is_some();
                let entry = Arc::new(self.entry(&embedding, tokens));
                // The callers receive the vector even if it is not stored.
                let not_stored = self.store(key, &entry, is_current).await.err();
                not_stored.into_iter().for_each(|reason| _ = self.metrics.not_stored.with(reason).inc());
                let queued = embedding.queued;
                flight.land(Ok(ServedEntry { entry, tier: None, is_stale: false, queued, not_stored }));
            }
        }
    }

    /// Stores a vector. `is_current` says whether its namespace was not invalidated since it was requested.
    ///
    /// # Errors
    /// Why it is not stored.
    async fn store(&self, key: Key, entry: &Arc<Entry>, is_current: bool) -> Result<(), UnstoredReason> {
        if !self.stores {
            return Err(UnstoredReason::NoStore);
        }
        if !is_current {
            return Err(UnstoredReason::Invalidated);
        }
        let put = self.cache.put_many(&self.namespace, vec![(key, Arc::clone(entry))]);
        put.await.map(|_| ()).map_err(|_| UnstoredReason::Disk)
    }

    fn entry(&self, embedding: &Embedding, tokens: Option<EntryTokens>) -> Entry {
        let lifetime = self.cache.freshness().lifetime(&self.namespace.policy, self.ttl_seconds);
        let value: Vec<u8> = embedding.vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        let meta = EntryMeta {
            soft_expires: lifetime.soft_expires,
            stale_until: lifetime.stale_until,
            cost_us: embedding.cost_us,
            tokens: embedding.tokens,
            is_truncated: embedding.is_truncated,
            namespace: self.namespace.id,
            epoch: tokens.map_or(0, |tokens| tokens.epoch),
            ..EntryMeta::ending(Codec::F32, lifetime.created, lifetime.expires)
        };
        Entry { meta, value: value.into() }
    }
}

/// Whether the entry may be served to requests without conditions.
fn is_alive(found: &Found) -> bool {
    matches!(found.verdict, Verdict::Fresh | Verdict::Stale)
}
