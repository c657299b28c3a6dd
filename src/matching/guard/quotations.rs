//! Quoted texts.

use super::folding::{WordKey, fold, word_key};
use super::tokens::Span;

/// How many quotations of one text are compared.
const QUOTATIONS_MAX: usize = 8;
/// The opening marks with their closing ones.
const MARKS: [(char, char); 4] = [('"', '"'), ('“', '”'), ('«', '»'), ('`', '`')];

/// A quoted text by the key of its folded words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quotation {
    pub(super) key: WordKey,
    pub(super) span: Span,
}

/// The quotations of a text.
pub(super) fn quotations(text: &str) -> Vec<Quotation> {
    let mut found = Vec::new();
    let mut at = 0;
    while found.len() < QUOTATIONS_MAX {
        let Some((start, open, close)) = next_mark(text, at) else { break };
        let inner = start + open.len_utf8();
        let Some(len) = text[inner..].find(close) else {
            at = inner;
            continue;
        };
        // Inches are no quotation: `a 13" screen`.
        let is_inches = text[..start].ends_with(|c: char| c.is_ascii_digit());
        let words: Vec<String> = text[inner..inner + len].split_whitespace().map(fold).collect();
        if is_inches || words.is_empty() {
            at = inner;
            continue;
        }
        let trimmed = words.join(" ");
        let key = word_key(trimmed.trim_matches(|c: char| !c.is_alphanumeric()));
        found.push(Quotation { key, span: Span::new(inner, inner + len) });
        at = inner + len + close.len_utf8();
    }
    found
}

fn next_mark(text: &str, from: usize) -> Option<(usize, char, char)> {
    let (at, open) = text[from..].char_indices().find(|(_, c)| MARKS.iter().any(|(open, _)| open == c))?;
    let (_, close) = MARKS.iter().find(|(mark, _)| *mark == open)?;
    Some((from + at, open, *close))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_texts_are_found() {
        let quoted = |text: &str| -> Vec<String> {
            quotations(text).iter().map(|quotation| quotation.span.of(text).to_owned()).collect()
        };
        assert_eq!(quoted("what does \"broken pipe\" mean, and `x = 1`?"), ["broken pipe", "x = 1"]);
        assert_eq!(quoted("qué significa «Ya Está»"), ["Ya Está"]);
        assert!(quoted("a 13\" screen or a 15\" one, and \"").is_empty());
        assert_eq!(quotations("\"A b\"")[0].key, quotations("“a  b.”")[0].key);
    }
}
