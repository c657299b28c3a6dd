//! Words of closed classes: colours, plans, places, comparisons. Members of one class exclude each other.

use super::folding::WordKey;
use super::lexicon::Phrase;
use super::tokens::Span;
use super::word_list::WordList;
use super::words::TextWords;

/// How many members of classes of one text are compared.
const TAGS_MAX: usize = 64;

/// Words of modality with these endings are participles and adjectives, not auxiliary verbs.
const MODAL_ADJECTIVES: [&str; 7] = ["ed", "ory", "ble", "ido", "ida", "orio", "oria"];

/// A member of a class in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassTag {
    pub(super) list: WordList,
    /// What the word stands for, the same in every language and form.
    pub(super) value: WordKey,
    pub(super) span: Span,
    /// The places of its first token, and after its last.
    pub(super) tokens: (usize, usize),
    /// The words before it ask for it: `as a table`.
    pub(super) is_asked: bool,
}

/// The lists that are classes.
pub(super) fn is_class(list: WordList) -> bool {
    is_named_class(list) || is_grammatical_class(list)
}

/// Classes whose members are things, which are words of the content too.
pub(super) fn is_named_class(list: WordList) -> bool {
    matches!(
        list,
        WordList::Colours
            | WordList::Sizes
            | WordList::Plans
            | WordList::Languages
            | WordList::Formats
            | WordList::Places
            | WordList::Brands
            | WordList::Persons
    )
}

fn is_grammatical_class(list: WordList) -> bool {
    matches!(
        list,
        WordList::Comparators
            | WordList::Particles
            | WordList::Quantifiers
            | WordList::Modality
            | WordList::Periods
            | WordList::Weekdays
            | WordList::RelativeDays
            | WordList::DayParts
            | WordList::Freshness
            | WordList::Generality
            | WordList::QuestionWords
    )
}

/// The members of classes in a text, in order: at each place the longest phrase, in every class that has it.
pub(super) fn class_tags(words: &TextWords<'_>, is_taken: &[bool]) -> Vec<ClassTag> {
    let mut tags = Vec::new();
    let mut at = 0;
    while at < words.len() && tags.len() < TAGS_MAX {
        at = if is_taken[at] { at + 1 } else { tag_at(words, at, &mut tags) };
    }
    tags
}

/// Adds the tags of a place, and returns the place after them.
fn tag_at(words: &TextWords<'_>, at: usize, tags: &mut Vec<ClassTag>) -> usize {
    let here = || words.phrases_at(at).filter(|(phrase, _)| is_class(phrase.list));
    let longest = here().map(|(_, len)| len).max().unwrap_or(0);
    let mut add = |phrase: &Phrase, len: usize| {
        let span = words.tokens[at].span.to(words.tokens[at + len - 1].span);
        if counts(words, at, phrase) {
            let (tokens, is_asked) = ((at, at + len), is_asked(words, at));
            tags.push(ClassTag { list: phrase.list, value: phrase.value, span, tokens, is_asked });
        }
    };
    here().filter(|(_, len)| *len == longest).for_each(|(phrase, len)| add(phrase, len));
    if longest == 0 {
        let stem = words.tokens[at].stem;
        let inflected = words.lexicon.inflected(words.language, stem).iter();
        inflected.filter(|phrase| is_class(phrase.list)).for_each(|phrase| add(phrase, 1));
    }
    at + longest.max(1)
}

/// Whether `as`, `as a`, `in` or `en formato` stand before a place.
fn is_asked(words: &TextWords<'_>, at: usize) -> bool {
    let is_opening = |at| words.is_one_of(at, &["as", "in", "into", "en", "como", "formato", "format"]);
    let is_article = |at| words.is_one_of(at, &["a", "an", "un", "una"]);
    at > 0 && is_opening(at - 1) || at > 1 && is_article(at - 1) && is_opening(at - 2)
}

/// Whether a word that can also mean something else means the member of its class here.
fn counts(words: &TextWords<'_>, at: usize, phrase: &Phrase) -> bool {
    let token = &words.tokens[at];
    let is_single = phrase.rest.is_empty();
    // `Turn on the lamp`, `turn the lamp on`.
    if phrase.list == WordList::Particles {
        let is_after_verb = at > 0 && words.form_in(at - 1, WordList::Verbs).is_some();
        return is_after_verb || words.get(at + 1).is_none_or(|next| next.is_after_break);
    }
    // `Can I`, but not `how can I`. Participles and phrases count everywhere.
    if phrase.list == WordList::Modality {
        let is_adjective = MODAL_ADJECTIVES.iter().any(|ending| token.word.ends_with(ending));
        return token.is_first || !is_single || is_adjective;
    }
    // `S`, `M` and `L` are sizes as capitals, or after the word.
    if phrase.list == WordList::Sizes && token.word.len() == 1 {
        let is_after_size = at > 0 && words.is_one_of(at - 1, &["size", "talla", "tamano"]);
        let is_alone = words.get(at + 1).is_none_or(|next| !next.is_glued);
        return is_after_size || token.is_capitalized && !token.is_first && is_alone;
    }
    // After an article `mañana` is a part of the day.
    if phrase.list == WordList::RelativeDays && token.word == "manana" {
        return at == 0 || !words.is_one_of(at - 1, &["la", "esta", "las", "por"]);
    }
    // `Wed` and `Sat` are days with a capital letter.
    if phrase.list == WordList::Weekdays && is_single && token.word.len() == 3 {
        return token.is_capitalized && !token.is_first;
    }
    phrase.list != WordList::Languages || !is_single || is_language_asked(words, at)
}

/// `in Spanish`, `the Spanish version`: a language, where `Spanish bank` is an origin.
fn is_language_asked(words: &TextWords<'_>, at: usize) -> bool {
    let before = at > 0
        && words.is_one_of(at - 1, &["in", "to", "into", "en", "al", "a", "speak", "from", "del", "hablar"]);
    before || words.get(at + 1).is_none_or(|next| next.is_after_break)
}
