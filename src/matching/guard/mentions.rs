//! What a text mentions in forms that can be compared by value: numbers, measures, dates, times and codes.

use super::dates::{CalendarDate, date_at};
use super::folding::{WordKey, word_key};
use super::numbers::{ReadNumber, number_at};
use super::times::{DayTime, time_at};
use super::tokens::{Span, Token, TokenForm};
use super::units::{UnitOfMeasure, measure_at, unit_at};
use super::word_list::WordList;
use super::words::TextWords;

/// How many mentions of one text are compared. Texts with more conflict with all others.
pub(super) const MENTIONS_MAX: usize = 24;

/// A value that a text mentions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum MentionValue {
    /// A number without a unit. `digits` is the key of its digits as written.
    Number {
        value: f64,
        digits: WordKey,
        is_version: bool,
        is_weak: bool,
    },
    /// A number with a unit, in the base unit of its dimension.
    Measure {
        value: f64,
        unit: UnitOfMeasure,
        is_weak: bool,
    },
    /// A unit without a number.
    Unit(UnitOfMeasure),
    /// A place in an order.
    Ordinal(u32),
    Time(DayTime),
    Date(CalendarDate),
    /// An identifier, by the key of its letters and digits, and whether it is short.
    Code {
        key: WordKey,
        is_short: bool,
    },
}

/// A mention and where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mention {
    pub(super) value: MentionValue,
    pub(super) span: Span,
    /// The places of its first token, and after its last.
    pub(super) tokens: (usize, usize),
    /// The stem of the word after it: what is counted.
    pub(super) noun: WordKey,
}

impl Mention {
    /// `one` and `un`, which say little.
    pub(super) fn is_one(&self) -> bool {
        matches!(self.value, MentionValue::Number { is_weak: true, .. })
    }
}

/// The mentions of a text in order. They do not overlap, but for the two ends of a range. `is_filler` marks greetings.
pub(super) fn mentions(words: &TextWords<'_>, is_filler: &[bool]) -> Vec<Mention> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() && found.len() < MENTIONS_MAX {
        let Some((value, end)) = mention_at(words, at).filter(|_| !is_filler[at]) else {
            at += 1;
            continue;
        };
        let end = end.max(at + 1).min(words.len());
        let span = words.tokens[at].span.to(words.tokens[end - 1].span);
        let (tokens, noun) = ((at, end), counted(words, end));
        match range_parts(&words.tokens[at], value) {
            Some(parts) => found.extend(parts.map(|value| Mention { value, span, tokens, noun })),
            None => found.push(Mention { value, span, tokens, noun }),
        }
        at = end;
    }
    found
}

/// The stem of what a number before a place counts: `item` of `one single item`.
fn counted(words: &TextWords<'_>, at: usize) -> WordKey {
    let is_between = words.is_in(at, WordList::Quantifiers) || words.is_in(at, WordList::FunctionWords);
    words.get(at + usize::from(is_between)).map_or(0, |token| token.stem)
}

fn mention_at(words: &TextWords<'_>, at: usize) -> Option<(MentionValue, usize)> {
    let token = words.get(at)?;
    if token.form == TokenForm::Code {
        return Some((code(&token.word), at + 1));
    }
    if let Some((date, end)) = date_at(words, at) {
        return Some((MentionValue::Date(date), end));
    }
    if let Some((time, end)) = time_at(words, at) {
        return Some((MentionValue::Time(time), end));
    }
    if let Some(ordinal) = ordinal_at(words, at) {
        return Some(ordinal);
    }
    if let Some(identifier) = identifier(token) {
        return Some((identifier, at + 1));
    }
    if let Some(measure) = measure_at(words, at) {
        let value =
            MentionValue::Measure { value: measure.value, unit: measure.unit, is_weak: measure.is_weak };
        return Some((value, measure.end));
    }
    if let Some(number) = number_at(words, at) {
        return Some((plain_number(words, at, number), number.end));
    }
    if token.form == TokenForm::Digits {
        return Some((dotted_number(&token.word), at + 1));
    }
    unit_at(words, at).map(|(unit, end)| (MentionValue::Unit(unit), end))
}

/// `2nd`, `3.er`, `tercera`.
fn ordinal_at(words: &TextWords<'_>, at: usize) -> Option<(MentionValue, usize)> {
    let token = words.get(at)?;
    if token.form == TokenForm::Word {
        let is_part = words.is_one_of(at + 1, &["de"]) && words.word(at) == "cuarto";
        let number = words.number_in(at, WordList::Ordinals).filter(|_| !is_part)?;
        return Some((MentionValue::Ordinal(number as u32), at + 1));
    }
    let is_number = token.form == TokenForm::Digits && token.word.len() <= 4;
    let ending = words.get(at + 1).filter(|ending| is_number && ending.is_glued)?;
    let is_ending = matches!(
        ending.word.as_str(),
        "st" | "nd" | "rd" | "th" | "º" | "ª" | "er" | "ero" | "era" | "o" | "a" | "do" | "da"
    );
    let value = token.word.parse().ok().filter(|_| is_ending)?;
    Some((MentionValue::Ordinal(value), at + 2))
}

/// Digits that name something: long ones, and those with leading zeros or dashes.
fn identifier(token: &Token) -> Option<MentionValue> {
    let digits = token.word.as_str();
    if token.form != TokenForm::Digits {
        return None;
    }
    let is_plain = digits.bytes().all(|b| b.is_ascii_digit());
    let is_long = is_plain && digits.len() >= 7 && !digits.ends_with("000");
    let is_padded = is_plain && digits.len() >= 3 && digits.starts_with('0');
    let is_years =
        digits.len() == 9 && digits.split('-').all(|year| year.len() == 4 && year.starts_with(['1', '2']));
    let is_dashed = digits.contains('-') && !is_years && digits.split('-').any(|group| group.len() >= 3);
    (is_long || is_padded || is_dashed).then(|| code(digits))
}

fn code(word: &str) -> MentionValue {
    let letters: String = word.chars().filter(|c| c.is_alphanumeric()).collect();
    MentionValue::Code { key: word_key(&letters), is_short: letters.len() < 4 }
}

fn plain_number(words: &TextWords<'_>, at: usize, number: ReadNumber) -> MentionValue {
    let is_version = number.end == at + 1 && number.digits != 0 && at > 0 && is_versioned(words, at - 1);
    MentionValue::Number { value: number.value, digits: number.digits, is_version, is_weak: number.is_weak }
}

/// Whether a number after this word is a version or a model: `version 2`, `Windows 11`.
fn is_versioned(words: &TextWords<'_>, at: usize) -> bool {
    let token = &words.tokens[at];
    let is_name = token.is_capitalized && !token.is_first && token.form == TokenForm::Word;
    words.is_in(at, WordList::VersionWords) || is_name && !words.is_in(at, WordList::FunctionWords)
}

/// `1.2.3`, and what else digits and separators can be.
fn dotted_number(digits: &str) -> MentionValue {
    MentionValue::Number { value: f64::NAN, digits: word_key(digits), is_version: true, is_weak: false }
}

/// The two numbers of `2-3`.
fn range_parts(token: &Token, value: MentionValue) -> Option<impl Iterator<Item = MentionValue>> {
    let is_dotted = matches!(value, MentionValue::Number { value, .. } if value.is_nan());
    let (from, to) = token.word.split_once('-').filter(|_| is_dotted)?;
    let (from, to): (f64, f64) = (from.parse().ok()?, to.parse().ok()?);
    let number = |value| MentionValue::Number { value, digits: 0, is_version: false, is_weak: false };
    Some([from, to].into_iter().map(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::lexicon::Lexicon;

    fn values(text: &str) -> Vec<MentionValue> {
        let lexicon = Lexicon::builtin();
        let words = TextWords::read(&lexicon, text);
        mentions(&words, &vec![false; words.len()]).into_iter().map(|mention| mention.value).collect()
    }

    #[test]
    fn codes_and_long_digits_are_identifiers() {
        for text in
            ["order 4471-2093", "order 113542617735902", "error E-104", "parcel RT40482FR", "code 00123842"]
        {
            assert!(matches!(values(text)[..], [MentionValue::Code { is_short: false, .. }]), "{text}");
        }
        assert_eq!(values("order #4471"), values("order #4471."));
        assert_ne!(values("error E-104"), values("error E-140"));
        assert!(matches!(values("send 1000000 of them")[..], [MentionValue::Number { .. }]));
    }

    #[test]
    fn versions_compare_as_they_are_written() {
        for (text, is_version) in [
            ("python 3.10 is out", true),
            ("on Windows 11", true),
            ("with v2.4 of the plugin", true),
            ("with release 1.2.3 of it", true),
            ("buy 3 apples", false),
        ] {
            let found = values(text);
            assert!(
                matches!(found[..], [MentionValue::Number { is_version: v, .. }] if v == is_version),
                "{text} {found:?}"
            );
        }
    }

    #[test]
    fn ordinals_in_digits_and_words() {
        for text in [
            "the 3rd payment",
            "the third payment",
            "el 3.er plazo",
            "el tercer plazo",
            "la 3ª cuota",
            "el 3º plazo",
        ] {
            assert_eq!(values(text), [MentionValue::Ordinal(3)], "{text}");
        }
    }
}
