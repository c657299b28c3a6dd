//! The rule guard: do two questions ask the same thing?
//!
//! Contains: word lists and what is read with them, the features of a question, and the comparison of two. Must not contain: I/O, a
//! clock, an async function, a model. The one idea: the guard never says that two questions are the same; it finds where they
//! conflict. Features are extracted once a question, so that a comparison costs microseconds. Every list and loop is bounded.

mod builtin_words;
mod canonical;
mod class_tags;
mod compare;
mod conflict;
mod content_words;
mod dates;
mod derivation;
mod exact_only;
mod features;
mod fillers;
mod folding;
mod judge;
mod language;
mod lexicon;
mod mentions;
mod morphology;
mod negated_comparisons;
mod negation;
mod numbers;
mod quotations;
mod request_shape;
mod signs;
mod speaker;
mod times;
mod tokens;
mod units;
mod word_list;
mod words;
mod written_form;

#[cfg(test)]
mod tests;

pub use canonical::CanonicalQuestion;
pub use conflict::{Conflict, ConflictKind, Strength, Strictness};
pub use exact_only::ExactOnlyReason;
pub use features::QuestionFeatures;
pub use judge::Guard;
pub use language::Language;
pub use lexicon::Lexicon;
pub use word_list::WordList;
