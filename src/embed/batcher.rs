//! The queue before a local model: bounded, cut by tokens, interactive work first.
//!
//! Two threads. The tokenizing one turns waiting texts into tokens while the model's one runs a pass, so the model
//! never waits for a tokenizer. A pass takes whole texts up to a budget of tokens; nothing is padded, so texts of any
//! lengths share a pass at no cost.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::EmbedJob;
use super::metrics::EmbedMetrics;
use super::priority_queue::{Batch, BatchLimits, PriorityQueue};
use super::rate::Rate;
use super::tokenizer::{Tokenizer, Tokens};
use crate::domain::{Embedding, is_usable};
use crate::error::{Error, Kind, Result};

/// What runs a pass: the encoder, or a stand-in in tests.
pub(super) trait Model: Send + 'static {
    /// One vector for each text, in their order.
    fn embed(&mut self, texts: &[&Tokens]) -> Result<Vec<Vec<f32>>>;
}

/// Texts that the tokenizing thread takes at a time; the model sees them as soon as they are done.
const TOKENIZED_AT_ONCE: usize = 32;
/// Bytes after which it takes no further text at a time.
const TOKENIZED_BYTES_AT_ONCE: usize = 256 * 1024;

/// A text with its tokens, waiting for a pass.
struct Ready {
    work: EmbedJob,
    tokens: Tokens,
}

/// Texts to be counted, not embedded.
struct Counting {
    texts: Vec<String>,
    /// Of the first texts.
    counts: Vec<usize>,
    reply: oneshot::Sender<Result<Vec<usize>>>,
}

impl Counting {
    /// Counts some more texts, so that those to be embedded need not wait for all. None once all are counted.
    fn advance(mut self, tokenizer: &Tokenizer) -> Option<Counting> {
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

struct State {
    waiting: PriorityQueue<EmbedJob>,
    counting: VecDeque<Counting>,
    ready: PriorityQueue<Ready>,
    /// Texts submitted and not yet in a pass, those being tokenized included.
    queued: usize,
    is_closing: bool,
    /// A thread has died: nothing will be answered any more.
    is_dead: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something waits for the tokenizing thread, or the end has come.
    waiting: Condvar,
    /// Something waits for the model's thread, or the end has come.
    ready: Condvar,
    queue_texts_max: usize,
    batch_tokens_max: usize,
    rate: Rate,
    metrics: Arc<EmbedMetrics>,
}

/// The queue with its two threads. Dropping it drops what has not started and joins them.
pub(super) struct Batcher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Batcher {
    /// Starts the threads.
    ///
    /// # Errors
    /// `Io` if the operating system has no threads left.
    pub(super) fn start(
        tokenizer: Tokenizer,
        mut model: impl Model,
        options: &super::Options,
        metrics: Arc<EmbedMetrics>,
    ) -> Result<Batcher> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
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
            rate: Rate::new(1),
            metrics,
        });
        let mut batcher = Batcher { shared, threads: Vec::new() };
        batcher.spawn("tokenizer", move |shared| tokenize(shared, &tokenizer))?;
        batcher.spawn("model", move |shared| run_passes(shared, &mut model))?;
        Ok(batcher)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let body = move || {
            // The panic itself has been printed by the hook; what remains is to tell those who wait.
            if catch_unwind(AssertUnwindSafe(|| work(&shared))).is_err() {
                shared.die();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push(thread.map_err(|error| Error::io("start a thread of the batcher", error))?);
        Ok(())
    }

    /// Queues all of `work` or none.
    ///
    /// # Errors
    /// `Overloaded` if the queue would grow past its limit, `Unavailable` if a thread has died.
    pub(super) fn submit(&self, work: Vec<EmbedJob>) -> Result<()> {
        let mut state = self.shared.lock();
        self.shared.admit(&state, work.len())?;
        state.queued += work.len();
        for one in work {
            state.waiting.push(one.priority, one);
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
        let mut state = self.shared.lock();
        let counting: usize = state.counting.iter().map(|counting| counting.texts.len()).sum();
        self.shared.admit(&state, counting + texts.len())?;
        state.counting.push_back(Counting { texts, counts: Vec::new(), reply });
        drop(state);
        self.shared.waiting.notify_one();
        Ok(counts)
    }

    /// Texts that wait for a pass.
    pub(super) fn queued(&self) -> usize {
        self.shared.lock().queued
    }

    /// Whether both threads still run.
    pub(super) fn is_alive(&self) -> bool {
        !self.shared.lock().is_dead
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.waiting.notify_all();
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            // Its panic, if any, was caught inside.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Whether `more` texts may wait.
    fn admit(&self, state: &State, more: usize) -> Result<()> {
        if state.is_dead || state.is_closing {
            return Err(Error::new(Kind::Unavailable, "the model does not answer any more"));
        }
        if state.queued + more > self.queue_texts_max {
            return Err(self.rate.queue_full(state.queued, self.queue_texts_max));
        }
        Ok(())
    }

    /// A poisoned lock is taken all the same: no code of ours panics while it holds it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops all queued jobs, which ends the wait of their callers with an error, and refuses more.
    fn die(&self) {
        let mut state = self.lock();
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
fn tokenize(shared: &Shared, tokenizer: &Tokenizer) {
    let mut state = shared.lock();
    loop {
        if state.is_closing || state.is_dead {
            return;
        }
        let counting = state.counting.pop_front();
        let taken = take_some(&mut state.waiting);
        if counting.is_none() && taken.is_empty() {
            state = shared.waiting.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(state);
        let (ready, gone) = tokenize_some(taken, tokenizer, &shared.metrics);
        let counting = counting.and_then(|counting| counting.advance(tokenizer));
        state = shared.lock();
        if state.is_dead {
            return;
        }
        state.counting.extend(counting);
        state.queued -= gone;
        for one in ready {
            state.ready.push(one.work.priority, one);
        }
        shared.ready.notify_one();
    }
}

/// The next texts to tokenize, interactive before bulk.
fn take_some(waiting: &mut PriorityQueue<EmbedJob>) -> Vec<EmbedJob> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while taken.len() < TOKENIZED_AT_ONCE && bytes < TOKENIZED_BYTES_AT_ONCE {
        let Some(work) = waiting.pop() else { break };
        bytes += work.text.len();
        taken.push(work);
    }
    taken
}

/// Texts with their tokens, and how many need no pass: their callers have left, or have received an error.
fn tokenize_some(works: Vec<EmbedJob>, tokenizer: &Tokenizer, metrics: &EmbedMetrics) -> (Vec<Ready>, usize) {
    let taken = works.len();
    let mut ready = Vec::with_capacity(taken);
    for work in works {
        if work.is_unwanted() {
            metrics.dropped_texts.inc();
            continue;
        }
        match tokenizer.encode(&work.text) {
            Ok(tokens) => ready.push(Ready { work, tokens }),
            // The caller may have left.
            Err(error) => _ = work.reply.send(Err(error)),
        }
    }
    let gone = taken - ready.len();
    (ready, gone)
}

/// The model's thread.
fn run_passes(shared: &Shared, model: &mut impl Model) {
    let mut state = shared.lock();
    loop {
        if state.is_closing || state.is_dead {
            return;
        }
        if state.ready.is_empty() {
            state = shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let budget = BatchLimits { items: usize::MAX, cost: shared.batch_tokens_max };
        let tokens = |ready: &Ready| ready.tokens.ids.len();
        let Batch { items: batch, dropped } =
            state.ready.take_batch(budget, tokens, |ready| ready.work.is_unwanted());
        state.queued -= batch.len() + dropped;
        drop(state);
        shared.metrics.dropped_texts.inc_by(dropped as u64);
        if !batch.is_empty() {
            run_pass(batch, model, shared);
        }
        state = shared.lock();
    }
}

fn run_pass(batch: Vec<Ready>, model: &mut impl Model, shared: &Shared) {
    let metrics = &shared.metrics;
    let started = Instant::now();
    let texts: Vec<&Tokens> = batch.iter().map(|ready| &ready.tokens).collect();
    let total: usize = texts.iter().map(|tokens| tokens.ids.len()).sum();
    let outcome = model.embed(&texts);
    let took = started.elapsed();
    shared.rate.observe(batch.len(), took);
    metrics.batches.inc();
    metrics.batch_texts.observe(batch.len() as f64);
    metrics.inference_seconds.observe(took.as_secs_f64());
    match outcome {
        // The callers of some texts may have left by now.
        Err(error) => batch.into_iter().for_each(|ready| _ = ready.work.reply.send(Err(error.clone()))),
        Ok(vectors) => {
            metrics.embedded_texts.inc_by(batch.len() as u64);
            metrics.embedded_tokens.inc_by(total as u64);
            for (Ready { work, tokens }, vector) in batch.into_iter().zip(vectors) {
                let share = tokens.ids.len() as f64 / total as f64;
                let embedding = is_usable(&vector).then(|| Embedding {
                    vector: vector.into(),
                    tokens: u32::try_from(tokens.ids.len()).unwrap_or(u32::MAX),
                    is_truncated: tokens.is_truncated,
                    cost_us: (took.as_secs_f64() * 1e6 * share) as u32,
                    queued: started.saturating_duration_since(work.since),
                });
                let unusable =
                    || Error::new(Kind::Internal, "the model made a vector that is zero or not finite");
                let _ = work.reply.send(embedding.ok_or_else(unusable));
            }
        }
    }
}

#[cfg(test)]
mod tests;
