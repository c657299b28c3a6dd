//! What is compared of a question, extracted once.

use super::class_tags::{ClassTag, class_tags, is_named_class};
use super::content_words::{ContentWord, content_words};
use super::fillers::fillers;
use super::folding::{WordKey, word_key};
use super::language::Language;
use super::lexicon::Lexicon;
use super::mentions::{Mention, MentionValue, mentions};
use super::negated_comparisons::turned_by_negations;
use super::negation::{Negation, negations, soft_negations};
use super::quotations::{Quotation, quotations};
use super::request_shape::{RequestShape, how_to_opening, request_shape};
use super::speaker::{Speaker, speaker};
use super::tokens::{Span, TokenForm, cut};
use super::word_list::WordList;
use super::words::TextWords;
use super::written_form::WrittenForm;

/// What definite articles of Spanish are in the sequence.
const ARTICLE: &str = "el";

/// What is compared of a question. Of a text longer than 1,000 characters only the start is looked at. Features of one lexicon must not
/// be compared with those of another.
#[derive(Debug, Clone)]
pub struct QuestionFeatures {
    pub(super) text: Box<str>,
    pub(super) language: Language,
    pub(super) mentions: Box<[Mention]>,
    pub(super) tags: Box<[ClassTag]>,
    pub(super) content: Box<[ContentWord]>,
    /// The stems of all words but fillers; a mention counts as one word.
    pub(super) sequence: Box<[SequenceWord]>,
    pub(super) negations: Box<[Negation]>,
    /// Stems of words that can say the same as a negation.
    pub(super) soft_negations: Box<[WordKey]>,
    pub(super) quotations: Box<[Quotation]>,
    /// The places of `and`, `or` and commas.
    pub(super) coordinators: Box<[usize]>,
    pub(super) shape: RequestShape,
    /// The place of the first token behind the words by which the text asks how something is done; 0 if it does not.
    pub(super) opening_end: usize,
    pub(super) speaker: Speaker,
    /// The folded letters and digits of the text, without what separates them.
    pub(super) letters: Box<str>,
    /// Where each token ends in them.
    letter_ends: Box<[u16]>,
    pub(super) written: WrittenForm,
}

/// A word of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SequenceWord {
    pub(super) stem: WordKey,
    /// The place of its token.
    pub(super) token: usize,
}

impl QuestionFeatures {
    /// Extracts the features of a question.
    pub(super) fn of(lexicon: &Lexicon, question: &str) -> QuestionFeatures {
        let text = cut(question);
        let words = TextWords::read(lexicon, text);
        let is_filler = fillers(&words);
        let mut mentions = mentions(&words, &is_filler);
        let mut is_taken = is_filler.clone();
        for mention in mentions.iter().filter(|mention| !is_unit(mention) && !mention.is_one()) {
            is_taken[mention.tokens.0..mention.tokens.1].fill(true);
        }
        let tags = turned_by_negations(&words, class_tags(&words, &is_taken));
        // The week of `weekend` and the day of `a day` are no units.
        mentions.retain(|mention| !is_unit(mention) || !tags.iter().any(|tag| is_within(mention, tag)));
        for tag in tags.iter().filter(|tag| !is_named_class(tag.list)) {
            is_taken[tag.tokens.0..tag.tokens.1].fill(true);
        }
        let is_compared =
            |tag: &&ClassTag| tag.list == WordList::Comparators || tag.tokens.1 - tag.tokens.0 > 1;
        let mut is_no_negation = vec![false; words.len()];
        for tag in tags.iter().filter(is_compared) {
            is_no_negation[tag.tokens.0..tag.tokens.1].fill(true);
        }
        let (letters, places) = joined_letters(&words);
        let letter_ends = places.iter().map(|place| place.end).collect();
        QuestionFeatures {
            language: words.language,
            content: content_words(&words, &tags, &mentions, &is_taken, &places).into(),
            sequence: sequence(&words, &mentions, &tags, &is_filler).into(),
            negations: negations(&words, &is_no_negation).into(),
            soft_negations: soft_negations(&words).into(),
            quotations: quotations(text).into(),
            coordinators: coordinators(&words),
            shape: request_shape(&words, &is_filler),
            opening_end: how_to_opening(&words).map_or(0, |(_, end)| end),
            speaker: speaker(&words),
            written: WrittenForm::read(lexicon, words.language, text, &mentions),
            mentions: mentions.into(),
            tags: tags.into(),
            letters: letters.into(),
            letter_ends,
            text: text.into(),
        }
    }

    /// The language of the question.
    pub fn language(&self) -> Language {
        self.language
    }

    /// Whether these letters are those of one or more whole words in a row.
    pub(super) fn has_words(&self, letters: &str) -> bool {
        let is_end =
            |at: usize| u16::try_from(at).is_ok_and(|at| self.letter_ends.binary_search(&at).is_ok());
        let are_words = |at: usize| (at == 0 || is_end(at)) && is_end(at + letters.len());
        !letters.is_empty() && self.letters.match_indices(letters).any(|(at, _)| are_words(at))
    }

    /// The folded letters of a word of content.
    pub(super) fn letters_of(&self, word: &ContentWord) -> &str {
        word.letters.of(&self.letters)
    }
}

/// Definite articles of Spanish, which change with the noun behind them.
fn is_article(language: Language, word: &str) -> bool {
    language == Language::Spanish && matches!(word, "el" | "la" | "los" | "las")
}

fn is_within(mention: &Mention, tag: &ClassTag) -> bool {
    tag.tokens.0 <= mention.tokens.0 && mention.tokens.1 <= tag.tokens.1
}

fn is_unit(mention: &Mention) -> bool {
    matches!(mention.value, MentionValue::Unit(_))
}

/// The folded words one after another, and where each token's letters are.
fn joined_letters(words: &TextWords<'_>) -> (String, Vec<Span>) {
    let mut letters = String::new();
    let places = words.tokens.iter().map(|token| {
        let start = letters.len();
        letters.extend(token.word.chars().filter(|c| c.is_alphanumeric()));
        Span::new(start, letters.len())
    });
    let places = places.collect();
    (letters, places)
}

fn coordinators(words: &TextWords<'_>) -> Box<[usize]> {
    let joins = |at: &usize| words.is_in(*at, WordList::Coordinators) || words.tokens[*at].is_after_break;
    (0..words.len()).filter(joins).collect()
}

fn sequence(
    words: &TextWords<'_>,
    mentions: &[Mention],
    tags: &[ClassTag],
    is_filler: &[bool],
) -> Vec<SequenceWord> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let mention = mentions.iter().find(|mention| mention.tokens.0 == at && !is_unit(mention));
        let tag = tags.iter().find(|tag| tag.tokens.0 == at && is_named_class(tag.list));
        let token = &words.tokens[at];
        if let Some(mention) = mention {
            found.push(SequenceWord { stem: word_key("0"), token: at });
            at = mention.tokens.1;
        } else if let Some(tag) = tag {
            found.push(SequenceWord { stem: tag.value, token: at });
            at = tag.tokens.1;
        } else {
            if !is_filler[at] && token.form != TokenForm::Symbol {
                let stem =
                    if is_article(words.language, &token.word) { word_key(ARTICLE) } else { token.stem };
                found.push(SequenceWord { stem, token: at });
            }
            at += 1;
        }
    }
    found
}
