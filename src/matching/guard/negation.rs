//! What a text negates.

use super::folding::WordKey;
use super::tokens::{Span, TokenForm};
use super::word_list::WordList;
use super::words::TextWords;

/// How many tokens after a negation its target is looked for.
const SCOPE_TOKENS: usize = 5;
/// How many negations of one text are compared.
const NEGATIONS_MAX: usize = 16;

/// Words of wishes. Not to want something is to want it to stop.
const WISHES: [&str; 9] =
    ["want", "wish", "need", "like", "quiero", "queremos", "quiere", "deseo", "necesito"];

/// A negation and the word that it negates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Negation {
    /// The stem of the next word of content. Zero if there is none.
    pub(super) target: WordKey,
    pub(super) span: Span,
    /// What is negated is a wish: `I do not want it`.
    pub(super) is_of_wish: bool,
}

/// The negations of a text. `is_taken` marks tokens of comparisons and the like, whose `no` is a part of them.
pub(super) fn negations(words: &TextWords<'_>, is_taken: &[bool]) -> Vec<Negation> {
    let mut found: Vec<Negation> = Vec::new();
    let mut last_at = None;
    let mut at = 0;
    while at < words.len() && found.len() < NEGATIONS_MAX {
        if let Some((_, len)) = words.phrase_in(at, WordList::NegationIdioms) {
            at += len;
            continue;
        }
        let Some((phrase, len)) = words.phrase_in(at, WordList::Negations).filter(|_| !is_taken[at]) else {
            at += 1;
            continue;
        };
        let is_repeated =
            last_at.is_some_and(|last| is_same_clause(words, last, at)) && &*phrase.words != "not";
        if !is_repeated && negates(words, at, len) {
            let is_of_wish = (at + len..at + len + 2).any(|at| words.is_one_of(at, &WISHES));
            found.push(Negation { target: target(words, at + len), span: words.tokens[at].span, is_of_wish });
            last_at = Some(at);
        }
        at += len;
    }
    found
}

/// The stems of words that can say the same as a negation.
pub(super) fn soft_negations(words: &TextWords<'_>) -> Vec<WordKey> {
    let is_soft = |at: usize| {
        words.phrase_in(at, WordList::SoftNegations).is_some()
            || words.form_in(at, WordList::SoftNegations).is_some()
    };
    (0..words.len()).filter(|&at| is_soft(at)).map(|at| words.tokens[at].stem).take(NEGATIONS_MAX).collect()
}

/// `No ... nunca`, `no ... ninguno`: the second word repeats the first one.
fn is_same_clause(words: &TextWords<'_>, first: usize, second: usize) -> bool {
    second - first <= 8 && words.tokens[first + 1..=second].iter().all(|token| !token.is_after_break)
}

fn negates(words: &TextWords<'_>, at: usize, len: usize) -> bool {
    let next = words.get(at + len);
    let is_alone = words.tokens[at].is_after_break && next.is_none_or(|next| next.is_after_break);
    let is_answer = words.tokens[at].is_first && next.is_some_and(|next| next.is_after_break);
    let is_number_sign = words.word(at) == "no" && next.is_some_and(|next| next.form == TokenForm::Digits);
    !is_alone && !is_answer && !is_number_sign && !is_tag_question(words, at)
}

/// `Can't I pay by card?`, `Isn't it free?`: asks the same as without `not`. `Don't cancel it` does not.
fn is_tag_question(words: &TextWords<'_>, at: usize) -> bool {
    if at == 0 || words.word(at) != "not" {
        return false;
    }
    let auxiliary = &words.tokens[at - 1];
    let is_subject = words.is_in(at + 1, WordList::Subjects);
    let starts = auxiliary.is_first || at == 1 || auxiliary.is_after_break && is_subject;
    let is_contracted = auxiliary.span == words.tokens[at].span;
    starts && is_subject && is_contracted
}

/// The stem of the first word of content in the scope.
fn target(words: &TextWords<'_>, from: usize) -> WordKey {
    let scope = words.tokens.iter().enumerate().skip(from).take(SCOPE_TOKENS);
    let in_clause = scope.take_while(|(_, token)| !token.is_after_break);
    let is_content =
        |at: usize| !words.is_in(at, WordList::FunctionWords) && words.tokens[at].form == TokenForm::Word;
    in_clause.map(|(at, token)| (at, token.stem)).find(|(at, _)| is_content(*at)).map_or(0, |(_, stem)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::lexicon::Lexicon;

    fn targets(text: &str) -> Vec<String> {
        let lexicon = Lexicon::builtin();
        let words = TextWords::read(&lexicon, text);
        let is_taken = vec![false; words.len()];
        let name =
            |stem| words.tokens.iter().find(|token| token.stem == stem).map(|token| token.word.clone());
        negations(&words, &is_taken)
            .iter()
            .map(|negation| name(negation.target).unwrap_or_default())
            .collect()
    }

    #[test]
    fn the_next_word_of_content_is_negated() {
        for (text, expected) in [
            ("my router isn't working", &["working"][..]),
            ("my router doesn't work", &["work"]),
            ("my router does work", &[]),
            ("which plans come without a router?", &["router"]),
            ("why can't I log in?", &["log"]),
            ("Can't I log in?", &[]),
            ("Don't cancel my flight", &["cancel"]),
            ("not only flights but also hotels", &[]),
            ("it works, doesn't it?", &[]),
            ("no me funciona nunca el router", &["funciona"]),
            ("el router no funciona", &["funciona"]),
            ("planes sin permanencia", &["permanencia"]),
            ("no, gracias", &[]),
            ("room no 5", &[]),
        ] {
            assert_eq!(targets(text), expected, "{text}");
        }
    }
}
