//! The options of answers to questions in other words.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::question::AcrossKeys;
use crate::error::{Error, Kind, Result};
use crate::matching::guard::{Language, Strictness};

/// The longest wait for a vector or the verifier.
const WAIT_MS_MAX: u64 = 60_000;
/// From two buckets of rows to what a search by sketches reads in some twenty milliseconds.
const SCOPE_QUESTIONS: RangeInclusive<usize> = 2048..=4_000_000;

/// How the verifier is used: a model that reads both questions and has to agree that they ask the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifierMode {
    /// What it cannot read is a miss.
    #[default]
    Required,
    /// What it cannot read is left to the guard.
    WherePossible,
    /// All is left to the guard.
    Off,
}

impl VerifierMode {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            VerifierMode::Required => "required",
            VerifierMode::WherePossible => "where_possible",
            VerifierMode::Off => "off",
        }
    }
}

/// When a stored answer to a question in other words is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticOptions {
    /// Namespaces in which a request is also answered from questions in other words, unless it says otherwise. In all other namespaces
    /// only requests that ask for it are.
    pub namespaces: Vec<String>,
    /// The smallest cosine similarity of two such questions. If absent, those of the embedding model by language, if it is a known one; with another
    /// model no question is answered in other words until this is set.
    pub similarity_min: Option<f32>,
    /// The share of searches that may end in a wrong answer. It chooses the threshold of `calibration_file`; without one the threshold is
    /// `similarity_min`. Where clients have called more answers wrong (`POST /v1/answers/feedback`), the threshold rises until the next
    /// start.
    pub wrong_share_max: Option<f64>,
    /// A file that `likewise calibrate` has made of judged questions, in the place of `similarity_min`; needs `wrong_share_max`.
    pub calibration_file: Option<PathBuf>,
    /// The share of hits in other words whose question is sent to the upstream too, in the background, to compare its answer with the
    /// one that was served. Each costs a call, whose answer is stored as that of the question itself.
    pub reask_share: f64,
    /// Which differences forbid an answer: "normal" those that are certain, "strict" (for shops and banks) also strong suspicions.
    pub guard: Strictness,
    /// When a caller is answered in other words from a question of another one, where `answers.share_across_keys` lets both share answers in
    /// the same words: "never", "confirmed" (once another API key of `http.api_keys` has asked the stored question too, in the same words;
    /// answers that applications store themselves never) or "at_once".
    pub across_keys: AcrossKeys,
    /// A directory with words that are added to the lists of the guard: `en/LIST.txt` and `es/LIST.txt`, such as `es/synonyms.txt`, with
    /// one `a`, `a = b` or `a <> b` a line.
    pub words_dir: Option<PathBuf>,
    /// How the verifier is used, a model that reads both questions: "required" (what it cannot read is a miss), "where_possible" (what it
    /// cannot read is left to the guard) or "off". all-MiniLM-L6-v2 has one; with another model "required" answers nothing in other
    /// words.
    pub verifier: VerifierMode,
    /// Milliseconds that a question waits for the verifier to read one of at most two near questions; then that one is refused.
    pub verify_ms_max: u64,
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
            wrong_share_max: None,
            calibration_file: None,
            reask_share: 0.0,
            guard: Strictness::Strict,
            across_keys: AcrossKeys::default(),
            words_dir: None,
            verifier: VerifierMode::Required,
            verify_ms_max: 250,
            embed_ms_max: 250,
            bytes_max: 256 * 1024 * 1024,
            scope_questions_max: 1_000_000,
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
        if let Some(share) = self.wrong_share_max.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            let message =
                format!("answers.semantic.wrong_share_max must be above 0 and below 1, got {share}");
            return Err(Error::new(Kind::Config, message));
        }
        if !(0.0..=1.0).contains(&self.reask_share) {
            let message =
                format!("answers.semantic.reask_share must be from 0 to 1, got {}", self.reask_share);
            return Err(Error::new(Kind::Config, message));
        }
        if self.calibration_file.is_some() {
            let fault = |message| Err(Error::new(Kind::Config, message));
            if self.wrong_share_max.is_none() {
                return fault("answers.semantic.calibration_file needs answers.semantic.wrong_share_max");
            }
            if self.similarity_min.is_some() {
                return fault(
                    "answers.semantic.similarity_min must be absent: answers.semantic.calibration_file has it",
                );
            }
        }
        for (name, waits) in [("embed_ms_max", self.embed_ms_max), ("verify_ms_max", self.verify_ms_max)] {
            if !(1..=WAIT_MS_MAX).contains(&waits) {
                let message = format!("answers.semantic.{name} must be from 1 to {WAIT_MS_MAX}, got {waits}");
                return Err(Error::new(Kind::Config, message));
            }
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

/// The smallest similarities of two questions, by the language of the one that is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarities {
    english: f32,
    spanish: f32,
}

impl Similarities {
    /// The same one for all languages.
    pub fn same(similarity: f32) -> Similarities {
        Similarities { english: similarity, spanish: similarity }
    }

    /// The shipped ones of a model, if it is a known one.
    pub fn shipped(model: &str) -> Option<Similarities> {
        let name = model.rsplit('/').next().unwrap_or(model);
        SHIPPED
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, similarities)| *similarities)
    }

    /// That of two questions: the larger one of their languages. A few words may be read as those of the other language.
    pub fn of_pair(&self, asked: Language, stored: Language) -> f32 {
        self.of(asked).max(self.of(stored))
    }

    /// That of questions in a language.
    pub fn of(&self, language: Language) -> f32 {
        match language {
            Language::English => self.english,
            Language::Spanish => self.spanish,
        }
    }

    /// The smallest of all languages.
    pub fn least(&self) -> f32 {
        self.english.min(self.spanish)
    }
}

impl fmt::Display for Similarities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.english == self.spanish {
            return write!(formatter, "{:.2}", self.english);
        }
        write!(formatter, "{:.2} en, {:.2} es", self.english, self.spanish)
    }
}

/// Shipped thresholds by the name of the model. all-MiniLM-L6-v2 has learnt English only: to it, Spanish questions about one thing are near
/// whatever they ask. `likewise evaluate questions` and `evaluate pairs` measure what is served at one; docs/benchmarks.md has what was
/// measured.
const SHIPPED: [(&str, Similarities); 2] = [
    ("all-MiniLM-L6-v2", Similarities { english: 0.85, spanish: 0.94 }),
    ("multilingual-e5-small", Similarities { english: 0.96, spanish: 0.96 }),
];
