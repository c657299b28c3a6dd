//! The words that carry the content of a text, with the part that each plays in it.

use super::class_tags::{ClassTag, is_named_class};
use super::folding::{WordKey, word_key};
use super::mentions::Mention;
use super::tokens::{Span, Token, TokenForm};
use super::word_list::WordList;
use super::words::TextWords;

/// How many words of one text are compared.
pub(super) const CONTENT_WORDS_MAX: usize = 160;
/// How many tokens before a word its preposition is looked for.
const PREPOSITION_TOKENS: usize = 4;
/// Words of a text of which more than this share has a capital letter are written so, and are no names.
const CAPITALIZED_SHARE_MAX: f32 = 0.6;

/// The role of what something is exchanged for.
const EXCHANGE: &str = "exchange";

/// A word of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentWord {
    /// The key of its stem, or of what a class says that it stands for.
    pub(super) stem: WordKey,
    pub(super) span: Span,
    /// Where its folded letters are in the joined text.
    pub(super) letters: Span,
    /// What the preposition before it says that it is: a source, a target. Zero if there is none.
    pub(super) role: WordKey,
    /// The place of its first token.
    pub(super) token: usize,
    /// A name by its capital letter or its class.
    pub(super) is_name: bool,
    /// A verb or noun of every question, which replaces another one without changing much.
    pub(super) is_light: bool,
    /// A name or a person, who can act on another.
    pub(super) is_actor: bool,
    /// A verb of the lists.
    pub(super) is_verb: bool,
    /// The lists know the word.
    pub(super) is_known: bool,
    /// What an article or a possessive introduces, or the first word of it: `phone` of `the phone case`.
    pub(super) is_thing: bool,
}

/// The words of content in order. `is_taken` marks tokens that are mentions, fillers or words of grammatical classes.
pub(super) fn content_words(
    words: &TextWords<'_>,
    tags: &[ClassTag],
    mentions: &[Mention],
    is_taken: &[bool],
    letters: &[Span],
) -> Vec<ContentWord> {
    let is_unit = |at| mentions.iter().any(|mention| (mention.tokens.0..mention.tokens.1).contains(&at));
    let has_names = has_meaningful_capitals(words);
    let has_exchange = (0..words.len()).any(|at| words.form_in(at, WordList::ExchangeVerbs).is_some());
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() && found.len() < CONTENT_WORDS_MAX {
        let tag = tags.iter().find(|tag| tag.tokens.0 == at && is_named_class(tag.list));
        let token = &words.tokens[at];
        let end = tag.map_or(at + 1, |tag| tag.tokens.1);
        let is_content = token.form == TokenForm::Word && !words.is_in(at, WordList::FunctionWords);
        if tag.is_some() || is_content && !is_taken[at] {
            let is_gazetteer = tag.is_some_and(|tag| matches!(tag.list, WordList::Places | WordList::Brands));
            found.push(ContentWord {
                stem: tag.map_or(token.stem, |tag| tag.value),
                span: token.span.to(words.tokens[end - 1].span),
                letters: letters[at].to(letters[end - 1]),
                role: role(words, at, tag.is_some(), has_exchange),
                token: at,
                is_name: is_gazetteer || !is_unit(at) && tag.is_none() && has_names && is_name(words, at),
                is_light: tag.is_none() && words.form_in(at, WordList::LightWords).is_some(),
                is_actor: tag.is_some_and(|tag| tag.list == WordList::Persons)
                    || has_names && is_name(words, at),
                is_verb: tag.is_none() && words.form_in(at, WordList::Verbs).is_some(),
                is_known: tag.is_some() || words.lexicon.is_known(words.language, token.stem),
                is_thing: is_thing(words, at),
            });
        }
        at = end;
    }
    found
}

/// Whether capital letters distinguish names: not in a title, nor in a text without small letters.
fn has_meaningful_capitals(words: &TextWords<'_>) -> bool {
    let is_counted =
        |token: &&Token| token.form == TokenForm::Word && !token.is_first && token.word.len() > 3;
    let total = words.tokens.iter().filter(is_counted).count();
    let capitalized = words.tokens.iter().filter(is_counted).filter(|token| token.is_capitalized).count();
    total < 3 || (capitalized as f32) <= CAPITALIZED_SHARE_MAX * total as f32
}

fn is_name(words: &TextWords<'_>, at: usize) -> bool {
    let token = &words.tokens[at];
    let is_inside = !token.is_first || token.is_upper && token.word.len() > 1;
    token.is_capitalized && is_inside && token.word.len() > 1
}

/// Whether a word stands right behind an article or a possessive.
fn is_thing(words: &TextWords<'_>, at: usize) -> bool {
    at > 0 && !words.tokens[at].is_after_break && words.is_in(at - 1, WordList::Determiners)
}

/// The role that the nearest preposition gives a word: one that stands before it with adjectives and articles between them.
/// `for` has a role in an exchange only.
fn role(words: &TextWords<'_>, at: usize, is_class: bool, has_exchange: bool) -> WordKey {
    let is_verb = |at| {
        let is_auxiliary = words.is_one_of(at, &["be", "have", "do", "get", "been"]);
        let is_in = |list| words.form_in(at, list).is_some();
        is_auxiliary || is_in(WordList::Verbs) || is_in(WordList::LightWords)
    };
    if !is_class && is_verb(at) {
        return 0;
    }
    let (mut back, mut crossed) = (at, 0);
    while back > 0 && at - back < PREPOSITION_TOKENS && !words.tokens[back].is_after_break {
        back -= 1;
        let token = &words.tokens[back];
        if let Some(phrase) = words.lexicon.word(words.language, WordList::Prepositions, token.key) {
            let is_idle = phrase.value == word_key(EXCHANGE) && !has_exchange;
            return if is_idle { 0 } else { phrase.value };
        }
        crossed += usize::from(!words.is_in(back, WordList::FunctionWords));
        if crossed > 1 || words.is_in(back, WordList::Coordinators) || is_verb(back) {
            break;
        }
    }
    0
}
