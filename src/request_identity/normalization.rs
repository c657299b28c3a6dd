//! The normalization of a question: equal for questions that share an identity.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

use super::composition::{COMBINING_MIN, QUESTION_BYTES_MAX, is_itself_composed};
use super::json::Json;
use super::normalize::normalize_within;

/// Which differences between questions are ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Normalization {
    /// Unicode composition, and the whitespace around a question.
    #[default]
    Minimal,
    /// Also differences that closed lists of words show to be without meaning.
    WordLists,
}

/// A normalized question. Those of different rules never share an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NormalizedQuestion {
    /// Letters composed, no whitespace around them.
    Minimal(String),
    /// Normalized by the closed lists.
    WordLists(String),
}

impl NormalizedQuestion {
    /// Normalizes a question within a scope. `None` if it is compared by its bytes.
    pub fn within(
        scope: &Json<'_>,
        question: &str,
        normalization: Normalization,
    ) -> Option<NormalizedQuestion> {
        let by_lists = match normalization {
            Normalization::Minimal => None,
            Normalization::WordLists => normalize_within(scope, question).map(NormalizedQuestion::WordLists),
        };
        by_lists.or_else(|| composed(question).map(|form| NormalizedQuestion::Minimal(form.into_owned())))
    }
}

/// A text with its letters composed (Unicode NFC) and without the white space around it. A text with letters that NFC makes
/// other ones, as it does with the sign of Ohm, is left as it is: the question may be about them. `None` for an empty or too long
/// text.
fn composed(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.trim();
    if inner.is_empty() || text.len() > QUESTION_BYTES_MAX {
        return None;
    }
    let is_composed = inner.chars().all(|c| c < COMBINING_MIN);
    if is_composed || !inner.chars().all(is_itself_composed) {
        return Some(Cow::Borrowed(inner));
    }
    Some(inner.nfc().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(question: &str) -> Option<NormalizedQuestion> {
        NormalizedQuestion::within(&Json::Null, question, Normalization::Minimal)
    }

    #[test]
    fn composition_and_surrounding_space_join() {
        for (one, two) in [
            ("What is it?", "  What is it?\n"),
            ("What is it?", "\u{3000}\tWhat is it?\u{a0}\r\n"),
            ("¿Cómo?", "¿Co\u{301}mo?"),
            ("한국", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}"),
            ("if a:\n    b", "\nif a:\n    b\n"),
        ] {
            assert_eq!(form(one).unwrap(), form(two).unwrap(), "{one:?} / {two:?}");
        }
    }

    #[test]
    fn nothing_else_does() {
        for (one, two) in [
            ("What is it?", "what is it?"),
            ("What is it?", "What is it"),
            ("What is it.", "What is it"),
            ("What's it?", "What’s it?"),
            ("What is it?", "What is  it?"),
            ("What is it?", "What is\u{a0}it?"),
            ("What is it?", "What is\nit?"),
            ("What is it?", "What is it ?"),
            ("¿Qué es?", "Qué es?"),
            ("Ω", "\u{2126}"),
            ("K", "\u{212a}"),
            ("豈", "\u{f900}"),
            ("ﬁn", "fin"),
            ("Straße", "Strasse"),
            ("１", "1"),
            ("a\u{200b}", "a"),
            ("\u{feff}a", "a"),
            ("cuántos años", "cuantos anos"),
        ] {
            assert_ne!(form(one), form(two), "{one:?} / {two:?}");
        }
    }

    #[test]
    fn nothing_and_long_texts_have_no_form() {
        for text in ["", " \n", &"a".repeat(QUESTION_BYTES_MAX + 1)] {
            assert_eq!(form(text), None, "{text:.8}");
        }
    }

    #[test]
    fn normalized_forms_are_of_their_own_kind_and_leave_the_rest_composed() {
        let normalized = |text: &str| NormalizedQuestion::within(&Json::Null, text, Normalization::WordLists);
        assert_eq!(normalized("What is it?"), normalized("what is it"));
        assert_ne!(normalized("what is it?"), form("what is it?"));
        assert_eq!(normalized(" x = 1 "), form("x = 1"));
    }
}
