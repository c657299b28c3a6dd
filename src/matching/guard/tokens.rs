//! Tokens: words, numbers, codes and symbols with their places in the text.

use super::folding::{WordKey, fold_into, word_key};

/// The longest text that is looked at, in characters. Longer ones are cut.
pub(super) const TEXT_CHARS_MAX: usize = 1_000;

/// A part of a text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) start: u16,
    pub(super) end: u16,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Span {
        let limit = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        Span { start: limit(start), end: limit(end) }
    }

    /// The text between the start of this span and the end of another.
    pub(super) fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    pub(super) fn of(self, text: &str) -> &str {
        text.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }
}

/// What a token consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenForm {
    /// Letters, with apostrophes inside.
    Word,
    /// Digits, with separators inside.
    Digits,
    /// Letters and digits, or what else looks like an identifier.
    Code,
    /// A sign of a currency, percent or degrees.
    Symbol,
}

/// A token.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// The folded text.
    pub(super) word: String,
    pub(super) key: WordKey,
    /// The key of the word's stem; that of the word until the language is known.
    pub(super) stem: WordKey,
    pub(super) span: Span,
    pub(super) form: TokenForm,
    /// No space or punctuation between this token and the one before it.
    pub(super) is_glued: bool,
    /// Punctuation stands between this token and the one before it.
    pub(super) is_after_break: bool,
    /// Begins a sentence or a quotation.
    pub(super) is_first: bool,
    /// Has a capital letter where words of a sentence have none.
    pub(super) is_capitalized: bool,
    /// Two capital letters or more and no small one.
    pub(super) is_upper: bool,
}

/// The start of a text that is looked at.
pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(TEXT_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

/// The tokens of a text of at most [`TEXT_CHARS_MAX`] characters.
pub(super) fn tokenize(text: &str) -> Vec<Token> {
    let mut scanner = TokenScanner { text, tokens: Vec::new(), is_first: true, is_after_break: false };
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (c.is_whitespace(), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                scanner.chunk(from, at);
                start = None;
            }
            (false, Some(_)) | (true, None) => {}
        }
    }
    if let Some(from) = start {
        scanner.chunk(from, text.len());
    }
    scanner.tokens
}

struct TokenScanner<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    is_first: bool,
    is_after_break: bool,
}

impl TokenScanner<'_> {
    /// Reads what stands between two spaces.
    fn chunk(&mut self, start: usize, end: usize) {
        let chunk = &self.text[start..end];
        if is_dotted_abbreviation(chunk) {
            let letters: String = chunk.chars().filter(|&c| c != '.').collect();
            return self.push(&letters, start, end, TokenForm::Word, false);
        }
        let is_edge = |c: char| !c.is_alphanumeric() && !"$€£¥%#_º°ª-<>/=+".contains(c);
        let trimmed = chunk.trim_start_matches(is_edge);
        let start_mark = usize::from(is_decimal_fraction(&chunk[..chunk.len() - trimmed.len()], trimmed));
        let inner = chunk[chunk.len() - trimmed.len() - start_mark..].trim_end_matches(is_edge);
        let inner = inner.strip_suffix(['-', '/', '>', '=']).unwrap_or(inner);
        let lead = chunk.find(inner).unwrap_or(0);
        let is_call = chunk[lead + inner.len()..].starts_with("()");
        self.punctuation(&chunk[..lead]);
        if is_call || is_code(inner) {
            self.push(inner, start + lead, start + lead + inner.len(), TokenForm::Code, false);
        } else {
            self.parts(start + lead, start + lead + inner.len());
        }
        self.punctuation(&chunk[lead + inner.len()..]);
    }

    fn punctuation(&mut self, marks: &str) {
        for c in marks.chars() {
            self.is_after_break |=
                matches!(c, ',' | ';' | ':' | '.' | '?' | '!' | '(' | ')' | '¿' | '¡' | '…');
            self.is_first |= matches!(c, '.' | '?' | '!' | ':' | '¿' | '¡' | '"' | '“' | '«' | '`' | '(');
        }
    }

    /// Reads words, numbers and symbols that are written without spaces.
    fn parts(&mut self, start: usize, end: usize) {
        let mut at = start;
        let mut is_glued = false;
        while let Some(c) = self.text[at..end].chars().next() {
            let rest = &self.text[at..end];
            let is_after_symbol =
                is_glued && self.tokens.last().is_some_and(|token| token.form == TokenForm::Symbol);
            let is_fraction =
                c == '.' && (at == start || is_after_symbol) && is_decimal_fraction(".", &rest[1..]);
            let (len, form) = if c.is_ascii_digit() || is_fraction {
                (
                    usize::from(is_fraction) + digits_len(&rest[usize::from(is_fraction)..]),
                    Some(TokenForm::Digits),
                )
            } else if c.is_alphabetic() {
                (word_len(rest), Some(TokenForm::Word))
            } else if "$€£¥%°".contains(c) {
                (c.len_utf8(), Some(TokenForm::Symbol))
            } else {
                (c.len_utf8(), None)
            };
            match form {
                Some(form) => {
                    self.push(&rest[..len], at, at + len, form, is_glued);
                    is_glued = true;
                }
                None => {
                    self.punctuation(&rest[..len]);
                    is_glued = matches!(c, '-' | '.');
                }
            }
            at += len;
        }
    }

    fn push(&mut self, text: &str, start: usize, end: usize, form: TokenForm, is_glued: bool) {
        let mut word = String::with_capacity(text.len());
        text.chars().for_each(|c| fold_into(c, &mut word));
        let key = word_key(&word);
        let capitals = text.chars().filter(|c| c.is_uppercase()).count();
        let smalls = text.chars().filter(|c| c.is_lowercase()).count();
        self.tokens.push(Token {
            key,
            stem: key,
            word,
            span: Span::new(start, end),
            form,
            is_glued,
            is_after_break: self.is_after_break,
            is_first: self.is_first,
            is_capitalized: capitals > 0,
            is_upper: capitals > 1 && smalls == 0,
        });
        self.is_after_break = false;
        self.is_first = false;
    }
}

/// Whether a number begins with its decimal mark: `.5`. An ellipsis is none.
fn is_decimal_fraction(before: &str, rest: &str) -> bool {
    before.ends_with('.') && !before.ends_with("..") && rest.starts_with(|c: char| c.is_ascii_digit())
}

/// The length of a number with its separators: `1,000.50`, `14:00`, `03/05/2024`, `4471-2093`.
fn digits_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut len = 0;
    while len < bytes.len() {
        let is_separator = matches!(bytes[len], b'.' | b',' | b':' | b'/' | b'-' | b'\'');
        let is_inside = is_separator && bytes.get(len + 1).is_some_and(u8::is_ascii_digit);
        if !bytes[len].is_ascii_digit() && !is_inside {
            break;
        }
        len += 1;
    }
    len
}

/// The length of a word with its inner apostrophes.
fn word_len(text: &str) -> usize {
    let mut before = None;
    for (at, c) in text.char_indices() {
        let is_apostrophe = matches!(c, '\'' | '’' | '‘' | '´');
        let is_inner = is_apostrophe
            && before.is_some_and(char::is_alphabetic)
            && text[at + c.len_utf8()..].starts_with(char::is_alphabetic);
        let is_mark = unicode_normalization::char::is_combining_mark(c);
        if !c.is_alphabetic() && !is_inner && !is_mark {
            return at;
        }
        before = Some(c);
    }
    text.len()
}

/// `U.S.`, `p.m.`, `EE.UU.`: at least two groups of one or two letters with dots after them.
fn is_dotted_abbreviation(chunk: &str) -> bool {
    let body = chunk.trim_end_matches([',', ';', ':', '?', '!', ')']);
    let groups: Vec<&str> = body.trim_end_matches('.').splitn(5, '.').collect();
    let is_group =
        |group: &&str| (1..=2).contains(&group.chars().count()) && group.chars().all(char::is_alphabetic);
    (2..=4).contains(&groups.len()) && body.matches('.').count() >= 2 && groups.iter().all(is_group)
}

/// Whether a chunk is an identifier: letters with digits other than a number and its unit, or a sign that only code has.
fn is_code(chunk: &str) -> bool {
    let has_digit = chunk.bytes().any(|b| b.is_ascii_digit());
    let has_letter = chunk.chars().any(char::is_alphabetic);
    if chunk.contains('_') && (has_digit || has_letter) || chunk.contains("::") {
        return true;
    }
    if chunk.starts_with("--") && has_letter || chunk.starts_with('#') && has_digit {
        return true;
    }
    if !has_digit || !has_letter || chunk.contains(['\'', '’', '(', '"', '“', '$', '€', '£', '?']) {
        return false;
    }
    !is_number_with_suffix(chunk) && !is_version(chunk)
}

/// `v2.4`: the letter stands for a word.
fn is_version(chunk: &str) -> bool {
    let number = chunk.strip_prefix(['v', 'V']).map(|rest| rest.trim_start_matches('.'));
    number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// `10kg`, `2nd`, `13-inch`, `1.5k`, `3.er`, `USD500`: digits and one run of letters that is no code.
fn is_number_with_suffix(chunk: &str) -> bool {
    let digits = digits_len(chunk);
    if digits == 0 {
        let letters = chunk.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let is_currency = matches!(
            chunk[..letters].trim_end_matches('.'),
            "Rs" | "RS" | "rs" | "USD" | "EUR" | "GBP" | "JPY" | "MXN" | "CHF" | "INR" | "US"
        );
        return is_currency && digits_len(&chunk[letters..]) == chunk.len() - letters;
    }
    let suffix = chunk[digits..].trim_start_matches(['-', '.', '/']);
    let is_word = suffix.chars().all(|c| c.is_alphabetic() || matches!(c, '.' | '-' | '°' | '²'));
    let letters = suffix.chars().filter(|c| c.is_alphabetic()).count();
    let is_short = chunk[..digits].len() <= 2 || chunk[..digits].contains(['.', ',', ':']);
    // A long number with one or two capital letters is an article number, unless the letters are a unit.
    let is_unit = matches!(
        suffix.to_ascii_lowercase().trim_end_matches('.'),
        "g" | "kg"
            | "mg"
            | "lb"
            | "lbs"
            | "oz"
            | "cm"
            | "mm"
            | "m"
            | "km"
            | "mi"
            | "ft"
            | "in"
            | "l"
            | "ml"
            | "cl"
            | "gb"
            | "mb"
            | "tb"
            | "kb"
            | "w"
            | "kw"
            | "kwh"
            | "v"
            | "mah"
            | "hz"
            | "mhz"
            | "ghz"
            | "h"
            | "min"
            | "s"
            | "ms"
            | "k"
            | "bn"
            | "x"
            | "am"
            | "pm"
            | "st"
            | "nd"
            | "rd"
            | "th"
            | "usd"
            | "eur"
            | "gbp"
            | "rs"
            | "inr"
            | "p"
            | "fps"
            | "mbps"
            | "mph"
            | "kmh"
    );
    is_word
        && letters > 0
        && (is_unit || letters >= 3 || is_short && letters <= 2 && !suffix.chars().all(char::is_uppercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<(String, TokenForm)> {
        tokenize(text).into_iter().map(|token| (token.word, token.form)).collect()
    }

    #[test]
    fn words_numbers_codes_and_symbols() {
        use TokenForm::{Code, Digits, Symbol, Word};
        let cases = [
            ("¿Cuánto cuesta?", vec![("cuanto", Word), ("cuesta", Word)]),
            ("Isn't it?", vec![("isn't", Word), ("it", Word)]),
            ("10kg 5 pm.", vec![("10", Digits), ("kg", Word), ("5", Digits), ("pm", Word)]),
            ("$1,000.50 20%", vec![("$", Symbol), ("1,000.50", Digits), ("20", Digits), ("%", Symbol)]),
            ("13-inch e-mail", vec![("13", Digits), ("inch", Word), ("e", Word), ("mail", Word)]),
            ("error E-104, 0x8C30.", vec![("error", Word), ("e-104", Code), ("0x8c30", Code)]),
            ("order 4471-2093", vec![("order", Word), ("4471-2093", Digits)]),
            (
                "the U.S. at 9 p.m.",
                vec![("the", Word), ("us", Word), ("at", Word), ("9", Digits), ("pm", Word)],
            ),
            ("call get_user() or f()", vec![("call", Word), ("get_user", Code), ("or", Word), ("f", Code)]),
            (
                ".5 mg, $.50 ...3 Rs.500",
                vec![
                    (".5", Digits),
                    ("mg", Word),
                    ("$", Symbol),
                    (".50", Digits),
                    ("3", Digits),
                    ("rs", Word),
                    ("500", Digits),
                ],
            ),
            ("RT40482FR USB4", vec![("rt40482fr", Code), ("usb4", Code)]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected.into_iter().map(|(word, form)| (word.to_owned(), form)).collect();
            assert_eq!(forms(text), expected, "{text}");
        }
    }

    #[test]
    fn sentences_begin_after_a_stop() {
        let tokens = tokenize("Hello there. My Bosch, again: Why?");
        let first: Vec<_> =
            tokens.iter().filter(|token| token.is_first).map(|token| &token.word[..]).collect();
        assert_eq!(first, ["hello", "my", "why"]);
    }
}
