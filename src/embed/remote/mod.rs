//! A model behind any OpenAI-compatible embeddings endpoint.
//!
//! Remote models are not deterministic: the same text asked for twice may differ in the fourth digit. What comes back
//! is checked (count, places, width, finite and not zero) and never mended: a text with a bad vector gets an error.
//! Rate limits are pacing, not failure: every request in flight waits as the endpoint asks, until its deadline.
//! Texts of different clients share a batch, so a refused batch is split until the refused text stands alone.

mod client;
mod options;
mod pace;
mod refusal;
mod reply;
mod split;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use self::client::{Client, Limits};
use self::options::Target;
pub use self::options::{Encoding, RemoteOptions};
use self::refusal::{Cause, Failure};
use self::reply::Vector;
use self::split::Parts;
use super::metrics::EmbedMetrics;
use super::priority_queue::{Batch, BatchLimits, PriorityQueue};
use super::prompts::{Family, family_of};
use super::rate::Rate;
use super::token_ids::decode_cl100k;
use super::{EmbedJob, Embedder, Matryoshka, ModelCard, Options, TokenIds};
use crate::domain::{Clock, Embedding, Fingerprint, KeyHasher, SystemClock};
use crate::error::{Error, Kind, Result};

/// Tokens that OpenAI's models read of a text, where the options say nothing else.
const TOKENS_MAX: usize = 8191;

/// A model that another server runs. Dropping it ends its tasks; waiting callers receive an error.
pub struct RemoteEmbedder {
    card: ModelCard,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the dispatcher for new work and for the end.
    changed: Notify,
    /// True from the end on; requests in flight stop at it.
    end: watch::Sender<bool>,
    client: Client,
    budget: BatchLimits,
    requests_max: usize,
    queue_texts_max: usize,
    rate: Rate,
    metrics: Arc<EmbedMetrics>,
}

struct State {
    waiting: PriorityQueue<EmbedJob>,
    is_alive: bool,
}

impl RemoteEmbedder {
    /// The model that `options.remote` describes, served under `name` or its own. Nothing is asked of the endpoint
    /// yet. Must be called within a runtime, which then carries the requests.
    ///
    /// # Errors
    /// `Config`, naming the key or the environment variable.
    pub fn connect(
        name: Option<&str>,
        options: &Options,
        metrics: Arc<EmbedMetrics>,
    ) -> Result<RemoteEmbedder> {
        let target = options.remote.target()?;
        if options.token_ids == TokenIds::Model {
            return Err(Error::new(
                Kind::Config,
                "embed.token_ids cannot be \"model\": the tokenizer of a remote model is not known here",
            ));
        }
        let family = family_of([target.model.as_str()]);
        let is_matryoshka =
            options.is_matryoshka.unwrap_or(family.is_some_and(|family| family.is_matryoshka));
        let card = ModelCard {
            name: name.unwrap_or(&target.model).to_owned(),
            fingerprint: fingerprint(&target),
            dim: target.dim,
            tokens_max: options.tokens_max.unwrap_or(TOKENS_MAX),
            prompts: options.prompts.clone().or(family.map(Family::prompts).unwrap_or_default()),
            matryoshka: if is_matryoshka { Matryoshka::Any } else { Matryoshka::No },
            created: SystemClock.now(),
        };
        let remote = &options.remote;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { waiting: PriorityQueue::new(), is_alive: true }),
            changed: Notify::new(),
            end: watch::Sender::new(false),
            client: Client::new(target, remote, Arc::clone(&metrics))?,
            budget: BatchLimits { items: remote.batch_texts_max, cost: remote.batch_bytes_max },
            requests_max: remote.requests_max,
            queue_texts_max: options.queue_texts_max,
            rate: Rate::new(remote.requests_max),
            metrics,
        });
        Handle::current().spawn(dispatch(Arc::clone(&shared)));
        Ok(RemoteEmbedder { card, shared })
    }
}

impl Embedder for RemoteEmbedder {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn submit(&self, work: Vec<EmbedJob>) -> Result<()> {
        self.shared.submit(work)
    }

    /// None: the tokenizer of a remote model is not known, and a guess is no count.
    fn count_tokens(&self, _: Vec<String>) -> BoxFuture<'_, Result<Option<Vec<usize>>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn decode_tokens(&self, ids: &[u32], bytes_max: usize) -> Result<String> {
        decode_cl100k(ids, bytes_max)
    }

    fn queued(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    fn is_alive(&self) -> bool {
        self.shared.lock().is_alive
    }
}

impl Drop for RemoteEmbedder {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// However the dispatcher ends, its waiting callers receive an error.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Cuts batches and sends them, as many at once as the options allow, until the end.
async fn dispatch(shared: Arc<Shared>) {
    let guard = EndOnDrop(Arc::clone(&shared));
    let requests = Arc::new(Semaphore::new(shared.requests_max));
    while let Ok(permit) = Arc::clone(&requests).acquire_owned().await {
        let Some(batch) = shared.next_batch().await else { break };
        tokio::spawn(run(Arc::clone(&shared), batch, permit));
    }
    drop(guard);
}

/// Sends one batch, in parts where the endpoint refuses it, and answers each of its texts. The permit is held until then.
async fn run(shared: Arc<Shared>, batch: Vec<EmbedJob>, permit: OwnedSemaphorePermit) {
    let mut limits = shared.client.limits();
    let mut parts = Parts::new(batch);
    while let Some(mut part) = parts.next() {
        let count = part.len();
        part.retain(|work| !work.is_unwanted());
        shared.metrics.dropped_texts.inc_by((count - part.len()) as u64);
        if part.is_empty() {
            continue;
        }
        let started = Instant::now();
        match shared.ask(&part, limits).await {
            Ok(vectors) => shared.deliver(part, vectors, started),
            Err(failure) => {
                let was_split = parts.is_split;
                if let Some((part, error)) = parts.split(part, failure) {
                    // A caller that waited for a text may have left by now; the others have not.
                    part.into_iter().for_each(|work| _ = work.reply.send(Err(error.clone())));
                } else if !was_split {
                    // Once: the whole may have used up its time and its attempts.
                    limits = Limits { retries_max: limits.retries_max.min(1), ..shared.client.limits() };
                }
            }
        }
    }
    drop(permit);
}

impl Shared {
    /// A poisoned lock is taken all the same: no code of ours panics while it holds it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, work: Vec<EmbedJob>) -> Result<()> {
        let mut state = self.lock();
        if !state.is_alive {
            return Err(gone());
        }
        let (waiting, max) = (state.waiting.len(), self.queue_texts_max);
        if waiting + work.len() > max {
            return Err(self.rate.queue_full(waiting, max));
        }
        for one in work {
            state.waiting.push(one.priority, one);
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Asks the endpoint for one part of a batch, until the end.
    async fn ask(&self, part: &[EmbedJob], limits: Limits) -> Result<Vec<Result<Vector>>, Failure> {
        let texts: Vec<&str> = part.iter().map(|work| work.text.as_str()).collect();
        let mut end = self.end.subscribe();
        let started = Instant::now();
        let answered = tokio::select! {
            answered = self.client.embed(&texts, limits) => answered,
            _ = end.wait_for(|is_end| *is_end) => Err(Failure { error: gone(), cause: Cause::Endpoint }),
        };
        self.metrics.inference_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.batches.inc();
        self.metrics.batch_texts.observe(texts.len() as f64);
        answered
    }

    fn deliver(&self, part: Vec<EmbedJob>, vectors: Vec<Result<Vector>>, started: Instant) {
        let took = started.elapsed();
        self.rate.observe(part.len(), took);
        let cost_us = took.as_micros() / part.len() as u128;
        for (work, vector) in part.into_iter().zip(vectors) {
            let embedding = vector.map(|vector| Embedding {
                vector: vector.numbers.into(),
                tokens: vector.tokens,
                is_truncated: false,
                cost_us: u32::try_from(cost_us).unwrap_or(u32::MAX),
                queued: started.saturating_duration_since(work.since),
            });
            if let Ok(embedding) = &embedding {
                self.metrics.embedded_texts.inc();
                self.metrics.embedded_tokens.inc_by(embedding.tokens.into());
            }
            // A caller that waited for a text may have left by now; the others have not.
            let _ = work.reply.send(embedding);
        }
    }

    /// Waits for work; none after the end.
    async fn next_batch(&self) -> Option<Vec<EmbedJob>> {
        loop {
            {
                let mut state = self.lock();
                if !state.is_alive {
                    return None;
                }
                let Batch { items: batch, dropped } =
                    state.waiting.take_batch(self.budget, |work| work.text.len(), EmbedJob::is_unwanted);
                self.metrics.dropped_texts.inc_by(dropped as u64);
                if !batch.is_empty() {
                    return Some(batch);
                }
            }
            // A notice that came since then is kept for the one who waits.
            self.changed.notified().await;
        }
    }

    fn end(&self) {
        let mut state = self.lock();
        state.is_alive = false;
        let waiting: Vec<EmbedJob> = state.waiting.drain().collect();
        drop(state);
        self.end.send_replace(true);
        self.changed.notify_one();
        waiting.into_iter().for_each(|work| _ = work.reply.send(Err(gone())));
    }
}

fn gone() -> Error {
    Error::new(Kind::Unavailable, "the model does not answer any more")
}

/// The identity of a remote model, as far as the options state it.
fn fingerprint(target: &Target) -> Fingerprint {
    let key = KeyHasher::new("likewise/remote-model/v1")
        .field(target.url.as_bytes())
        .field(target.model.as_bytes())
        .field(&(target.dim as u64).to_le_bytes())
        .finish();
    Fingerprint(key.0)
}

#[cfg(test)]
mod tests;
