//! Negation: one text says that something is, the other that it is not.

use super::comparison::Comparison;
use super::words::WordDifference;
use crate::matching::guard::conflict::{ConflictKind, Strength};

impl Comparison<'_> {
    pub(super) fn negations(&mut self, difference: &WordDifference) {
        let (first, second) = (&self.first.negations, &self.second.negations);
        let (one, two) = (first.first().map(|n| n.span), second.first().map(|n| n.span));
        if first.len() % 2 != second.len() % 2 {
            let other = if first.len() % 2 == 1 { self.second } else { self.first };
            let negated = if first.len() % 2 == 1 { self.first } else { self.second };
            let has_soft_one = other.soft_negations.iter().any(|stem| !negated.soft_negations.contains(stem));
            let strength = match (has_soft_one, difference.has_antonym) {
                // `It isn't allowed`, `it is forbidden`: two opposites agree.
                (_, true) => Strength::Weak,
                (true, false) => Strength::Weak,
                (false, false) => Strength::Certain,
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
