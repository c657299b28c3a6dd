//! Texts that are the same but for one run of words.

use super::comparison::QuestionComparison;
use super::words::WordDifference;
use crate::matching::guard::features::{QuestionFeatures, SequenceWord};

/// The longest run of words that one text has in place of those of the other.
const REPLACED_WORDS_MAX: usize = 3;

impl QuestionComparison<'_> {
    /// Whether the texts are the same but for one word.
    pub(super) fn is_one_word_replaced(&self, difference: &WordDifference) -> bool {
        let is_shared = difference.shared + self.shared_tags() >= 1;
        let whole = ReplacedRun::of(&self.first.sequence, &self.second.sequence);
        if is_shared && whole.is_one_word() && whole.kept >= 3 {
            return true;
        }
        // `How do I return the kettle?` and `What is the way to return the toaster?` begin alike.
        let (one, two) = (behind_opening(self.first), behind_opening(self.second));
        is_shared && one.zip(two).is_some_and(|(one, two)| ReplacedRun::of(one, two).is_one_word())
    }

    /// Whether the texts are the same but for one short run of words in the same place.
    pub(super) fn is_replaced_in_place(&self, difference: &WordDifference) -> bool {
        let ReplacedRun { first, second, kept } =
            ReplacedRun::of(&self.first.sequence, &self.second.sequence);
        let is_short =
            first.max(second) <= REPLACED_WORDS_MAX && first.min(second) >= 1 && first.abs_diff(second) <= 1;
        let shared = difference.shared;
        // `Is the travel pillow waterproof?` and `Is the tumble dryer waterproof?` have few words.
        let shared_min = if self.has_other_things(difference) { 1 } else { 2 };
        is_short && (kept >= 3 && shared >= shared_min || kept >= 4 && shared >= 1)
            || self.is_one_word_replaced(difference)
    }
}

/// A run of words of one text that stands in the place of a run of the other, where the rest is the same in its order.
struct ReplacedRun {
    /// Words of the run in the first text.
    first: usize,
    second: usize,
    /// Words that are the same.
    kept: usize,
}

impl ReplacedRun {
    fn of(one: &[SequenceWord], two: &[SequenceWord]) -> ReplacedRun {
        let is_same = |(x, y): &(&SequenceWord, &SequenceWord)| x.stem == y.stem;
        let before = one.iter().zip(two).take_while(is_same).count();
        let rest = one.len().min(two.len()) - before;
        let after = one.iter().rev().zip(two.iter().rev()).take(rest).take_while(is_same).count();
        let kept = before + after;
        ReplacedRun { first: one.len() - kept, second: two.len() - kept, kept }
    }

    fn is_one_word(&self) -> bool {
        (self.first, self.second) == (1, 1)
    }
}

/// What a text asks how to do. `None` if it asks something else.
fn behind_opening(features: &QuestionFeatures) -> Option<&[SequenceWord]> {
    let end = features.opening_end;
    let at = features.sequence.partition_point(|word| word.token < end);
    (end > 0).then_some(&features.sequence[at..])
}
