//! Embedding models: their directories, tokenizers, forward passes, and the queue before them.
//!
//! Contains: sentence-transformers directories, the tokenizer, the encoder, the batcher, and the client of remote
//! models. Must not contain: a cache, or a request. The one idea: an [`Embedder`] is a bounded queue with a model
//! behind it. Each text has its own reply, so no caller waits for the text of another caller.

mod batcher;
mod bulk_threads;
mod encoder;
pub mod endpoint;
mod local;
mod metrics;
mod model_dir;
mod model_options;
mod on_demand;
mod option_path;
mod priority;
mod priority_queue;
mod prompts;
mod queue_room;
mod registry;
mod remote;
mod throughput;
mod token_ids;
mod tokenizer;
mod verifier;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use likewise_encoder::{instruction_set, product_rate};
pub use local::{LocalEmbedder, check_model_dir};
pub use metrics::EmbedMetrics;
pub use model_options::{LoadTime, ModelOptions};
pub use on_demand::OnDemandEmbedder;
pub use priority::Priority;
pub use prompts::Prompts;
pub use queue_room::{QueuePlace, QueueRoom};
pub use registry::ModelRegistry;
pub use remote::{Encoding, RemoteEmbedder, RemoteOptions};
pub use token_ids::{TokenIds, count_cl100k};
pub use tokenizer::TextToken;
pub use verifier::Verifier;

use crate::domain::{Embedding, Fingerprint, UnixSeconds};
use crate::error::{Error, Kind, Result};

/// Options of the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Tokens of one forward pass. Larger passes embed a corpus no faster and delay single texts.
    pub batch_tokens_max: usize,
    /// Texts in the queue of the model; more are refused.
    pub queue_texts_max: usize,
    /// Tokens of a text that the model reads. If absent, its directory decides.
    pub tokens_max: Option<usize>,
    /// The vocabulary of token ids in requests: `cl100k`, as OpenAI's clients send them, or `model`, the model's own.
    pub token_ids: TokenIds,
    /// Texts put before inputs. If absent, the model's directory or family decides.
    pub prompts: Prompts,
    /// Whether the model's vectors can be truncated (Matryoshka). If absent, its family decides.
    pub is_matryoshka: Option<bool>,
    /// A model on another server, instead of a local one.
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

/// The properties of a model.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// The name under which it is served.
    pub name: String,
    /// The hash of everything that can change a vector except the prompt, which is part of each key.
    pub fingerprint: Fingerprint,
    /// Length of its vectors.
    pub dim: usize,
    /// Tokens that it reads of a text, special tokens included.
    pub tokens_max: usize,
    /// Texts put before inputs.
    pub prompts: Prompts,
    /// How the states of tokens become a vector, if that is known: `mean`, `cls` or `last_token`.
    pub pooling: Option<&'static str>,
    /// Which truncations of its vectors are valid.
    pub matryoshka: Matryoshka,
    /// When its weights were written.
    pub created: UnixSeconds,
}

/// Which truncated vectors are valid embeddings (Kusupati et al., "Matryoshka Representation Learning", 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matryoshka {
    /// None: the model was not trained so.
    No,
    /// Of any length.
    Any,
}

impl Matryoshka {
    /// Whether a vector of `native` numbers may be truncated to `asked`.
    pub fn allows(self, asked: usize, native: usize) -> bool {
        match self {
            Matryoshka::No => asked == native,
            Matryoshka::Any => (1..=native).contains(&asked),
        }
    }
}

/// A text on its way to the model.
#[derive(Debug)]
pub struct EmbedJob {
    /// The text, its prompt included.
    pub text: String,
    /// The priority in the queue.
    pub priority: Priority,
    /// Receives the vector. Dropped without a reply if the job was dropped before its start.
    pub reply: oneshot::Sender<Result<Embedding>>,
    /// Set once no caller waits for the vector. A job that has not started then is dropped.
    pub is_abandoned: Arc<AtomicBool>,
    /// When it began to wait; its time in the queue ends at its start.
    pub since: Instant,
    /// Its place in the queue, if it has waited for one.
    pub place: Option<QueuePlace>,
}

impl EmbedJob {
    /// Whether no caller waits for the vector any more.
    pub fn is_unwanted(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed) || self.reply.is_closed()
    }
}

/// A model behind a bounded queue. Shared by `Arc`. The methods that are given here are those of a model on another server, which has no queue
/// here, and whose tokenizer is not known.
pub trait Embedder: Send + Sync + 'static {
    /// The properties of the model.
    fn card(&self) -> &ModelCard;

    /// The room of its queue, for which texts can wait. `None` if it has no queue.
    fn room(&self) -> Option<&QueueRoom> {
        None
    }

    /// Queues all of `jobs` or none. Returns at once.
    ///
    /// # Errors
    /// `Overloaded` if the queue would grow past its limit, `Unavailable` if the model's thread has panicked.
    fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()>;

    /// Tokens of each text, special tokens included; for a truncated text one more than the model reads. `None` if the model
    /// is remote. Runs on threads of the embedder.
    ///
    /// # Errors
    /// Those of [`Embedder::submit`].
    fn count_tokens(&self, _: Vec<String>) -> BoxFuture<'_, Result<Option<Vec<usize>>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// The tokens of a text, however many; with the special ones if `adds_specials`. Blocks for as long as that takes, about a microsecond
    /// a token.
    ///
    /// # Errors
    /// `InvalidInput` if the vocabulary of the model is not known here.
    fn tokenize(&self, _: &str, _: bool) -> Result<Vec<TextToken>> {
        Err(Error::new(Kind::InvalidInput, "the vocabulary of the model is not known here"))
    }

    /// Decodes token ids to a text of at most `bytes_max` bytes. Bytes that are not UTF-8, as at the ends of a chunk of
    /// tokens, become U+FFFD.
    ///
    /// # Errors
    /// `InvalidInput` naming the first id outside the vocabulary, and for all if that is not known; `TooLarge` if the text is longer.
    fn decode_tokens(&self, _: &[u32], _: usize) -> Result<String> {
        Err(Error::new(Kind::InvalidInput, "the vocabulary of the model is not known here"))
    }

    /// The verifier that belongs to the model, if there is one. The first call loads it.
    fn verifier(&self) -> Option<&Arc<Verifier>> {
        None
    }

    /// Operations of a pass over texts of these numbers of tokens, a multiply-add counted as two; `None` if it computes elsewhere.
    fn operations(&self, _: &[usize]) -> Option<u64> {
        None
    }

    /// Whether it computes on this machine.
    fn is_local(&self) -> bool {
        false
    }

    /// Texts in the queue.
    fn queued(&self) -> usize {
        0
    }

    /// Whether the model still replies: none of its threads has panicked.
    fn is_alive(&self) -> bool {
        true
    }
}
