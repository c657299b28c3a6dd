//! Numbers with units, in the base unit of their dimension.

use super::folding::{WordKey, word_key};
use super::language::Language;
use super::lexicon::Phrase;
use super::numbers::{ReadNumber, number_at};
use super::tokens::TokenForm;
use super::word_list::WordList;
use super::words::TextWords;

/// A unit: its dimension, named by the base unit, and how many base units it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct UnitOfMeasure {
    pub(super) dimension: WordKey,
    pub(super) factor: f64,
}

/// A number with its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measure {
    /// In base units.
    pub(super) value: f64,
    pub(super) unit: UnitOfMeasure,
    pub(super) is_weak: bool,
    /// The place after its last token.
    pub(super) end: usize,
}

/// Pounds are a currency and a weight, and questions seldom say which.
const POUND: &str = "pound";
const STERLING: &str = "gbp";

impl UnitOfMeasure {
    fn of(phrase: &Phrase) -> UnitOfMeasure {
        UnitOfMeasure { dimension: phrase.value, factor: phrase.number }
    }

    /// Whether values in both units can be compared.
    pub(super) fn is_comparable(self, other: UnitOfMeasure) -> bool {
        let (pound, sterling) = (word_key(POUND), word_key(STERLING));
        let is_pound = |unit: UnitOfMeasure| unit.dimension == pound || unit.dimension == sterling;
        self.dimension == other.dimension
            || is_pound(self) && is_pound(other) && (self.dimension == pound || other.dimension == pound)
    }
}

/// Whether two values are the same up to rounding.
pub(super) fn is_same_value(one: f64, two: f64) -> bool {
    (one - two).abs() <= 1e-6 * one.abs().max(two.abs())
}

/// The measure that begins at a place: `5 kg`, `$ 20`, `half an hour`, `dos horas y media`, `un año`.
pub(super) fn measure_at(words: &TextWords<'_>, at: usize) -> Option<Measure> {
    half_at(words, at).or_else(|| with_sign_before(words, at)).or_else(|| with_unit_after(words, at))
}

/// The unit that begins at a place, without a number.
pub(super) fn unit_at(words: &TextWords<'_>, at: usize) -> Option<(UnitOfMeasure, usize)> {
    let (phrase, len) = words.phrase_in(at, WordList::Units)?;
    Some((UnitOfMeasure::of(phrase), at + len))
}

fn half_at(words: &TextWords<'_>, at: usize) -> Option<Measure> {
    if !words.is_one_of(at, &["half", "medio", "media"]) {
        return None;
    }
    let start = at + 1 + usize::from(words.is_one_of(at + 1, &["a", "an"]));
    let (unit, end) = unit_at(words, start)?;
    Some(Measure { value: 0.5 * unit.factor, unit, is_weak: false, end })
}

/// `$20`, `€ 1.5k`, `US$500`, `EUR 500`.
fn with_sign_before(words: &TextWords<'_>, at: usize) -> Option<Measure> {
    let is_glued_sign = words.word(at) == "us" && words.word(at + 1) == "$";
    let sign = at + usize::from(is_glued_sign);
    let token = words.get(sign)?;
    let is_sign = token.form == TokenForm::Symbol && !matches!(token.word.as_str(), "%" | "°");
    let is_letters =
        matches!(token.word.as_str(), "usd" | "eur" | "gbp" | "jpy" | "chf" | "mxn" | "inr" | "rs");
    if !is_sign && !is_letters {
        return None;
    }
    let unit = UnitOfMeasure::of(words.phrase_in(sign, WordList::Units)?.0);
    let number = number_at(words, sign + 1).filter(|number| number.digits != 0 || number.end > sign + 2)?;
    // `$20 dollars`, `$20 million`
    let end =
        unit_at(words, number.end).filter(|(after, _)| *after == unit).map_or(number.end, |(_, end)| end);
    Some(Measure { value: number.value * unit.factor, unit, is_weak: false, end })
}

fn with_unit_after(words: &TextWords<'_>, at: usize) -> Option<Measure> {
    let number = number_at(words, at).or_else(|| article(words, at))?;
    let (number, more) = and_a_half(words, number);
    let (unit, end) = unit_after_number(words, number.end)?;
    let (more, end) = if more == 0.0 { half_after_unit(words, end) } else { (more, end) };
    let value = (number.value + more) * unit.factor;
    Some(Measure { value, unit, is_weak: number.is_weak && more == 0.0, end })
}

/// `a week`, `un mes`, `una hora`: one, and little said by it.
fn article(words: &TextWords<'_>, at: usize) -> Option<ReadNumber> {
    let articles = match words.language {
        Language::English => ["a", "an"],
        Language::Spanish => ["un", "una"],
    };
    let is_article = words.is_one_of(at, &articles) && !words.word(at + 1).ends_with('s');
    is_article.then_some(ReadNumber { value: 1.0, digits: 0, is_weak: true, end: at + 1 })
}

/// `two and a half hours`, `2 y medio kilos`.
fn and_a_half(words: &TextWords<'_>, number: ReadNumber) -> (ReadNumber, f64) {
    let at = number.end;
    let len = match (words.word(at), words.word(at + 1), words.word(at + 2)) {
        ("and", "a", "half") => 3,
        ("y", "medio" | "media", _) => 2,
        _ => return (number, 0.0),
    };
    (ReadNumber { end: at + len, ..number }, 0.5)
}

/// `dos horas y media`, `an hour and a half`.
fn half_after_unit(words: &TextWords<'_>, at: usize) -> (f64, usize) {
    match (words.word(at), words.word(at + 1), words.word(at + 2)) {
        ("and", "a", "half") => (0.5, at + 3),
        ("y", "medio" | "media", _) => (0.5, at + 2),
        _ => (0.0, at),
    }
}

fn unit_after_number(words: &TextWords<'_>, at: usize) -> Option<(UnitOfMeasure, usize)> {
    if words.get(at)?.is_after_break && !words.get(at)?.is_glued {
        return None;
    }
    if let Some((phrase, len)) = words.phrase_in(at, WordList::Units) {
        return Some((UnitOfMeasure::of(phrase), at + len));
    }
    // `2 de los kilos` is rare, `50 millones de euros` is not.
    if words.word(at) == "de"
        && let Some((phrase, len)) = words.phrase_in(at + 1, WordList::Units)
    {
        return Some((UnitOfMeasure::of(phrase), at + 1 + len));
    }
    let (phrase, len) = words.phrase_in(at, WordList::UnitSuffixes)?;
    let is_digits = at > 0 && words.get(at - 1)?.form == TokenForm::Digits;
    let is_other_word = words.is_in(at, WordList::FunctionWords);
    (is_digits && (words.get(at)?.is_glued || !is_other_word))
        .then_some((UnitOfMeasure::of(phrase), at + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::lexicon::Lexicon;

    fn measure(text: &str) -> Option<Measure> {
        let lexicon = Lexicon::builtin();
        let words = TextWords::read(&lexicon, text);
        (0..words.len()).find_map(|at| measure_at(&words, at))
    }

    #[test]
    fn measures_in_other_words_are_equal() {
        for (one, two) in [
            ("weighs 1.5 kg", "weighs 1500 g"),
            ("weighs 1,5 kilos", "weighs 1500 grams"),
            ("weighs two and a half kilos", "pesa dos kilos y medio"),
            ("costs $20", "costs 20 dollars"),
            ("costs US$ 20", "costs 20 USD"),
            ("cuesta 500 €", "cuesta quinientos euros"),
            ("cuesta 2 millones de euros", "costs 2,000,000 euros"),
            ("costs £5", "costs five pounds"),
            ("gets 20 %", "gets 20 percent"),
            ("gets 20 per cent", "sale el veinte por ciento"),
            ("for half an hour", "for 30 minutes"),
            ("for 2 weeks", "for 14 days"),
            ("for an hour and a half", "for 90 min"),
            ("por un año", "for 12 months"),
            ("with 128GB", "con 128 gigas"),
            ("a 13-inch screen", "una pantalla de 13 pulgadas"),
            ("is 1.8 m tall", "is 180 cm tall"),
        ] {
            let (one_measure, two_measure) = (measure(one).expect(one), measure(two).expect(two));
            assert!(
                is_same_value(one_measure.value, two_measure.value),
                "{one} / {two} {one_measure:?} {two_measure:?}"
            );
            assert!(one_measure.unit.is_comparable(two_measure.unit), "{one} / {two}");
        }
        for text in ["it costs 20", "in 2 in the shop", "en la semana", "me, I am 5"] {
            assert_eq!(measure(text), None, "{text}");
        }
    }

    #[test]
    fn units_of_other_dimensions_are_not_comparable() {
        for (one, two) in
            [("5 kg", "5 euros"), ("5 euros", "5 dollars"), ("5 pounds", "5 kilos"), ("5 months", "5 days")]
        {
            let (one, two) = (measure(one).unwrap(), measure(two).unwrap());
            assert!(!one.unit.is_comparable(two.unit), "{one:?} {two:?}");
        }
    }
}
