//! Things: what an article or a possessive introduces, so that another one is another subject, in whatever words the rest is.

use super::comparison::QuestionComparison;
use super::words::WordDifference;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::content_words::ContentWord;
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::tokens::Span;

impl QuestionComparison<'_> {
    /// Things of several words that have no word in common, though each may have a synonym: `the phone case`, `the sound bar`.
    pub(super) fn compounds(&mut self) {
        let [one, two] = [self.first, self.second];
        let (first, second) = (compound(one), compound(two));
        let has_things = [one, two].iter().all(|features| features.content.iter().any(is_thing));
        let is_shared = names_thing_of(one, two) || names_thing_of(two, one);
        if (first.is_some() || second.is_some()) && has_things && !is_shared {
            self.add(ConflictKind::Substitution, Strength::Strong, first, second);
        }
    }

    /// Whether each text names a thing that the other does not.
    pub(super) fn has_other_things(&self, difference: &WordDifference) -> bool {
        difference.first.words(self.first).any(is_thing) && difference.second.words(self.second).any(is_thing)
    }
}

fn is_thing(word: &ContentWord) -> bool {
    word.is_thing && !word.is_light
}

/// The two words of a thing, if it has two: `the phone case`. What stands behind a thing may also be said of it: `the kettle waterproof`.
fn is_compound(pair: &[ContentWord]) -> bool {
    is_thing(&pair[0]) && !pair[1].is_light && pair[0].token + 1 == pair[1].token
}

/// The first thing of two words.
fn compound(features: &QuestionFeatures) -> Option<Span> {
    let pair = features.content.windows(2).find(|pair| is_compound(pair))?;
    Some(pair[0].span.to(pair[1].span))
}

/// Whether a text has a word of a thing of the other.
fn names_thing_of(features: &QuestionFeatures, other: &QuestionFeatures) -> bool {
    let has = |word: &ContentWord| features.content.iter().any(|own| own.stem == word.stem);
    other.content.iter().any(|word| is_thing(word) && has(word))
        || other.content.windows(2).any(|pair| is_compound(pair) && has(&pair[1]))
}
