//! Signs of code and arithmetic, apart from the marks of prose.

use super::conflict::Strength;
use super::folding::{WordKey, word_key};
use super::tokens::Span;

/// How many signs of one text are compared. Texts with more conflict with all others.
pub(super) const SIGNS_MAX: usize = 32;
/// Signs that change the value of a number.
const VALUE_SIGNS: &str = "²³½¼¾×÷±";
const DASHES: &str = "-−–—";
const BRACKETS: &str = "()[]";
/// Marks of prose before a word.
const MARKS_BEFORE: &str = "(['\"";
/// Marks of prose behind a word.
const MARKS_BEHIND: &str = ".,;:?!)]'\"";

/// A run of signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) key: WordKey,
    pub(super) span: Span,
    /// How much it says that the other text has no sign here.
    pub(super) strength_if_unmatched: Strength,
}

/// The signs of a text in order, runs of them as one. Brackets are signs beside those of arithmetic.
pub(super) fn signs(text: &str) -> Vec<Sign> {
    let found = signs_of(text, false);
    let is_arithmetic = |sign: &Sign| sign.span.of(text).contains(['+', '*', '/', '^', '=', '<', '>', '-']);
    if found.iter().any(is_arithmetic) { signs_of(text, true) } else { found }
}

fn signs_of(text: &str, with_brackets: bool) -> Vec<Sign> {
    let mut found = Vec::new();
    for chunk in text.split_whitespace() {
        // A chunk is a part of the text: its place is the distance of the two.
        let start = chunk.as_ptr() as usize - text.as_ptr() as usize;
        let mut at = 0;
        while let Some(from) = chunk[at..].find(is_sign).map(|offset| at + offset) {
            let len = chunk[from..].find(|c| !is_sign(c)).unwrap_or(chunk.len() - from);
            let run = SignRun::new(chunk, from, from + len, with_brackets);
            if let Some(strength) = run.strength_if_unmatched() {
                let span = Span::new(start + run.start, start + run.end);
                let key = word_key(&format!("{}{}", run.sign(), run.side()));
                found.push(Sign { key, span, strength_if_unmatched: strength });
            }
            at = from + len;
        }
        if found.len() >= SIGNS_MAX {
            found.truncate(SIGNS_MAX);
            break;
        }
    }
    found
}

/// Signs of prose, code and arithmetic. Currencies and percents are units.
fn is_sign(c: char) -> bool {
    c.is_ascii_punctuation() && !"$%_`".contains(c) || DASHES.contains(c) || VALUE_SIGNS.contains(c)
}

/// A run of signs in a chunk of text without spaces, without the marks of prose before and behind it.
struct SignRun<'a> {
    chunk: &'a str,
    start: usize,
    end: usize,
    /// It is the whole chunk.
    is_alone: bool,
    with_brackets: bool,
}

impl<'a> SignRun<'a> {
    fn new(chunk: &'a str, start: usize, end: usize, with_brackets: bool) -> SignRun<'a> {
        let is_alone = start == 0 && end == chunk.len();
        let mut run = SignRun { chunk, start, end, is_alone, with_brackets };
        let is_mark = |marks: &str, c: char| marks.contains(c) && !(with_brackets && BRACKETS.contains(c));
        if !is_alone && start == 0 {
            let kept = run.sign().trim_start_matches(|c| is_mark(MARKS_BEFORE, c));
            run.start = run.end - kept.len();
        }
        if !is_alone && end == chunk.len() {
            let kept = run.sign().trim_end_matches(|c| is_mark(MARKS_BEHIND, c));
            run.end = run.start + kept.len();
        }
        run
    }

    fn sign(&self) -> &'a str {
        &self.chunk[self.start..self.end]
    }

    /// The character right before it, unless that is a sign too.
    fn word_before(&self) -> Option<char> {
        self.chunk[..self.start].chars().next_back().filter(|c| !is_sign(*c))
    }

    /// The character right after it, unless that is a sign too.
    fn word_after(&self) -> Option<char> {
        self.chunk[self.end..].chars().next().filter(|c| !is_sign(*c))
    }

    /// On which side of a word it stands: `i++`, `++i`.
    fn side(&self) -> u8 {
        match (self.word_before().is_some(), self.word_after().is_some()) {
            (true, false) => 1,
            (false, true) => 2,
            (true, true) | (false, false) => 0,
        }
    }

    /// How much it says that the other text has no sign here. `None` for marks of prose.
    fn strength_if_unmatched(&self) -> Option<Strength> {
        let sign = self.sign();
        let is_dash = sign.chars().count() == 1 && sign.chars().all(|c| DASHES.contains(c));
        let is_arrow = sign.ends_with('>') && sign.chars().next().is_some_and(|c| DASHES.contains(c));
        if sign.is_empty() || is_arrow {
            return None;
        }
        if sign.contains(|c| VALUE_SIGNS.contains(c)) {
            return Some(Strength::Certain);
        }
        let (before, after) = (self.word_before(), self.word_after());
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        if self.is_alone {
            let is_prose =
                matches!(sign, "&" | "?!") || sign.len() > 2 && sign.chars().all(|c| ".?!".contains(c));
            let is_emoticon = sign.len() > 1 && sign.starts_with([':', ';']) && sign.ends_with([')', '(']);
            let is_weak = is_dash || is_emoticon || matches!(sign, "/" | "." | "," | ";" | ":" | "?" | "!");
            return (!is_prose).then_some(if is_weak { Strength::Weak } else { Strength::Strong });
        }
        match (before, after) {
            (Some(_), Some(_)) => {
                let is_joint = sign.chars().count() == 1 && ("'.,:;?!/&@(".contains(sign) || is_dash);
                (!is_joint || self.with_brackets && sign == "(").then_some(Strength::Strong)
            }
            // `-5`, `-.5`
            (None, Some(_)) if is_digit(after) && sign.starts_with(|c| DASHES.contains(c)) => {
                Some(Strength::Certain)
            }
            // `.5`, `#12`, `@me`
            (None, Some(_)) if is_digit(after) && matches!(sign, "." | "#") || sign == "@" => None,
            // `C#`, `C++`
            (Some(_), None) if sign == "#" || sign == "++" => Some(Strength::Certain),
            (Some(_), None) if is_dash || sign == "/" => Some(Strength::Weak),
            _ => Some(Strength::Strong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_read_and_marks_of_prose_are_not() {
        let found = |text: &str| -> Vec<(String, Strength)> {
            signs(text)
                .iter()
                .map(|sign| (sign.span.of(text).to_owned(), sign.strength_if_unmatched))
                .collect()
        };
        use Strength::{Certain, Strong, Weak};
        let cases: [(&str, &[(&str, Strength)]); 12] = [
            ("Is a <= b, or a<b?", &[("<=", Strong), ("<", Strong)]),
            ("At -5 or -.5 degrees, .5 or #12", &[("-", Certain), ("-.", Certain)]),
            ("C#, and C++.", &[("#", Certain), ("++", Certain)]),
            ("1½ - 2 m²", &[("½", Certain), ("-", Weak), ("²", Certain)]),
            ("Sad :( or a != b && c", &[(":(", Weak), ("!=", Strong), ("&&", Strong)]),
            ("Menu -> Copy; well-known (it's), e-mail: R&D, 3-5 and 24/7...", &[]),
            ("¿Qué?! \"No\" #12 @me 5% $3 ... R & D", &[]),
            ("(2 + 3) * 4", &[("(", Strong), ("+", Strong), (")", Strong), ("*", Strong)]),
            (
                "./tmp, ../src /tmp .env ~/x",
                &[("./", Strong), ("../", Strong), ("/", Strong), (".", Strong), ("~/", Strong)],
            ),
            (
                "i++ or ++i; &x std::move f'(x)",
                &[
                    ("++", Certain),
                    ("++", Strong),
                    ("&", Strong),
                    ("::", Strong),
                    ("'(", Strong),
                    (")", Strong),
                ],
            ),
            ("", &[]),
            ("-", &[("-", Weak)]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(sign, alone)| ((*sign).to_owned(), *alone)).collect();
            assert_eq!(found(text), expected, "{text}");
        }
    }
}
