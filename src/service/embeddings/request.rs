//! Requests for embeddings, their responses, and the options that limit them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metrics::UnstoredReason;
use crate::domain::{Entry, InputType, Principal, TierName};
use crate::embed::Embedder;
use crate::service::Directives;

/// Limits of a request for embeddings. The lifetime of embeddings is the policy of their namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bytes of one text; a longer one is refused before it is tokenized.
    pub text_bytes_max: usize,
    /// Tokens that one request may send to the model, after truncation.
    pub request_tokens_max: usize,
    /// Requests with at most this many texts are interactive: their jobs precede those of larger requests.
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
    /// The use of the texts, which selects the model's prompt.
    pub input_type: Option<InputType>,
    /// Whether a text of more tokens than the model reads is truncated. Otherwise it is refused.
    pub truncate: bool,
    /// The sender, whose tenant's entries are used.
    pub principal: Arc<Principal>,
    /// Its cache directives.
    pub directives: Directives,
    /// Whether no client waits for it: it goes behind what clients have sent, however few texts it has.
    pub is_background: bool,
}

/// How the texts of a request were served; the three add up to the number of texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookupCounts {
    /// Found in a tier.
    pub hits: usize,
    /// Embedded for this request.
    pub misses: usize,
    /// Embedded once for several texts: a repeated text of this request, or a flight that another request leads.
    pub coalesced: usize,
}

/// Vectors in the order of the texts, and how the texts were served.
#[derive(Debug, Clone)]
pub struct Response {
    /// One entry for each text; the value is the vector as little-endian f32.
    pub entries: Vec<Arc<Entry>>,
    /// Hits, misses and coalesced texts.
    pub counts: LookupCounts,
    /// The lowest tier that served a text, if every text was a hit.
    pub tier: Option<TierName>,
    /// Age of the oldest entry in seconds, if every text was a hit.
    pub age_seconds: u32,
    /// Tokens of all texts.
    pub tokens: u64,
    /// Truncated texts.
    pub truncated: usize,
    /// Why a vector that was made for the request was not stored, if one was not.
    pub not_stored: Option<UnstoredReason>,
    /// The time of the lookup in memory.
    pub lookup: Duration,
    /// The time of waiting for flights: lower tiers, queue and model.
    pub waiting: Duration,
    /// Of it, the longest time that a text was queued.
    pub queued: Duration,
}
