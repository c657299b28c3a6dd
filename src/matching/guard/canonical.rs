//! One way to write a question: what a model that compares two questions reads.

use super::fillers::fillers;
use super::language::Language;
use super::lexicon::{Lexicon, Phrase};
use super::mentions::{Mention, MentionValue, mentions};
use super::tokens::{Token, cut};
use super::units::UnitOfMeasure;
use super::word_list::WordList;
use super::words::TextWords;

/// How often a text is written again at most. What is written the first time may be read once more in another way: `a dos mil`.
const ROUNDS_MAX: usize = 6;

/// A question in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalQuestion {
    /// Its words and values, one space between them.
    pub text: String,
    /// The language in which it was read.
    pub language: Language,
}

/// The canonical form of a text, as a text of `language`. Writing a canonical form again returns it.
pub(super) fn canonical_text(lexicon: &Lexicon, language: Language, text: &str) -> String {
    let mut written = write(lexicon, language, text);
    for _ in 1..ROUNDS_MAX {
        let again = write(lexicon, language, &written);
        if again == written {
            break;
        }
        written = again;
    }
    written
}

fn write(lexicon: &Lexicon, language: Language, text: &str) -> String {
    let words = TextWords::read_as(lexicon, language, cut(text));
    let is_filler = fillers(&words);
    let mentions = mentions(&words, &is_filler);
    let mut written = String::with_capacity(text.len());
    let mut at = 0;
    while at < words.len() {
        let here: Vec<&Mention> = mentions.iter().filter(|mention| mention.tokens.0 == at).collect();
        let Some(first) = here.first() else {
            if !is_filler[at] {
                push(&mut written, words.word(at));
            }
            at += 1;
            continue;
        };
        here.iter().for_each(|mention| push(&mut written, &value(lexicon, &words, mention)));
        at = first.tokens.1;
    }
    written
}

fn push(written: &mut String, part: &str) {
    if !written.is_empty() && !part.is_empty() {
        written.push(' ');
    }
    written.push_str(part);
}

/// A mention in its one form.
fn value(lexicon: &Lexicon, words: &TextWords<'_>, mention: &Mention) -> String {
    let token = &words.tokens[mention.tokens.0];
    match mention.value {
        MentionValue::Number { value, is_version, .. } if is_version || value.is_nan() => token.word.clone(),
        MentionValue::Number { value, .. } => decimal(value),
        MentionValue::Measure { value, unit, .. } => measure(lexicon, value, unit),
        MentionValue::Unit(unit) => unit_word(lexicon, unit).unwrap_or_else(|| raw(words, mention)),
        MentionValue::Ordinal(1) => raw(words, mention),
        MentionValue::Ordinal(place) => format!("{place}th"),
        MentionValue::Time(time) => time.canonical(),
        MentionValue::Date(date) => date.canonical(),
        MentionValue::Code { .. } => code(token),
    }
}

fn code(token: &Token) -> String {
    token.word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
}

fn raw(words: &TextWords<'_>, mention: &Mention) -> String {
    let tokens = &words.tokens[mention.tokens.0..mention.tokens.1];
    tokens.iter().map(|token| token.word.as_str()).collect::<Vec<_>>().join(" ")
}

/// A value of a dimension in its base unit, such as `1500 g`.
fn measure(lexicon: &Lexicon, value: f64, unit: UnitOfMeasure) -> String {
    let base = base_unit(lexicon, unit).map_or("", |phrase| &*phrase.words);
    format!("{} {base}", decimal(value)).trim_end().to_owned()
}

fn base_unit(lexicon: &Lexicon, unit: UnitOfMeasure) -> Option<&Phrase> {
    let units = |list| {
        Language::ALL.iter().find_map(move |&language| {
            let phrases = lexicon.phrases(language, unit.dimension);
            phrases.iter().find(|phrase| {
                phrase.list == list && phrase.rest.is_empty() && phrase.value == unit.dimension
            })
        })
    };
    units(WordList::Units).or_else(|| units(WordList::UnitSuffixes))
}

/// The word for a unit alone, if it is the base of its dimension.
fn unit_word(lexicon: &Lexicon, unit: UnitOfMeasure) -> Option<String> {
    let base =
        base_unit(lexicon, unit).filter(|phrase| phrase.list == WordList::Units && unit.factor == 1.0)?;
    Some(base.words.to_string())
}

/// A number without superfluous digits, and without an exponent.
fn decimal(value: f64) -> String {
    let text = format!("{value:.6}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short.is_empty() || short == "-0" { "0".to_owned() } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let lexicon = Lexicon::builtin();
        let language = TextWords::read(&lexicon, text).language;
        canonical_text(&lexicon, language, text)
    }

    #[test]
    fn forms_of_one_value_are_one() {
        for (one, two) in [
            ("Can I bring two bags?", "can I bring 2 bags"),
            ("Is 5 kg allowed?", "is 5,000 g allowed"),
            ("On 3 May, is it open?", "on 03/05 is it open"),
            ("Is it open at 2 pm?", "Is it open at 14:00?"),
            ("Does 20% apply?", "does twenty percent apply"),
            ("¿Puedo llevar dos maletas?", "puedo llevar 2 maletas"),
            ("Hello! It doesn't work.", "it does not work"),
            ("Need info about it", "need information about it"),
        ] {
            assert_eq!(canonical(one), canonical(two));
        }
        assert_eq!(
            canonical("Is   the FLIGHT on 3 May at 2pm $20?"),
            "is the flight on 3 may at 14:00 20 usd"
        );
    }

    #[test]
    fn it_is_written_once() {
        for text in [
            "a dos mil",
            "two 000",
            "USD500",
            "3 May May 3",
            "v2.4 1.2.3",
            "1st 2nd",
            "half a kilo",
            "20 % percent",
        ] {
            let lexicon = Lexicon::builtin();
            let once = canonical_text(&lexicon, Language::English, text);
            assert_eq!(canonical_text(&lexicon, Language::English, &once), once, "{text}");
        }
    }
}
