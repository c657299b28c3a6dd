//! Negation: one text says that something is, the other that it is not.

use super::comparison::QuestionComparison;
use super::words::WordDifference;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::features::QuestionFeatures;

impl QuestionComparison<'_> {
    /// Whether the other text has a word that this one negates.
    fn is_said(&self, negated: &QuestionFeatures, other: &QuestionFeatures) -> bool {
        negated.negations.iter().any(|negation| {
            let is_same = |stem| {
                stem == negation.target || self.lexicon.are_synonyms(other.language, negation.target, stem)
            };
            negation.target == 0 || other.sequence.iter().any(|word| is_same(word.stem))
        })
    }

    pub(super) fn negations(&mut self, difference: &WordDifference) {
        let (first, second) = (&self.first.negations, &self.second.negations);
        let (one, two) = (first.first().map(|n| n.span), second.first().map(|n| n.span));
        if first.len() % 2 != second.len() % 2 {
            let other = if first.len() % 2 == 1 { self.second } else { self.first };
            let negated = if first.len() % 2 == 1 { self.first } else { self.second };
            let has_soft_one = other.soft_negations.iter().any(|stem| !negated.soft_negations.contains(stem));
            let is_stopped =
                !other.soft_negations.is_empty() && negated.negations.iter().any(|n| n.is_of_wish);
            let has_soft_one = has_soft_one || is_stopped;
            let strength = match (has_soft_one, difference.has_antonym) {
                // `It isn't allowed`, `it is forbidden`: two opposites agree.
                (_, true) => Strength::Weak,
                (true, false) => Strength::Weak,
                (false, false) if self.is_said(negated, other) || difference.is_small() => Strength::Certain,
                // What is negated is not in the other text: the two may be about other things.
                (false, false) => Strength::Strong,
            };
            return self.add(ConflictKind::Negation, strength, one, two);
        }
        let swapped = first.iter().find(|own| {
            let is_said_plainly = self.second.content.iter().any(|word| word.stem == own.target);
            is_said_plainly && second.iter().all(|other| other.target != own.target)
        });
        let back = second.iter().find(|own| {
            let is_said_plainly = self.first.content.iter().any(|word| word.stem == own.target);
            is_said_plainly && first.iter().all(|other| other.target != own.target)
        });
        if let (Some(one), Some(two)) = (swapped, back) {
            self.add(ConflictKind::Negation, Strength::Weak, Some(one.span), Some(two.span));
        }
    }
}
