//! Numbers in digits and in words.

use super::folding::word_key;
use super::tokens::TokenForm;
use super::word_list::WordList;
use super::words::TextWords;

/// A number in a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ReadNumber {
    pub(super) value: f64,
    /// The key of its digits as written, for versions, whose `3.1` and `3.10` differ. Zero for words.
    pub(super) digits: u64,
    /// Says little alone: `one`, which is also a pronoun, and `un` before a unit.
    pub(super) is_weak: bool,
    /// The place after its last token.
    pub(super) end: usize,
}

/// The value of digits with separators: `1,000` and `1.000` are 1000, `1.5` and `1,5` are 1.5, `0.125` is 0.125. `None` if the
/// separators are not those of one number.
pub(super) fn numeral(digits: &str) -> Option<f64> {
    let separators = digits.matches([',', '.', '\'']).count();
    if !digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'.' | b'\'')) || digits.len() > 24 {
        return None;
    }
    if separators == 0 {
        return digits.parse().ok();
    }
    let last = digits.rfind([',', '.', '\''])?;
    let (head, tail) = (&digits[..last], &digits[last + 1..]);
    let mark = digits.as_bytes()[last];
    let groups: Vec<&str> = head.split([',', '.', '\'']).collect();
    let is_grouped = (1..=3).contains(&groups[0].len()) && groups[1..].iter().all(|group| group.len() == 3);
    if !is_grouped && groups.len() > 1 {
        return None;
    }
    let is_same_mark = head.bytes().filter(|b| !b.is_ascii_digit()).all(|b| b == mark);
    let is_thousands =
        tail.len() == 3 && is_same_mark && is_grouped && (groups[0] != "0" || groups.len() > 1);
    if is_thousands {
        return [head, tail].concat().replace([',', '.', '\''], "").parse().ok();
    }
    // A decimal mark differs from the marks of thousands.
    if groups.len() > 1 && is_same_mark || mark == b'\'' {
        return None;
    }
    format!("{}.{tail}", head.replace([',', '.', '\''], "")).parse().ok()
}

/// The number that begins at a place.
pub(super) fn number_at(words: &TextWords<'_>, at: usize) -> Option<ReadNumber> {
    match words.get(at)?.form {
        TokenForm::Digits => number_in_digits(words, at),
        TokenForm::Word => number_in_words(words, at),
        TokenForm::Code | TokenForm::Symbol => None,
    }
}

fn number_in_digits(words: &TextWords<'_>, at: usize) -> Option<ReadNumber> {
    let token = words.get(at)?;
    let mut value = numeral(&token.word)?;
    let mut end = at + 1;
    if token.word.len() <= 3 && words.word(end) == "000" {
        (value, end) = (value * 1_000.0, end + 1);
    }
    while let Some(factor) = factor_at(words, end) {
        (value, end) = (value * factor, end + 1);
    }
    let digits = if end == at + 1 { word_key(&token.word) } else { 0 };
    Some(ReadNumber { value, digits, is_weak: value == 1.0, end })
}

/// The factor of `thousand`, `mil` or a glued `k` after digits.
fn factor_at(words: &TextWords<'_>, at: usize) -> Option<f64> {
    let token = words.get(at)?;
    if token.is_glued {
        return match token.word.as_str() {
            "k" => Some(1e3),
            "bn" => Some(1e9),
            _ => None,
        };
    }
    words.number_in(at, WordList::Numbers).filter(|&factor| factor >= 1_000.0)
}

fn number_in_words(words: &TextWords<'_>, at: usize) -> Option<ReadNumber> {
    let (mut total, mut group, mut end) = (0.0_f64, 0.0_f64, at);
    let mut smallest_factor = f64::INFINITY;
    let mut is_weak = false;
    while end < at + 16 {
        let next = if end > at && is_and_inside(words, end, group, total) { end + 1 } else { end };
        let Some(number) = words.number_in(next, WordList::Numbers) else { break };
        let is_factor = is_factor(words, next);
        if number >= 1_000.0 {
            if number > smallest_factor && total > 0.0 && group == 0.0 {
                total *= number; // `mil millones`
            } else if number >= smallest_factor {
                break;
            } else {
                total += if group == 0.0 { number } else { group * number };
            }
            (group, smallest_factor) = (0.0, number);
        } else if is_factor {
            if group >= 100.0 {
                break;
            }
            group = if group == 0.0 { number } else { group * number };
        } else if group == 0.0 || can_follow(group, number) {
            group += number;
        } else {
            break;
        }
        is_weak = end == at && number == 1.0;
        end = next + 1;
    }
    if end == at {
        return None;
    }
    if is_weak && !counts_as_one(words, at) {
        return None;
    }
    Some(ReadNumber { value: total + group, digits: 0, is_weak, end })
}

/// Whether the word multiplies what stands before it: `hundred`, `dozen`.
fn is_factor(words: &TextWords<'_>, at: usize) -> bool {
    let phrase =
        words.get(at).and_then(|token| words.lexicon.word(words.language, WordList::Numbers, token.key));
    phrase.is_some_and(|phrase| phrase.words.starts_with('x'))
}

/// Whether a number can be added to the one before it: `twenty` `five`, `two hundred` `thirty`.
fn can_follow(before: f64, number: f64) -> bool {
    let is_hundreds = before % 100.0 == 0.0 && number < 100.0;
    let is_tens = before % 100.0 >= 20.0 && before % 10.0 == 0.0 && number < 10.0;
    is_hundreds || is_tens
}

/// Whether an `and` or `y` joins two parts of one number: `treinta y cinco`, `two hundred and five`.
fn is_and_inside(words: &TextWords<'_>, at: usize, group: f64, total: f64) -> bool {
    let follows = words.number_in(at + 1, WordList::Numbers);
    match words.word(at) {
        "and" => (group >= 100.0 || group == 0.0 && total > 0.0) && follows.is_some_and(|n| n < 100.0),
        "y" => group % 100.0 >= 30.0 && group % 10.0 == 0.0 && follows.is_some_and(|n| n < 10.0),
        _ => false,
    }
}

/// `one` is a number before a unit or a noun, and a pronoun after an adjective: `the red one`.
fn counts_as_one(words: &TextWords<'_>, at: usize) -> bool {
    let is_article = words.is_one_of(at, &["un", "una"]);
    let is_unit = words.phrase_in(at + 1, WordList::Units).is_some();
    let is_alone = words.is_one_of(at + 1, &["solo", "sola", "unico", "unica", "single"]);
    let is_word =
        words.get(at + 1).is_some_and(|token| token.form == TokenForm::Word && !token.is_after_break);
    is_unit || is_alone || !is_article && is_word && !words.is_in(at + 1, WordList::FunctionWords)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::lexicon::Lexicon;

    #[test]
    fn separators_of_thousands_and_decimals() {
        for (digits, value) in [
            ("1000", 1000.0),
            ("1,000", 1000.0),
            ("1.000", 1000.0),
            ("1'000", 1000.0),
            ("1,000,000", 1e6),
            ("1.000.000", 1e6),
            ("1,234.56", 1234.56),
            ("1.234,56", 1234.56),
            ("1.5", 1.5),
            ("1,5", 1.5),
            ("29,99", 29.99),
            ("0.125", 0.125),
            ("0,125", 0.125),
            ("12.3456", 12.3456),
        ] {
            assert_eq!(numeral(digits), Some(value), "{digits}");
        }
        for digits in ["1.2.3", "1,2,3", "14:00", "3/5", "4471-2093", "12,34,567.8"] {
            assert_eq!(numeral(digits), None, "{digits}");
        }
    }

    #[test]
    fn words_of_numbers() {
        let lexicon = Lexicon::builtin();
        for (text, value) in [
            ("pay two for the", 2.0),
            ("pay twenty-five for the", 25.0),
            ("pay one hundred for the", 100.0),
            ("pay two hundred and five for the", 205.0),
            ("pay three thousand four hundred for the", 3400.0),
            ("pay two hundred thousand for the", 200_000.0),
            ("pay one million two hundred thousand and six for the", 1_200_006.0),
            ("pay 3 million for the", 3e6),
            ("pay 12 000 for the", 12_000.0),
            ("pay 5k for the", 5_000.0),
            ("pay two dozen for the", 24.0),
            ("pagar veintitrés por el", 23.0),
            ("pagar treinta y cinco por el", 35.0),
            ("pagar mil por el", 1000.0),
            ("pagar dos mil quinientos por el", 2500.0),
            ("pagar ciento veinte por el", 120.0),
            ("pagar un millón doscientos mil por el", 1_200_000.0),
            ("pagar mil millones por el", 1e9),
            ("pagar tres mil millones por el", 3e9),
        ] {
            let words = TextWords::read(&lexicon, text);
            let number = number_at(&words, 1).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(number.value, value, "{text}");
            assert_eq!(number.end, words.len() - 2, "{text}");
        }
        let pronoun = TextWords::read(&lexicon, "is it the red one?");
        assert_eq!(number_at(&pronoun, 4), None);
        let two = TextWords::read(&lexicon, "tables for two and three people");
        assert_eq!(number_at(&two, 2).unwrap().value, 2.0);
    }
}
