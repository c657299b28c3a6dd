//! Words of content that only one text has: names, opposites, and what stands in their place in the other text.

use super::comparison::QuestionComparison;
use crate::matching::guard::class_tags::{ClassTag, is_named_class};
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::content_words::ContentWord;
use crate::matching::guard::derivation::are_of_one_family;
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::folding::{differ_by_one_letter, shared_start, word_key};
use crate::matching::guard::language::Language;
use crate::matching::guard::lexicon::Lexicon;
use crate::matching::guard::tokens::Span;
use crate::matching::guard::word_list::WordList;

/// How many words without counterpart are looked at in each text. Texts that differ in more are no candidates.
const UNMATCHED_MAX: usize = 12;
/// In how many words of the other text a counterpart is looked for.
const COUNTERPARTS_MAX: usize = 64;
/// Prefixes that make a word its opposite.
const NEGATIVE_PREFIXES: [&str; 9] = ["un", "dis", "in", "im", "ir", "il", "non", "des", "de"];
/// Prefixes that are opposites of each other.
const OPPOSITE_PREFIXES: [(&str, &str); 7] = [
    ("hyper", "hypo"),
    ("hiper", "hipo"),
    ("macro", "micro"),
    ("pre", "post"),
    ("im", "ex"),
    ("over", "under"),
    ("sobre", "sub"),
];
/// The role of what something belongs to.
const GENITIVE: &str = "genitive";
/// How many tokens behind a part its whole stands at most: `of the old`.
const WHOLE_TOKENS_MAX: usize = 5;
/// In how many words two texts may differ so that other names are certainly others.
const NAMED_IN_MAX: usize = 4;

/// The words of content without counterpart, by their places.
pub(super) struct WordDifference {
    pub(super) first: UnmatchedWords,
    pub(super) second: UnmatchedWords,
    pub(super) shared: usize,
    /// A word of one text is the opposite of one of the other.
    pub(super) has_antonym: bool,
    antonyms: Option<(Span, Span)>,
}

/// Places of words, the first few.
#[derive(Default)]
pub(super) struct UnmatchedWords {
    places: [u16; UNMATCHED_MAX],
    len: usize,
    /// There are more.
    is_cut: bool,
}

impl UnmatchedWords {
    fn push(&mut self, place: usize) {
        if self.len == UNMATCHED_MAX {
            self.is_cut = true;
        } else {
            self.places[self.len] = u16::try_from(place).unwrap_or(u16::MAX);
            self.len += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn words<'f>(
        &'f self,
        features: &'f QuestionFeatures,
    ) -> impl Iterator<Item = &'f ContentWord> {
        self.places[..self.len].iter().filter_map(|&place| features.content.get(usize::from(place)))
    }

    fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut len = 0;
        for n in 0..self.len {
            if keep(usize::from(self.places[n])) {
                self.places[len] = self.places[n];
                len += 1;
            }
        }
        self.len = len;
    }
}

impl WordDifference {
    /// Whether hardly a word is without counterpart.
    pub(super) fn is_small(&self) -> bool {
        self.first.len <= 2 && self.second.len <= 2
    }

    /// The difference of two texts. Cost: the product of their numbers of words, which are bounded.
    pub(super) fn of(
        lexicon: &Lexicon,
        first: &QuestionFeatures,
        second: &QuestionFeatures,
    ) -> WordDifference {
        let (mut one, mut two) = (only_in(first, second), only_in(second, first));
        let shared = (first.content.len() - one.len).min(second.content.len() - two.len);
        let antonyms = antonyms(lexicon, first, &one, second, &two);
        if one.len > 0 || two.len > 0 {
            one.retain(|place| !has_counterpart(lexicon, first, &first.content[place], second));
            two.retain(|place| !has_counterpart(lexicon, second, &second.content[place], first));
        }
        WordDifference { first: one, second: two, shared, has_antonym: antonyms.is_some(), antonyms }
    }
}

fn only_in(features: &QuestionFeatures, other: &QuestionFeatures) -> UnmatchedWords {
    let mut unmatched = UnmatchedWords::default();
    for (place, word) in features.content.iter().enumerate() {
        if !other.content.iter().any(|two| two.stem == word.stem) {
            unmatched.push(place);
        }
    }
    unmatched
}

fn antonyms(
    lexicon: &Lexicon,
    first: &QuestionFeatures,
    one: &UnmatchedWords,
    second: &QuestionFeatures,
    two: &UnmatchedWords,
) -> Option<(Span, Span)> {
    if first.language != second.language {
        return None;
    }
    // `Remove what I added` and `delete what I added`: `add` is no opposite of a word that stands for `remove`.
    let are_synonyms =
        |x: &ContentWord, y: &ContentWord| lexicon.are_synonyms(first.language, x.stem, y.stem);
    let replaced_in_second = |x: &ContentWord| two.words(second).any(|y| are_synonyms(x, y));
    let replaced_in_first = |y: &ContentWord| one.words(first).any(|x| are_synonyms(x, y));
    one.words(first).filter(|x| !replaced_in_second(x)).find_map(|x| {
        let opposite = two.words(second).filter(|y| !replaced_in_first(y)).find(|y| {
            lexicon.are_antonyms(first.language, x.stem, y.stem)
                || is_prefixed(first.letters_of(x), second.letters_of(y))
        })?;
        Some((x.span, opposite.span))
    })
}

/// `subscribe` and `unsubscribe`, `activar` and `desactivar`.
fn is_prefixed(one: &str, two: &str) -> bool {
    let (short, long) = if one.len() < two.len() { (one, two) } else { (two, one) };
    let is_negative = |prefix: &str| {
        long.strip_prefix(prefix).is_some_and(|rest| {
            let shared = shared_start(rest, short);
            shared >= 4 && shared + 3 >= rest.len().max(short.len())
        })
    };
    let has_other_prefix = |(one_prefix, two_prefix): &(&str, &str)| {
        let rests = one.strip_prefix(one_prefix).zip(two.strip_prefix(two_prefix));
        let others = one.strip_prefix(two_prefix).zip(two.strip_prefix(one_prefix));
        [rests, others].into_iter().flatten().any(|(x, y)| x == y && x.len() >= 4)
    };
    short.len() >= 4 && NEGATIVE_PREFIXES.iter().any(|prefix| is_negative(prefix))
        || OPPOSITE_PREFIXES.iter().any(has_other_prefix)
}

/// Whether the other text has a word that means the same, is of the same family, or is the same with a slip of the pen.
fn has_counterpart(
    lexicon: &Lexicon,
    features: &QuestionFeatures,
    word: &ContentWord,
    other: &QuestionFeatures,
) -> bool {
    let letters = features.letters_of(word);
    let is_counterpart = |two: &ContentWord| {
        let other_letters = other.letters_of(two);
        let is_synonym = lexicon.are_synonyms(features.language, word.stem, two.stem);
        // A slip of the pen makes a word that no list knows; of two unknown words of equal length both may be right.
        let is_moved = letters.len() != other_letters.len() || has_same_letters(letters, other_letters);
        let can_slip = word.is_known != two.is_known || !word.is_known && is_moved;
        is_synonym
            || is_one_family(features.language, letters, other_letters, can_slip)
                && !is_opposite(lexicon, features, word, two, letters, other_letters)
    };
    other.content.iter().take(COUNTERPARTS_MAX).any(is_counterpart)
        || is_joined_or_divided(features, letters, other)
}

fn is_opposite(
    lexicon: &Lexicon,
    features: &QuestionFeatures,
    one: &ContentWord,
    two: &ContentWord,
    letters: &str,
    other_letters: &str,
) -> bool {
    lexicon.are_antonyms(features.language, one.stem, two.stem) || is_prefixed(letters, other_letters)
}

/// A word without counterpart that the lists do not know, if it is the only one.
fn unknown(unmatched: &UnmatchedWords, features: &QuestionFeatures) -> Option<Span> {
    let mut content = unmatched.words(features).filter(|word| !word.is_light);
    let word = content.next().filter(|word| !word.is_known)?;
    content.next().is_none().then_some(word.span)
}

/// Whether two words have the same letters in another order.
fn has_same_letters(one: &str, two: &str) -> bool {
    let sorted = |word: &str| {
        let mut letters: Vec<u8> = word.bytes().collect();
        letters.sort_unstable();
        letters
    };
    sorted(one) == sorted(two)
}

/// Whether two words are of one family, one the plural of the other, or the same with a slip of the pen: `account` and `acount`.
fn is_one_family(language: Language, one: &str, two: &str, can_slip: bool) -> bool {
    let shortest = one.len().min(two.len());
    let shared = shared_start(one, two);
    let is_plural =
        one.len().abs_diff(two.len()) == 1 && shared == shortest && one.ends_with('s') != two.ends_with('s');
    let is_slip = can_slip && shortest >= 4 && shared >= 1 && differ_by_one_letter(one, two);
    is_plural || is_slip || are_of_one_family(language, one, two)
}

/// Whether a word is written as several in the other text, or is a part of what the other text writes as one: `smartphone` and `smart phone`.
fn is_joined_or_divided(features: &QuestionFeatures, letters: &str, other: &QuestionFeatures) -> bool {
    let is_part_of = |two: &ContentWord| {
        let compound = other.letters_of(two);
        compound.len() > letters.len() && compound.contains(letters) && features.has_words(compound)
    };
    letters.len() >= 4 && other.has_words(letters)
        || other.content.iter().take(COUNTERPARTS_MAX).any(is_part_of)
}

impl QuestionComparison<'_> {
    pub(super) fn words(&mut self, difference: &WordDifference) {
        if let Some((one, two)) = difference.antonyms {
            let is_negation_different = self.first.negations.len() % 2 != self.second.negations.len() % 2;
            let strength = if is_negation_different { Strength::Weak } else { Strength::Certain };
            self.add(ConflictKind::Antonym, strength, Some(one), Some(two));
        }
        self.compounds();
        if difference.first.is_empty() && difference.second.is_empty() {
            return;
        }
        self.names(difference);
        self.part_of_whole(difference);
        self.substitution(difference);
    }

    /// Names that only one text has.
    fn names(&mut self, difference: &WordDifference) {
        let one = difference.first.words(self.first).find(|word| word.is_name).map(|word| word.span);
        let two = difference.second.words(self.second).find(|word| word.is_name).map(|word| word.span);
        match (one, two) {
            (None, None) => {}
            (Some(_), Some(_)) => {
                // Texts that differ in much may name other things and mean the same.
                let is_close = difference.first.len <= NAMED_IN_MAX && difference.second.len <= NAMED_IN_MAX;
                let strength = if is_close { Strength::Certain } else { Strength::Strong };
                self.add(ConflictKind::Entity, strength, one, two);
            }
            (Some(_), None) | (None, Some(_)) => {
                // A name in small letters looks like an unknown word.
                let other = if one.is_some() {
                    unknown(&difference.second, self.second)
                } else {
                    unknown(&difference.first, self.first)
                };
                let strength = if other.is_some() { Strength::Certain } else { Strength::Strong };
                let (one, two) = (one.or(other), two.or(other));
                self.add(ConflictKind::Entity, strength, one, two);
            }
        }
    }

    /// `Paint a cabinet`, `paint the door of a cabinet`: the only word that one text has more says which part of a thing is meant.
    fn part_of_whole(&mut self, difference: &WordDifference) {
        let part = |own: &UnmatchedWords, other: &UnmatchedWords, features: &QuestionFeatures| {
            let is_whole = |part: &ContentWord, whole: &ContentWord| {
                whole.token > part.token
                    && whole.token - part.token <= WHOLE_TOKENS_MAX
                    && whole.role == word_key(GENITIVE)
            };
            let mut words = own.words(features).filter(|word| !word.is_light);
            let part = words.next().filter(|_| other.is_empty() && !own.is_cut)?;
            let is_part =
                words.next().is_none() && features.content.iter().any(|whole| is_whole(part, whole));
            is_part.then_some(part.span)
        };
        if !self.has_same_question_words() {
            // `When does it arrive?`, `What is the time of its arrival?`
            return;
        }
        let one = part(&difference.first, &difference.second, self.first);
        let two = part(&difference.second, &difference.first, self.second);
        if one.is_some() || two.is_some() {
            self.add(ConflictKind::Substitution, Strength::Strong, one, two);
        }
    }

    /// Other words in the place of some.
    fn substitution(&mut self, difference: &WordDifference) {
        let content = |word: &&ContentWord| !word.is_light;
        let one = difference.first.words(self.first).find(content).map(|word| word.span);
        let two = difference.second.words(self.second).find(content).map(|word| word.span);
        if difference.first.is_cut || difference.second.is_cut {
            return;
        }
        if one.is_none() || two.is_none() {
            // `Which process is used?`, `Which processor is used?`
            if (one.is_some() || two.is_some()) && self.is_one_word_replaced(difference) {
                self.add(ConflictKind::Substitution, Strength::Strong, one, two);
            }
            return;
        }
        let counts = [
            difference.first.words(self.first).filter(content).count(),
            difference.second.words(self.second).filter(content).count(),
        ];
        let shared = difference.shared + self.shared_tags();
        let is_few = counts.iter().all(|&count| count <= 2 && count < shared);
        let are_other_things = self.has_other_things(difference);
        let strength = if self.is_replaced_in_place(difference) {
            Strength::Certain
        } else if is_few || are_other_things {
            Strength::Strong
        } else {
            Strength::Weak
        };
        self.add(ConflictKind::Substitution, strength, one, two);
    }

    fn has_same_question_words(&self) -> bool {
        let asks = |features: &QuestionFeatures| {
            let tags = features.tags.iter().filter(|tag| tag.list == WordList::QuestionWords);
            tags.map(|tag| tag.value).collect::<Vec<_>>()
        };
        asks(self.first) == asks(self.second)
    }

    /// How many comparisons and quantities both texts have.
    pub(super) fn shared_tags(&self) -> usize {
        let shared = |own: &QuestionFeatures, other: &QuestionFeatures| {
            let is_shared = |tag: &&ClassTag| {
                let is_same = |two: &ClassTag| two.list == tag.list && two.value == tag.value;
                !is_named_class(tag.list) && other.tags.iter().any(is_same)
            };
            own.tags.iter().filter(is_shared).count()
        };
        shared(self.first, self.second).min(shared(self.second, self.first))
    }
}
