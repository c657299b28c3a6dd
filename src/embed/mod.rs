//! Texts to vectors: reading models, tokenizing, forward passes, and the queue before them.
//!
//! Contains: sentence-transformers directories, the tokenizer, the encoder, the batcher, and the client of remote
//! models. Must not contain: a cache, or a request. The one idea: an [`Embedder`] is a bounded queue with a model
//! behind it. Each text is answered by a reply of its own, so that no caller waits for the text of another.

mod batcher;
mod encoder;
mod local;
mod metrics;
mod model_dir;
mod priority_queue;
mod prompts;
mod rate;
mod registry;
mod remote;
mod token_ids;
mod tokenizer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use local::LocalEmbedder;
pub use metrics::EmbedMetrics;
pub use prompts::Prompts;
pub use registry::ModelRegistry;
pub use remote::{Encoding, RemoteEmbedder, RemoteOptions};
pub use token_ids::TokenIds;

use crate::domain::{Embedding, Fingerprint, UnixSeconds};
use crate::error::Result;

/// Options of the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Tokens of one forward pass. Larger passes embed a corpus no faster, and keep single texts waiting.
    pub batch_tokens_max: usize,
    /// Texts that may wait for the model; more are refused.
    pub queue_texts_max: usize,
    /// Tokens that the model reads of one text, instead of what its directory says.
    pub tokens_max: Option<usize>,
    /// What token ids in requests are: `cl100k`, as OpenAI's clients send them, or `model`, the model's own.
    pub token_ids: TokenIds,
    /// Texts put before the input, instead of what the model's directory or family says.
    pub prompts: Prompts,
    /// Whether the model was trained so that its vectors can be cut (Matryoshka), instead of what its family says.
    pub is_matryoshka: Option<bool>,
    /// A model that another server runs, instead of a local one.
    pub remote: RemoteOptions,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            batch_tokens_max: 1024,
            queue_texts_max: 8192,
            tokens_max: None,
            token_ids: TokenIds::default(),
            prompts: Prompts::default(),
            is_matryoshka: None,
            remote: RemoteOptions::default(),
        }
    }
}

/// What is known of a model.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// The name under which it is served.
    pub name: String,
    /// Hash of everything that can change a vector, but for the prompt, which enters the key by itself.
    pub fingerprint: Fingerprint,
    /// Length of its vectors.
    pub dim: usize,
    /// Tokens that it reads of a text, special tokens included.
    pub tokens_max: usize,
    /// Texts put before inputs.
    pub prompts: Prompts,
    /// Which shorter vectors may be made of its own.
    pub matryoshka: Matryoshka,
    /// When its weights were written.
    pub created: UnixSeconds,
}

/// Whether the beginning of a vector is a vector too (Kusupati et al., "Matryoshka Representation Learning", 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matryoshka {
    /// The model was not trained so: only its own length is a vector.
    No,
    /// Any beginning will do.
    Any,
}

impl Matryoshka {
    /// Whether a vector of `native` numbers may be cut to `asked`.
    pub fn allows(self, asked: usize, native: usize) -> bool {
        match self {
            Matryoshka::No => asked == native,
            Matryoshka::Any => (1..=native).contains(&asked),
        }
    }
}

/// Which work goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A caller waits for it.
    Interactive,
    /// Part of a large request or a job.
    Bulk,
}

/// A text on its way to the model.
#[derive(Debug)]
pub struct EmbedJob {
    /// The text, its prompt included.
    pub text: String,
    /// Which work goes first.
    pub priority: Priority,
    /// Where the vector goes. Dropped without an answer if the text was dropped before it was started.
    pub reply: oneshot::Sender<Result<Embedding>>,
    /// Set once no caller waits for the vector. A text that is not started by then is dropped.
    pub is_abandoned: Arc<AtomicBool>,
    /// When it was asked for; the time until it is started is its time in the queue.
    pub since: Instant,
}

impl EmbedJob {
    fn is_unwanted(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed) || self.reply.is_closed()
    }
}

/// A model behind a bounded queue. Shared by `Arc`.
pub trait Embedder: Send + Sync + 'static {
    /// What is known of the model.
    fn card(&self) -> &ModelCard;

    /// Queues all of `work` or none of it. Returns at once.
    ///
    /// # Errors
    /// `Overloaded` if the queue would grow past its limit, `Unavailable` if the model's thread has died.
    fn submit(&self, work: Vec<EmbedJob>) -> Result<()>;

    /// Tokens of each text, special tokens included, of which a text that is cut has one more than the model reads; none
    /// if only the model's owner can tell.
    /// The work is done on its own threads.
    ///
    /// # Errors
    /// Those of [`Embedder::submit`].
    fn count_tokens(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Option<Vec<usize>>>>;

    /// The text that token ids stand for, at most `bytes_max` bytes of it. Bytes that are not UTF-8, as at the edge of a
    /// chunk cut by tokens, become U+FFFD.
    ///
    /// # Errors
    /// `InvalidInput` naming the first id that is not in the vocabulary, `TooLarge` if the text is longer.
    fn decode_tokens(&self, ids: &[u32], bytes_max: usize) -> Result<String>;

    /// Texts that wait for the model.
    fn queued(&self) -> usize;

    /// Whether the model still answers.
    fn is_alive(&self) -> bool;
}
