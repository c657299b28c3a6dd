//! What folding leaves out of a text: signs, capital letters and accents.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::folding::{WordKey, fold, word_key};
use super::language::Language;
use super::lexicon::Lexicon;
use super::mentions::Mention;
use super::signs::{Sign, signs};
use super::tokens::Span;
use super::word_list::WordList;

/// How many single letters, homographs and separated numbers of one text are compared.
const COMPARED_MAX: usize = 32;
/// How many words of one text are compared as they are written.
const WORDS_MAX: usize = 160;
/// The longest word whose capital letters tell it from another: units and symbols.
const CASED_LETTERS_MAX: usize = 3;
/// Texts in which more than this share of the words begins with a capital letter are titles: no capital tells a name there.
const CAPITALIZED_SHARE_MAX: f32 = 0.6;

/// The signs, single letters and words of a text as they are written.
#[derive(Debug, Clone, Default)]
pub(super) struct WrittenForm {
    /// In the order of the text.
    pub(super) signs: Box<[Sign]>,
    pub(super) letters: Box<[SingleLetter]>,
    /// Words by their folded key.
    pub(super) words: Box<[WrittenWord]>,
    pub(super) homographs: Box<[Homograph]>,
    pub(super) separated: Box<[SeparatedNumber]>,
    pub(super) has_accents: bool,
    /// The first word begins with a capital letter: the writer uses them.
    pub(super) has_capitals: bool,
}

/// A word of one letter: the `B` of `gate B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SingleLetter {
    pub(super) letter: char,
    pub(super) span: Span,
    pub(super) is_upper: bool,
    /// It names something. Articles and abbreviations do not.
    pub(super) is_designator: bool,
}

/// A word by its letters with and without accents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrittenWord {
    pub(super) folded: WordKey,
    pub(super) exact: WordKey,
    /// With its capital letters, if it is short and has some that no sentence asks for: `CO`, `Co`, `mW`.
    pub(super) cased: Option<WordKey>,
    pub(super) span: Span,
    /// Its accents are not optional.
    pub(super) is_compared: bool,
}

/// A number with one separator before three digits, which stands for thousands or for decimals: `1.500`, `1,500`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeparatedNumber {
    pub(super) digits: WordKey,
    pub(super) separator: u8,
    pub(super) span: Span,
}

impl WrittenWord {
    pub(super) fn has_accent(&self) -> bool {
        self.exact != self.folded
    }
}

/// A word that is a name in capital letters: `US`, `us`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Homograph {
    pub(super) word: WordKey,
    pub(super) span: Span,
    pub(super) is_name: bool,
}

impl WrittenForm {
    /// Reads a text. Letters and signs inside of a mention are part of its value.
    pub(super) fn read(
        lexicon: &Lexicon,
        language: Language,
        text: &str,
        mentions: &[Mention],
    ) -> WrittenForm {
        let words = spelled_words(text);
        let capitals = CapitalUse::of(&words);
        let is_mentioned = |span: Span| {
            mentions.iter().any(|mention| mention.span.start <= span.start && span.end <= mention.span.end)
        };
        let letters = words.iter().filter_map(|word| word.single_letter(language, &capitals));
        let homographs = words.iter().filter_map(|word| word.homograph(lexicon, language, &capitals));
        let mut written: Vec<WrittenWord> =
            words.iter().take(WORDS_MAX).map(|word| word.written(lexicon, language, &capitals)).collect();
        written.sort_unstable_by_key(|word| word.folded);
        WrittenForm {
            signs: signs(text).into(),
            letters: letters.filter(|letter| !is_mentioned(letter.span)).take(COMPARED_MAX).collect(),
            has_accents: written.iter().any(WrittenWord::has_accent),
            words: written.into(),
            homographs: homographs.take(COMPARED_MAX).collect(),
            separated: separated_numbers(text),
            has_capitals: words.first().is_some_and(|word| word.begins_with_capital),
        }
    }

    /// The words with these folded letters.
    pub(super) fn with_letters(&self, folded: WordKey) -> impl Iterator<Item = &WrittenWord> {
        let start = self.words.partition_point(|word| word.folded < folded);
        self.words[start..].iter().take_while(move |word| word.folded == folded)
    }
}

/// A run of letters.
struct SpelledWord<'a> {
    text: &'a str,
    folded: String,
    span: Span,
    /// What stands right before and after it.
    before: Option<char>,
    after: &'a str,
    /// Begins a sentence or a quotation.
    is_first: bool,
    begins_with_capital: bool,
    is_upper: bool,
}

fn spelled_words(text: &str) -> Vec<SpelledWord<'_>> {
    let is_letter = |c: char| c.is_alphabetic() || is_combining_mark(c);
    let (mut words, mut at, mut is_first) = (Vec::new(), 0, true);
    while let Some(start) = text[at..].find(is_letter).map(|offset| at + offset) {
        is_first |= text[at..start].contains(['.', '?', '!', '¿', '¡', '"', '“', '«', '(']);
        let len = text[start..].find(|c| !is_letter(c)).unwrap_or(text.len() - start);
        let word = &text[start..start + len];
        words.push(SpelledWord {
            text: word,
            folded: fold(word),
            span: Span::new(start, start + len),
            before: text[..start].chars().next_back(),
            after: &text[start + len..],
            is_first,
            begins_with_capital: word.starts_with(char::is_uppercase),
            is_upper: word.chars().any(char::is_uppercase) && !word.chars().any(char::is_lowercase),
        });
        (at, is_first) = (start + len, false);
    }
    words
}

/// What capital letters can tell in a text.
struct CapitalUse {
    /// There are no small letters.
    is_all_upper: bool,
    /// Most words begin with a capital letter.
    is_title: bool,
}

impl CapitalUse {
    fn of(words: &[SpelledWord<'_>]) -> CapitalUse {
        let capitalized = words.iter().filter(|word| word.begins_with_capital).count();
        CapitalUse {
            is_all_upper: words.iter().all(|word| word.is_upper),
            is_title: words.len() > 3 && capitalized as f32 > CAPITALIZED_SHARE_MAX * words.len() as f32,
        }
    }
}

impl SpelledWord<'_> {
    fn single_letter(&self, language: Language, capitals: &CapitalUse) -> Option<SingleLetter> {
        let mut folded = self.folded.chars();
        let letter = folded.next().filter(|_| folded.next().is_none())?;
        let is_part = |c: char| c.is_alphanumeric() || "-'’&_/@.".contains(c);
        let is_dotted =
            self.after.strip_prefix('.').is_some_and(|rest| rest.starts_with(char::is_alphanumeric));
        let is_glued_after = self.after.starts_with(|c: char| c != '.' && is_part(c)) || is_dotted;
        if self.before.is_some_and(is_part) || is_glued_after {
            return None;
        }
        let is_upper = self.is_upper && !capitals.is_all_upper;
        let is_designator = if is_upper {
            let is_pronoun = language == Language::English && letter == 'i';
            !self.is_first && !is_pronoun
        } else {
            // What is left out stands for words: `u` for `you`, `q` for `que`.
            let words = match language {
                Language::English => "abcdikmnorstuxy",
                Language::Spanish => "abdeikmnoqstuxy",
            };
            !words.contains(letter)
        };
        Some(SingleLetter { letter, span: self.span, is_upper, is_designator })
    }

    fn homograph(&self, lexicon: &Lexicon, language: Language, capitals: &CapitalUse) -> Option<Homograph> {
        let word = word_key(&self.folded);
        lexicon.word(language, WordList::Homographs, word)?;
        let is_abbreviation = self.is_upper && self.folded.len() > 1;
        let is_ambiguous = capitals.is_all_upper
            || self.begins_with_capital && !is_abbreviation && (self.is_first || capitals.is_title);
        (!is_ambiguous).then_some(Homograph { word, span: self.span, is_name: self.begins_with_capital })
    }

    fn written(&self, lexicon: &Lexicon, language: Language, capitals: &CapitalUse) -> WrittenWord {
        let folded = word_key(&self.folded);
        let exact: String = self.text.nfc().flat_map(char::to_lowercase).collect();
        let is_compared = lexicon.word(language, WordList::OptionalAccents, folded).is_none();
        let has_capital =
            self.text.chars().any(char::is_uppercase) && !capitals.is_all_upper && !capitals.is_title;
        let is_cased = has_capital && !self.is_first && (2..=CASED_LETTERS_MAX).contains(&self.folded.len());
        let cased = is_cased.then(|| word_key(self.text));
        WrittenWord { folded, exact: word_key(&exact), cased, span: self.span, is_compared }
    }
}

/// The numbers of a text with one separator before three digits.
fn separated_numbers(text: &str) -> Box<[SeparatedNumber]> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(|c: char| c.is_ascii_digit()).map(|offset| at + offset) {
        let len = text[start..].find(|c| !is_part(c)).unwrap_or(text.len() - start);
        let number = text[start..start + len].trim_end_matches(['.', ',']);
        let parts = number.split_once(['.', ',']).filter(|(head, tail)| {
            head.len() <= 3 && tail.len() == 3 && tail.bytes().all(|byte| byte.is_ascii_digit())
        });
        if let Some((head, tail)) = parts.filter(|_| found.len() < COMPARED_MAX) {
            let (digits, separator) = (word_key(&format!("{head}{tail}")), number.as_bytes()[head.len()]);
            found.push(SeparatedNumber { digits, separator, span: Span::new(start, start + number.len()) });
        }
        at = start + len;
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> WrittenForm {
        WrittenForm::read(&Lexicon::builtin(), Language::English, text, &[])
    }

    #[test]
    fn letters_that_name_something() {
        let letters = |text: &str| -> String {
            read(text).letters.iter().filter(|letter| letter.is_designator).map(|l| l.letter).collect()
        };
        for (text, expected) in [
            ("Is gate B near gate A?", "ba"),
            ("A grade of C.", "c"),
            ("Do I need a T-shirt, an X-ray, R&D or U.S. tax?", ""),
            ("plan b, u r ok", ""),
            ("terminal f", "f"),
            ("IS GATE B OPEN", ""),
        ] {
            assert_eq!(letters(text), expected, "{text}");
        }
    }

    #[test]
    fn capitals_and_accents() {
        let names =
            |text: &str| -> Vec<bool> { read(text).homographs.iter().map(|word| word.is_name).collect() };
        assert_eq!(names("Do the US pay us?"), [true, false]);
        assert!(names("DO THE US PAY US?").is_empty());
        assert!(read("Año").has_accents && !read("Ano").has_accents);
        // Composed and decomposed letters are the same.
        assert_eq!(read("a\u{f1}o").words[0].exact, read("AN\u{303}O").words[0].exact);
    }
}
