//! A model behind any OpenAI-compatible embeddings endpoint.
//!
//! Remote models are not deterministic: two vectors of one text may differ in the fourth digit. Replies are checked (count,
//! indexes, dimensions, finite and not zero) and never repaired: a text with an invalid vector gets an error.
//! A rate limit is not a failure: every request in flight waits as long as the endpoint asks, until its deadline.
//! Texts of different clients share a batch, so a refused batch is split until the refused text is alone in its part.

mod client;
mod options;
mod rate_limit;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use self::client::{Client, Limits};
use self::options::RemoteModel;
pub use self::options::{Encoding, RemoteOptions};
use super::endpoint::{BatchSplit, Failure, FailureCause, RemoteVector, deliver};
use super::metrics::EmbedMetrics;
use super::option_path::option_path;
use super::priority_queue::{BatchLimits, PriorityQueue, TakenBatch};
use super::prompts::{Family, family_of};
use super::queue_room::QueueRoom;
use super::token_ids::decode_cl100k;
use super::{EmbedJob, Embedder, Matryoshka, ModelCard, Options, Priority, TokenIds};
use crate::domain::{Clock, Fingerprint, KeyHasher, SystemClock};
use crate::error::{Error, Kind, Result};
use crate::sync::lock;

/// Tokens of a text that OpenAI's models read; the default of `embed.tokens_max`.
const TOKENS_MAX: usize = 8191;

/// A model on another server. Dropping it ends its tasks; waiting callers receive an error.
pub struct RemoteEmbedder {
    card: ModelCard,
    shared: Arc<RemoteShared>,
}

struct RemoteShared {
    state: Mutex<RemoteQueue>,
    /// Wakes the dispatcher for new jobs and for the shutdown.
    changed: Notify,
    /// True from the shutdown on; it cancels requests in flight.
    end: watch::Sender<bool>,
    client: Client,
    budget: BatchLimits,
    requests_max: usize,
    queue_texts_max: usize,
    room: QueueRoom,
    metrics: Arc<EmbedMetrics>,
}

struct RemoteQueue {
    waiting: PriorityQueue<EmbedJob>,
    is_alive: bool,
}

impl RemoteEmbedder {
    /// The model that `options.remote` describes, served under `name` or its own. Sends no request yet.
    ///
    /// # Panics
    /// Outside a runtime: the dispatcher is a task of it.
    ///
    /// # Errors
    /// `Config`, naming the key or the environment variable.
    pub fn connect(
        name: Option<&str>,
        options: &Options,
        metrics: Arc<EmbedMetrics>,
    ) -> Result<RemoteEmbedder> {
        let target = options.remote.remote_model()?;
        if options.token_ids == TokenIds::Model {
            let path = option_path("token_ids");
            let fault = " must be \"cl100k\" for a remote model, whose tokenizer is unknown";
            return Err(Error::naming(Kind::Config, path, "", fault));
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
            pooling: None,
            matryoshka: if is_matryoshka { Matryoshka::Any } else { Matryoshka::No },
            created: SystemClock.now(),
        };
        let remote = &options.remote;
        let shared = Arc::new(RemoteShared {
            state: Mutex::new(RemoteQueue { waiting: PriorityQueue::new(), is_alive: true }),
            changed: Notify::new(),
            end: watch::Sender::new(false),
            client: Client::new(target, remote, Arc::clone(&metrics))?,
            budget: BatchLimits { items: remote.batch_texts_max, cost: remote.batch_bytes_max },
            requests_max: remote.requests_max,
            queue_texts_max: options.queue_texts_max,
            room: QueueRoom::new(options.queue_texts_max, remote.requests_max),
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

    fn room(&self) -> Option<&QueueRoom> {
        Some(&self.shared.room)
    }

    fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()> {
        self.shared.submit(jobs)
    }

    fn decode_tokens(&self, ids: &[u32], bytes_max: usize) -> Result<String> {
        decode_cl100k(ids, bytes_max)
    }

    fn queued(&self) -> usize {
        lock(&self.shared.state).waiting.len()
    }

    fn is_alive(&self) -> bool {
        lock(&self.shared.state).is_alive
    }
}

impl Drop for RemoteEmbedder {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// Fails the waiting callers when the dispatcher ends, also by a panic.
struct EndOnDrop(Arc<RemoteShared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The dispatcher: takes batches and sends them, up to `requests_max` at a time, until the shutdown.
async fn dispatch(shared: Arc<RemoteShared>) {
    let guard = EndOnDrop(Arc::clone(&shared));
    let requests = Arc::new(Semaphore::new(shared.requests_max));
    while let Ok(permit) = Arc::clone(&requests).acquire_owned().await {
        let Some(batch) = shared.next_batch().await else { break };
        tokio::spawn(run(Arc::clone(&shared), batch, permit));
    }
    drop(guard);
}

/// Sends one batch, split into parts if the endpoint refuses it, and replies to each job. The permit is held until then.
async fn run(shared: Arc<RemoteShared>, batch: Vec<EmbedJob>, permit: OwnedSemaphorePermit) {
    let mut limits = shared.client.limits();
    let mut parts = BatchSplit::new(batch);
    while let Some(mut part) = parts.next() {
        let count = part.len();
        part.retain(|job| !job.is_unwanted());
        shared.metrics.dropped_texts.inc_by((count - part.len()) as u64);
        if part.is_empty() {
            continue;
        }
        let started = Instant::now();
        match shared.send_part(&part, limits).await {
            Ok(vectors) => {
                // Texts of both priorities share calls.
                for priority in [Priority::Interactive, Priority::Bulk] {
                    shared.room.observe(priority, part.len(), started.elapsed());
                }
                deliver(part, vectors, started, &shared.metrics);
            }
            Err(failure) => {
                let was_split = parts.is_split;
                if let Some((part, error)) = parts.split(part, failure) {
                    // The receiver is closed if its caller has left.
                    part.into_iter().for_each(|job| _ = job.reply.send(Err(error.clone())));
                } else if !was_split {
                    // At the first split only: the whole batch may have used up its deadline and its retries.
                    limits = Limits { retries_max: limits.retries_max.min(1), ..shared.client.limits() };
                }
            }
        }
    }
    drop(permit);
}

impl RemoteShared {
    fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.is_alive {
            return Err(model_has_died());
        }
        let (waiting, max) = (state.waiting.len(), self.queue_texts_max);
        if waiting + jobs.len() > max {
            return Err(self.room.queue_full(waiting, max));
        }
        for job in jobs {
            state.waiting.push(job.priority, job);
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Sends one part of a batch; the shutdown cancels it.
    async fn send_part(
        &self,
        part: &[EmbedJob],
        limits: Limits,
    ) -> Result<Vec<Result<RemoteVector>>, Failure> {
        let texts: Vec<&str> = part.iter().map(|job| job.text.as_str()).collect();
        let mut end = self.end.subscribe();
        let started = Instant::now();
        let answered = tokio::select! {
            answered = self.client.embed(&texts, limits) => answered,
            _ = end.wait_for(|is_end| *is_end) => Err(Failure { error: model_has_died(), cause: FailureCause::Endpoint }),
        };
        self.metrics.inference_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.batches.inc();
        self.metrics.batch_texts.observe(texts.len() as f64);
        answered
    }

    /// Waits for the next batch. `None` after the shutdown.
    async fn next_batch(&self) -> Option<Vec<EmbedJob>> {
        loop {
            {
                let mut state = lock(&self.state);
                if !state.is_alive {
                    return None;
                }
                let TakenBatch { items: batch, dropped } =
                    state.waiting.take_batch(self.budget, |job| job.text.len(), EmbedJob::is_unwanted);
                self.metrics.dropped_texts.inc_by(dropped as u64);
                if !batch.is_empty() {
                    return Some(batch);
                }
            }
            // `Notify` stores a permit, so a notification between the lock and this line is not lost.
            self.changed.notified().await;
        }
    }

    fn end(&self) {
        let mut state = lock(&self.state);
        state.is_alive = false;
        let waiting: Vec<EmbedJob> = state.waiting.drain().collect();
        drop(state);
        self.end.send_replace(true);
        self.changed.notify_one();
        waiting.into_iter().for_each(|job| _ = job.reply.send(Err(model_has_died())));
    }
}

fn model_has_died() -> Error {
    Error::new(Kind::Unavailable, "the model has stopped")
}

/// The fingerprint of a remote model: its address, name and dimensions. Its weights are unknown.
fn fingerprint(target: &RemoteModel) -> Fingerprint {
    let key = KeyHasher::new("likewise/remote-model/v1")
        .field(target.url.as_bytes())
        .field(target.model.as_bytes())
        .field(&(target.dim as u64).to_le_bytes())
        .finish();
    Fingerprint(key.0)
}

#[cfg(test)]
mod tests;
