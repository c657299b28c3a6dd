//! What an embedder makes of a text.

use std::sync::Arc;
use std::time::Duration;

/// One vector with what is known of its making. The model it belongs to is part of its entry's key.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The vector, in the model's native dimension.
    pub vector: Arc<[f32]>,
    /// Tokens that the model read, special tokens and prompt included, after truncation.
    pub tokens: u32,
    /// Whether the text was longer than the model reads.
    pub is_truncated: bool,
    /// The text's share of the time that its batch took, in microseconds.
    pub cost_us: u32,
    /// How long its text waited before it was started.
    pub queued: Duration,
}

/// Whether a vector says anything: all numbers finite, not all of them zero.
pub fn is_usable(vector: &[f32]) -> bool {
    vector.iter().all(|x| x.is_finite()) && vector.iter().any(|x| *x != 0.0)
}

/// What the text is for; asymmetric models put different prompts before queries and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputType {
    /// A question or search.
    Query,
    /// A text that is searched.
    Document,
}
