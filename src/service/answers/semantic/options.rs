//! The options of answers to questions in other words.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::matching::guard::Strictness;

/// The longest wait for a vector.
const EMBED_MS_MAX: u64 = 60_000;
/// A search reads all questions of a scope on the thread of its request.
const SCOPE_QUESTIONS: RangeInclusive<usize> = 2048..=100_000;

/// When a stored answer to a question in other words is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticOptions {
    /// Namespaces in which a request is also answered from questions in other words, unless it says otherwise. In all other namespaces
    /// only requests that ask for it are.
    pub namespaces: Vec<String>,
    /// The smallest cosine similarity of two such questions. If absent, that of the embedding model, if it is a known one; with another
    /// model no question is answered in other words until this is set.
    pub similarity_min: Option<f32>,
    /// Which differences forbid an answer: "normal" those that are certain, "strict" (for shops and banks) also strong suspicions.
    pub guard: Strictness,
    /// Milliseconds that a question waits for its vector; then it is a miss.
    pub embed_ms_max: u64,
    /// Bytes of memory for the vectors of stored questions. The oldest are dropped first.
    pub bytes_max: usize,
    /// Questions of one scope (the same model, system prompt, history and parameters) that are kept. The oldest are dropped first.
    pub scope_questions_max: usize,
}

impl Default for SemanticOptions {
    fn default() -> SemanticOptions {
        SemanticOptions {
            namespaces: Vec::new(),
            similarity_min: None,
            guard: Strictness::Strict,
            embed_ms_max: 250,
            bytes_max: 256 * 1024 * 1024,
            scope_questions_max: 20_000,
        }
    }
}

impl SemanticOptions {
    /// Checks each option alone.
    ///
    /// # Errors
    /// `Config`, naming the option.
    pub fn validate(&self) -> Result<()> {
        if let Some(min) = self.similarity_min.filter(|min| !(0.0..=1.0).contains(min)) {
            let message = format!("answers.semantic.similarity_min must be from 0 to 1, got {min}");
            return Err(Error::new(Kind::Config, message));
        }
        if !(1..=EMBED_MS_MAX).contains(&self.embed_ms_max) {
            let message = format!(
                "answers.semantic.embed_ms_max must be from 1 to {EMBED_MS_MAX}, got {}",
                self.embed_ms_max
            );
            return Err(Error::new(Kind::Config, message));
        }
        if !SCOPE_QUESTIONS.contains(&self.scope_questions_max) {
            let (min, max) = SCOPE_QUESTIONS.into_inner();
            let message = format!(
                "answers.semantic.scope_questions_max must be from {min} to {max}, got {}",
                self.scope_questions_max
            );
            return Err(Error::new(Kind::Config, message));
        }
        Ok(())
    }
}

/// Shipped thresholds by the name of the model. Of pairs that are built to deceive, the cosine alone serves 67 of 100 at this one, and 3
/// with the `strict` rules; of paraphrases 72 and 64 (1,065 and 413 pairs in English and Spanish of templates that no rule was written for, 2026-11-29).
const SIMILARITIES: [(&str, f32); 1] = [("all-MiniLM-L6-v2", 0.85)];

/// The threshold of a model, if it is a known one.
pub(super) fn similarity_min_of(model: &str) -> Option<f32> {
    let name = model.rsplit('/').next().unwrap_or(model);
    SIMILARITIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, similarity)| *similarity)
}
