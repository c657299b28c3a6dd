//! The bounded queue of a local model: batches limited by tokens, interactive jobs first.
//!
//! Three threads. One tokenizes waiting texts while the others run forward passes, so the model never waits for the
//! tokenizer. One of these runs the passes of interactive texts, the other those of bulk texts, on threads of a lower priority. So an
//! interactive text does not wait for the end of a bulk pass, of its own model or of another one. A pass takes whole texts up to a budget
//! of tokens. Nothing is padded, so texts of different lengths share a pass at no cost.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::bulk_threads::BulkThreads;
use super::metrics::EmbedMetrics;
use super::priority_queue::{BatchLimits, PriorityQueue, TakenBatch};
use super::queue_room::QueueRoom;
use super::tokenizer::{TokenizedText, Tokenizer};
use super::{EmbedJob, Priority};
use crate::domain::{Embedding, is_usable};
use crate::error::{Error, Kind, Result};
use crate::sync::{ignore_poison, lock};

/// A forward pass: that of the encoder, or of a fake in tests.
pub(super) trait ForwardPass: Send + Sync + 'static {
    /// The vector of each text, in order. An interactive and a bulk pass may run at the same time.
    fn embed(&self, texts: &[&TokenizedText]) -> Result<Vec<Vec<f32>>>;
}

/// Texts that are tokenized at a time; the model can take them as soon as all of them are done.
const TOKENIZED_AT_ONCE: usize = 32;
/// Bytes after which no further text is added to those that are tokenized at a time.
const TOKENIZED_BYTES_AT_ONCE: usize = 256 * 1024;

/// A job whose text is tokenized, waiting for a pass.
struct TokenizedJob {
    job: EmbedJob,
    tokens: TokenizedText,
}

/// Texts whose tokens are counted, without a pass.
struct CountJob {
    texts: Vec<String>,
    /// The counts of the first texts.
    counts: Vec<usize>,
    reply: oneshot::Sender<Result<Vec<usize>>>,
}

impl CountJob {
    /// Counts the next texts, and no more, so that jobs need not wait for all of them. `None` once all are counted.
    fn advance(mut self, tokenizer: &Tokenizer) -> Option<CountJob> {
        if self.reply.is_closed() {
            return None;
        }
        let mut bytes = 0;
        for text in self.texts[self.counts.len()..].iter().take(TOKENIZED_AT_ONCE) {
            if bytes >= TOKENIZED_BYTES_AT_ONCE {
                break;
            }
            bytes += text.len();
            match tokenizer.count(text) {
                Ok(count) => self.counts.push(count),
                Err(error) => {
                    // The caller may have left.
                    let _ = self.reply.send(Err(error));
                    return None;
                }
            }
        }
        if self.counts.len() < self.texts.len() {
            return Some(self);
        }
        let _ = self.reply.send(Ok(self.counts));
        None
    }
}

struct BatcherState {
    waiting: PriorityQueue<EmbedJob>,
    counting: VecDeque<CountJob>,
    ready: PriorityQueue<TokenizedJob>,
    /// Texts submitted and not yet in a pass, those being tokenized included.
    queued: usize,
    is_closing: bool,
    /// A thread has panicked; all jobs fail.
    is_dead: bool,
}

struct BatcherShared {
    state: Mutex<BatcherState>,
    /// Wakes the tokenizing thread: a job or a count waits, or the batcher closes.
    waiting: Condvar,
    /// Wakes the threads of passes: a tokenized job waits, or the batcher closes.
    ready: Condvar,
    queue_texts_max: usize,
    batch_tokens_max: usize,
    room: Arc<QueueRoom>,
    metrics: Arc<EmbedMetrics>,
}

/// The queue with its threads. Dropping it drops jobs that have not started and joins the threads.
pub(super) struct Batcher {
    shared: Arc<BatcherShared>,
    threads: Vec<JoinHandle<()>>,
}

impl Batcher {
    /// Starts the threads. `room` is that of the queue.
    ///
    /// # Errors
    /// `Io` if the operating system has no threads left.
    pub(super) fn start(
        tokenizer: Tokenizer,
        model: impl ForwardPass,
        options: &super::Options,
        metrics: Arc<EmbedMetrics>,
        room: Arc<QueueRoom>,
    ) -> Result<Batcher> {
        let shared = Arc::new(BatcherShared {
            state: Mutex::new(BatcherState {
                waiting: PriorityQueue::new(),
                counting: VecDeque::new(),
                ready: PriorityQueue::new(),
                queued: 0,
                is_closing: false,
                is_dead: false,
            }),
            waiting: Condvar::new(),
            ready: Condvar::new(),
            queue_texts_max: options.queue_texts_max,
            batch_tokens_max: options.batch_tokens_max,
            room,
            metrics,
        });
        let mut batcher = Batcher { shared, threads: Vec::new() };
        batcher.spawn("tokenizer", move |shared| tokenize(shared, &tokenizer))?;
        let (model, bulk_threads) = (Arc::new(model), BulkThreads::start()?);
        let bulk_model = Arc::clone(&model);
        batcher.spawn("model", move |shared| {
            run_passes(shared, Priority::Interactive, |texts| model.embed(texts));
        })?;
        batcher.spawn("bulk-model", move |shared| {
            run_passes(shared, Priority::Bulk, |texts| bulk_threads.run(|| bulk_model.embed(texts)));
        })?;
        Ok(batcher)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce(&BatcherShared) + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let guarded = move || {
            // The panic hook has printed the panic; the waiting callers still need their error.
            if catch_unwind(AssertUnwindSafe(|| body(&shared))).is_err() {
                shared.die();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(guarded);
        self.threads.push(thread.map_err(|error| Error::io("cannot start a thread of the batcher", error))?);
        Ok(())
    }

    /// Queues all of `job` or none.
    ///
    /// # Errors
    /// `Overloaded` if the queue would grow past its limit, `Unavailable` if a thread has died.
    pub(super) fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()> {
        let mut state = lock(&self.shared.state);
        self.shared.admit(&state, jobs.len())?;
        state.queued += jobs.len();
        for job in jobs {
            state.waiting.push(job.priority, job);
        }
        drop(state);
        self.shared.waiting.notify_one();
        Ok(())
    }

    /// Queues texts to be counted.
    ///
    /// # Errors
    /// As for [`Batcher::submit`].
    pub(super) fn count(&self, texts: Vec<String>) -> Result<oneshot::Receiver<Result<Vec<usize>>>> {
        let (reply, counts) = oneshot::channel();
        let mut state = lock(&self.shared.state);
        let counting: usize = state.counting.iter().map(|counting| counting.texts.len()).sum();
        self.shared.admit(&state, counting + texts.len())?;
        state.counting.push_back(CountJob { texts, counts: Vec::new(), reply });
        drop(state);
        self.shared.waiting.notify_one();
        Ok(counts)
    }

    /// The room of the queue.
    pub(super) fn room(&self) -> &QueueRoom {
        &self.shared.room
    }

    /// Texts that wait for a pass.
    pub(super) fn queued(&self) -> usize {
        lock(&self.shared.state).queued
    }

    /// Whether all threads still run.
    pub(super) fn is_alive(&self) -> bool {
        !lock(&self.shared.state).is_dead
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closing = true;
        self.shared.waiting.notify_all();
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was caught inside the thread.
            let _ = thread.join();
        }
    }
}

impl BatcherShared {
    /// Checks that `more` texts may be queued.
    fn admit(&self, state: &BatcherState, more: usize) -> Result<()> {
        if state.is_dead || state.is_closing {
            return Err(Error::new(Kind::Unavailable, "the model has stopped"));
        }
        if state.queued + more > self.queue_texts_max {
            return Err(self.room.queue_full(state.queued, self.queue_texts_max));
        }
        Ok(())
    }

    /// Drops all queued jobs, so their callers receive an error, and refuses new ones.
    fn die(&self) {
        let mut state = lock(&self.state);
        state.is_dead = true;
        state.queued = 0;
        state.waiting.drain().for_each(drop);
        state.ready.drain().for_each(drop);
        state.counting.clear();
        drop(state);
        self.waiting.notify_all();
        self.ready.notify_all();
    }
}

/// The tokenizing thread.
fn tokenize(shared: &BatcherShared, tokenizer: &Tokenizer) {
    let mut state = lock(&shared.state);
    loop {
        if state.is_closing || state.is_dead {
            return;
        }
        let counting = state.counting.pop_front();
        let taken = take_untokenized(&mut state.waiting);
        if counting.is_none() && taken.is_empty() {
            state = ignore_poison(shared.waiting.wait(state));
            continue;
        }
        drop(state);
        let (ready, gone) = tokenize_jobs(taken, tokenizer, &shared.metrics);
        let counting = counting.and_then(|counting| counting.advance(tokenizer));
        state = lock(&shared.state);
        if state.is_dead {
            return;
        }
        state.counting.extend(counting);
        state.queued -= gone;
        for tokenized in ready {
            state.ready.push(tokenized.job.priority, tokenized);
        }
        shared.ready.notify_all();
    }
}

/// The next texts to tokenize, interactive before bulk.
fn take_untokenized(waiting: &mut PriorityQueue<EmbedJob>) -> Vec<EmbedJob> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while taken.len() < TOKENIZED_AT_ONCE && bytes < TOKENIZED_BYTES_AT_ONCE {
        let Some(job) = waiting.pop() else { break };
        bytes += job.text.len();
        taken.push(job);
    }
    taken
}

/// Tokenizes jobs. Also returns how many need no pass: their callers have left, or have received an error.
fn tokenize_jobs(
    jobs: Vec<EmbedJob>,
    tokenizer: &Tokenizer,
    metrics: &EmbedMetrics,
) -> (Vec<TokenizedJob>, usize) {
    let taken = jobs.len();
    let mut ready = Vec::with_capacity(taken);
    for job in jobs {
        if job.is_unwanted() {
            metrics.dropped_texts.inc();
            continue;
        }
        match tokenizer.encode(&job.text) {
            Ok(tokens) => ready.push(TokenizedJob { job, tokens }),
            // The caller may have left.
            Err(error) => _ = job.reply.send(Err(error)),
        }
    }
    let gone = taken - ready.len();
    (ready, gone)
}

/// A thread of passes over the texts of one priority.
fn run_passes(
    shared: &BatcherShared,
    priority: Priority,
    embed: impl Fn(&[&TokenizedText]) -> Result<Vec<Vec<f32>>>,
) {
    let mut state = lock(&shared.state);
    loop {
        if state.is_closing || state.is_dead {
            return;
        }
        if state.ready.has_none_of(priority) {
            state = ignore_poison(shared.ready.wait(state));
            continue;
        }
        let budget = BatchLimits { items: usize::MAX, cost: shared.batch_tokens_max };
        let tokens = |ready: &TokenizedJob| ready.tokens.ids.len();
        let TakenBatch { items: batch, dropped } =
            state.ready.take_batch_of(priority, budget, tokens, |ready| ready.job.is_unwanted());
        state.queued -= batch.len() + dropped;
        drop(state);
        shared.metrics.dropped_texts.inc_by(dropped as u64);
        if !batch.is_empty() {
            run_pass(batch, priority, &embed, shared);
        }
        state = lock(&shared.state);
    }
}

fn run_pass(
    batch: Vec<TokenizedJob>,
    priority: Priority,
    embed: impl Fn(&[&TokenizedText]) -> Result<Vec<Vec<f32>>>,
    shared: &BatcherShared,
) {
    let metrics = &shared.metrics;
    let started = Instant::now();
    let texts: Vec<&TokenizedText> = batch.iter().map(|ready| &ready.tokens).collect();
    let total: usize = texts.iter().map(|tokens| tokens.ids.len()).sum();
    let outcome = embed(&texts);
    let took = started.elapsed();
    shared.room.observe(priority, batch.len(), took);
    metrics.batches.inc();
    metrics.batch_texts.observe(batch.len() as f64);
    metrics.inference_seconds.observe(took.as_secs_f64());
    match outcome {
        // The receiver is closed if its caller has left.
        Err(error) => batch.into_iter().for_each(|ready| _ = ready.job.reply.send(Err(error.clone()))),
        Ok(vectors) => {
            metrics.embedded_texts.inc_by(batch.len() as u64);
            metrics.embedded_tokens.inc_by(total as u64);
            for (TokenizedJob { job, tokens }, vector) in batch.into_iter().zip(vectors) {
                let share = tokens.ids.len() as f64 / total as f64;
                let embedding = is_usable(&vector).then(|| Embedding {
                    vector: vector.into(),
                    tokens: u32::try_from(tokens.ids.len()).unwrap_or(u32::MAX),
                    is_truncated: tokens.is_truncated,
                    cost_us: (took.as_secs_f64() * 1e6 * share) as u32,
                    queued: started.saturating_duration_since(job.since),
                });
                let unusable =
                    || Error::new(Kind::Internal, "cannot use the model's vector: it is zero or not finite");
                let _ = job.reply.send(embedding.ok_or_else(unusable));
            }
        }
    }
}

#[cfg(test)]
mod tests;
