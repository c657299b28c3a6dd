//! The flights of a request: who makes the missing vectors, from where, and what is kept of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::cache::{Cache, EntryTokens, Flight, Found, Landing, Namespace, SingleFlight, Stamp, Verdict};
use crate::domain::{Codec, Embedding, Entry, EntryMeta, Key, KeyHasher, TierName};
use crate::embed::{EmbedJob, Embedder, Priority};
use crate::error::Result;

/// What a flight lands with.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) entry: Arc<Entry>,
    /// The tier it was found in; none if the model made it.
    pub(super) tier: Option<TierName>,
    /// Whether it must be recomputed for later requests.
    pub(super) is_stale: bool,
    /// How long its text waited for the model.
    pub(super) queued: Duration,
}

impl Served {
    pub(super) fn found(found: Found) -> Served {
        let is_stale = found.verdict == Verdict::Stale;
        Served { entry: found.entry, tier: Some(found.tier), is_stale, queued: Duration::ZERO }
    }
}

/// How the missing vectors of one request are made.
pub(super) struct Making {
    pub(super) cache: Arc<Cache>,
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) namespace: Namespace,
    pub(super) reads_below: bool,
    pub(super) stores: bool,
    pub(super) ttl_seconds: u32,
    /// Taken before the making began: nothing is stored that was invalidated since.
    pub(super) stamp: Stamp,
    pub(super) priority: Priority,
}

/// A vector that this request has the duty to make.
struct Led {
    key: Key,
    text: String,
    flight: Flight<Served>,
}

impl Making {
    /// Joins or starts a flight for each text. The flights that this request leads go on in a task of their own, so
    /// that a client that leaves does not take the vectors of others with it.
    ///
    /// Returns a landing for each text and whether this request leads its flight.
    pub(super) fn take_off(
        self,
        flights: &Arc<SingleFlight<Served>>,
        is_plain: bool,
        texts: impl Iterator<Item = (Key, String)>,
    ) -> Vec<(Landing<Served>, bool)> {
        let mut led = Vec::new();
        let landings = texts
            .map(|(key, text)| {
                let (landing, duty) = flights.join(if is_plain { key } else { self.conditional(key) });
                let has_led = duty.is_some();
                led.extend(duty.map(|flight| Led { key, text, flight }));
                (landing, has_led)
            })
            .collect();
        if !led.is_empty() {
            tokio::spawn(self.lead(led));
        }
        landings
    }

    /// Requests share a flight only if they agree on what may be read and what is stored.
    fn conditional(&self, key: Key) -> Key {
        KeyHasher::new("likewise/flight/v1")
            .field(&key.0)
            .field(&[u8::from(self.reads_below), u8::from(self.stores)])
            .field(&self.ttl_seconds.to_le_bytes())
            .finish()
    }

    async fn lead(self, led: Vec<Led>) {
        let led = if self.reads_below { self.land_what_is_stored(led).await } else { led };
        let mut works = Vec::with_capacity(led.len());
        let mut makers = Vec::with_capacity(led.len());
        for Led { key, text, flight } in led {
            let (reply, answer) = oneshot::channel();
            let is_abandoned = Arc::new(AtomicBool::new(false));
            works.push(EmbedJob {
                text,
                priority: self.priority,
                reply,
                is_abandoned: Arc::clone(&is_abandoned),
                since: Instant::now(),
            });
            makers.push((key, flight, answer, is_abandoned));
        }
        if works.is_empty() {
            return;
        }
        if let Err(error) = self.embedder.submit(works) {
            for (_, flight, _, _) in makers {
                flight.land(Err(error.clone()));
            }
            return;
        }
        join_all(
            makers
                .into_iter()
                .map(|(key, flight, answer, is_abandoned)| self.finish(key, flight, answer, is_abandoned)),
        )
        .await;
    }

    /// Lands the flights whose entry is in a tier, and returns the others.
    async fn land_what_is_stored(&self, led: Vec<Led>) -> Vec<Led> {
        let mut missing = Vec::with_capacity(led.len());
        let mut unseen = Vec::with_capacity(led.len());
        for one in led {
            // An earlier flight of this key may have landed between our look in memory and our take-off.
            match self.cache.peek_within(&one.key, &self.namespace.policy).filter(is_alive) {
                Some(found) => one.flight.land(Ok(Served::found(found))),
                None => unseen.push(one),
            }
        }
        let keys: Vec<Key> = unseen.iter().map(|one| one.key).collect();
        for (one, found) in unseen.into_iter().zip(self.cache.fetch(&self.namespace, &keys).await) {
            match found.filter(is_alive) {
                Some(found) => one.flight.land(Ok(Served::found(found))),
                None => missing.push(one),
            }
        }
        missing
    }

    /// Waits for one vector, stores it, and lands its flight. If all who waited leave, the embedder may drop the
    /// text before it starts on it; once it has started, the vector is cached for the next who asks.
    async fn finish(
        &self,
        key: Key,
        mut flight: Flight<Served>,
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
        // An embedder that drops a reply has dropped the text; the flight, if it is still up, says so when it drops.
        let Ok(outcome) = outcome else { return };
        match outcome {
            Err(error) => flight.land(Err(error)),
            Ok(embedding) => {
                let current = self.cache.freshness().tokens();
                let tokens = current.admit(self.stamp, self.namespace.id, &[]);
                let may_store = self.stores && tokens.is_some();
                let entry = Arc::new(self.entry(&embedding, tokens));
                if may_store {
                    let entries = vec![(key, Arc::clone(&entry))];
                    // The callers receive the vector even if no tier could store it.
                    let _ = self.cache.put_many(&self.namespace, entries).await;
                }
                flight.land(Ok(Served { entry, tier: None, is_stale: false, queued: embedding.queued }));
            }
        }
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

/// Whether the entry may be served to those who set no conditions.
fn is_alive(found: &Found) -> bool {
    matches!(found.verdict, Verdict::Fresh | Verdict::Stale)
}
