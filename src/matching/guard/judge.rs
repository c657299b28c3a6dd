//! The guard as its callers use it.

use super::canonical::{CanonicalQuestion, canonical_text};
use super::compare::conflicts;
use super::conflict::{Conflict, Strictness};
use super::exact_only::{ExactOnlyReason, exact_only_reason};
use super::features::QuestionFeatures;
use super::lexicon::Lexicon;
use super::tokens::cut;
use super::words::TextWords;

/// Finds where two questions conflict.
#[derive(Debug, Clone)]
pub struct Guard {
    pub(super) lexicon: Lexicon,
}

impl Guard {
    /// A guard with these words.
    pub fn new(lexicon: Lexicon) -> Guard {
        Guard { lexicon }
    }

    /// Extracts what is compared of a question. Cost: tens of microseconds for a sentence.
    pub fn features(&self, question: &str) -> QuestionFeatures {
        QuestionFeatures::of(&self.lexicon, question)
    }

    /// The question with case and accents folded, each number, date, time, amount and unit in one form, abbreviations written out and
    /// greetings left out: what a model that compares two questions reads. Values are written rather than replaced by a placeholder: the
    /// guard compares sets of values, and which number belongs to which noun is left to the model.
    ///
    /// Cost: tens of microseconds for a sentence.
    pub fn canonical(&self, question: &str) -> CanonicalQuestion {
        let text = cut(question);
        let language = TextWords::read(&self.lexicon, text).language;
        CanonicalQuestion { text: canonical_text(&self.lexicon, language, text), language }
    }

    /// Why a question is matched by its exact words only. `None` if nothing speaks against an answer to the same in other words.
    pub fn exact_only(&self, question: &str) -> Option<ExactOnlyReason> {
        exact_only_reason(&self.lexicon, question)
    }

    /// Where two questions conflict: at most one conflict of a kind, the strongest first. Kinds and strengths are the same for both
    /// orders of the questions.
    pub fn conflicts<'a>(
        &'a self,
        first: &'a QuestionFeatures,
        second: &'a QuestionFeatures,
    ) -> Vec<Conflict<'a>> {
        conflicts(&self.lexicon, first, second)
    }

    /// The strongest conflict that forbids that the two share an answer. `None` if there is none, which does not say that they ask the
    /// same.
    pub fn veto<'a>(
        &'a self,
        strictness: Strictness,
        first: &'a QuestionFeatures,
        second: &'a QuestionFeatures,
    ) -> Option<Conflict<'a>> {
        self.conflicts(first, second)
            .into_iter()
            .next()
            .filter(|conflict| strictness.forbids(conflict.strength))
    }
}
