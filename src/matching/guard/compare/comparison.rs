//! Two questions, and the conflicts found so far.

use crate::matching::guard::conflict::{Conflict, ConflictKind, Strength};
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::lexicon::Lexicon;
use crate::matching::guard::tokens::Span;

/// Two questions, and the conflicts found so far.
pub(in crate::matching::guard) struct QuestionComparison<'a> {
    pub(super) lexicon: &'a Lexicon,
    pub(super) first: &'a QuestionFeatures,
    pub(super) second: &'a QuestionFeatures,
    conflicts: Vec<Conflict<'a>>,
}

impl<'a> QuestionComparison<'a> {
    pub(super) fn new(
        lexicon: &'a Lexicon,
        first: &'a QuestionFeatures,
        second: &'a QuestionFeatures,
    ) -> QuestionComparison<'a> {
        QuestionComparison { lexicon, first, second, conflicts: Vec::new() }
    }

    /// Adds a conflict, unless a stronger one of the kind is known.
    pub(super) fn add(
        &mut self,
        kind: ConflictKind,
        strength: Strength,
        first: Option<Span>,
        second: Option<Span>,
    ) {
        let text = |features: &'a QuestionFeatures, span: Option<Span>| {
            span.map_or("", |span| span.of(&features.text))
        };
        let (first, second) = (text(self.first, first), text(self.second, second));
        match self.conflicts.iter_mut().find(|conflict| conflict.kind == kind) {
            Some(known) if known.strength >= strength => {}
            Some(known) => *known = Conflict { kind, strength, first, second },
            None => self.conflicts.push(Conflict { kind, strength, first, second }),
        }
    }

    /// The conflicts, the strongest first.
    pub(super) fn sorted(mut self) -> Vec<Conflict<'a>> {
        self.conflicts.sort_by_key(|conflict| (std::cmp::Reverse(conflict.strength), conflict.kind));
        self.conflicts
    }
}
