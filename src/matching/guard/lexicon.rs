//! The words that the guard knows, by language. Built once, and extended by lists of the same format.

use std::collections::HashSet;

use super::builtin_words::BUILTIN;
use super::folding::{KeyMap, WordKey, word_key};
use super::language::Language;
use super::morphology::{stem, without_clitic};
use super::word_list::{WordLine, WordList, line_error, read_lines};
use crate::error::{Error, Kind, Result};

/// How many bytes the text of one call of [`Lexicon::extend`] may have.
const LIST_BYTES_MAX: usize = 4 << 20;

/// The word lists of every language.
#[derive(Debug, Clone)]
pub struct Lexicon {
    languages: [LanguageWords; Language::ALL.len()],
}

/// A word or phrase of a list.
#[derive(Debug, Clone)]
pub(super) struct Phrase {
    pub(super) list: WordList,
    /// The keys of the words after the first one.
    pub(super) rest: Box<[WordKey]>,
    /// What the phrase stands for: itself, or the other side of its line.
    pub(super) value: WordKey,
    /// The words of `value`.
    pub(super) words: Box<str>,
    /// The number in the value, such as a month or the factor of a unit. Zero if there is none.
    pub(super) number: f64,
}

/// The words of one language.
#[derive(Debug, Clone, Default)]
struct LanguageWords {
    /// By the key of the first word.
    phrases: KeyMap<Vec<Phrase>>,
    /// By the stem of the only word, for the inflected forms of it.
    inflected: KeyMap<Vec<Phrase>>,
    /// By stem: the keys of the sets of synonyms that the word is in.
    synonyms: KeyMap<Vec<WordKey>>,
    /// By stem: the stems of opposites.
    antonyms: KeyMap<Vec<WordKey>>,
    /// By word: the stem of what it is a form of.
    irregular: KeyMap<WordKey>,
    /// Values of phrases that are opposites.
    opposites: HashSet<(WordKey, WordKey)>,
}

impl Lexicon {
    /// The lexicon with the lists that come with the program.
    pub fn builtin() -> Lexicon {
        let mut lexicon = Lexicon { languages: Default::default() };
        for (language, list, text) in BUILTIN {
            let added = lexicon.extend(*language, list.name(), text);
            added.expect("the built-in word lists are valid: this is a bug");
        }
        lexicon
    }

    /// Adds words to a list of a language. The format is one `a`, `a = b` or `a <> b` a line; `#` begins a comment. Nothing is added
    /// if a line is at fault.
    ///
    /// # Errors
    /// `Config` for an unknown list or too long a text, and, with list and line, for a line that the list does not take.
    pub fn extend(&mut self, language: Language, list_name: &str, text: &str) -> Result<()> {
        let Some(list) = WordList::ALL.iter().copied().find(|list| list.name() == list_name) else {
            return Err(Error::new(Kind::Config, "unknown word list").with("list", list_name));
        };
        if text.len() > LIST_BYTES_MAX {
            return Err(Error::new(Kind::Config, "word list is too long").with("list", list_name));
        }
        let lines = read_lines(list_name, text)?;
        if let Some((number, line)) = lines.iter().find(|(_, line)| !is_taken(list, line)) {
            return Err(line_error(list_name, *number, &line.to_string()));
        }
        let words = &mut self.languages[language.index()];
        lines.iter().for_each(|(_, line)| words.add(language, list, line));
        Ok(())
    }

    /// The phrases that begin with a word.
    pub(super) fn phrases(&self, language: Language, word: WordKey) -> &[Phrase] {
        self.languages[language.index()].phrases.get(&word).map_or(&[], Vec::as_slice)
    }

    /// The words of lists that have this stem.
    pub(super) fn inflected(&self, language: Language, stem: WordKey) -> &[Phrase] {
        self.languages[language.index()].inflected.get(&stem).map_or(&[], Vec::as_slice)
    }

    /// The single word of a list, in the form in which the list has it.
    pub(super) fn word(&self, language: Language, list: WordList, word: WordKey) -> Option<&Phrase> {
        self.phrases(language, word).iter().find(|phrase| phrase.list == list && phrase.rest.is_empty())
    }

    /// The single word of a list in any of its forms.
    pub(super) fn word_or_form(
        &self,
        language: Language,
        list: WordList,
        word: WordKey,
        stem: WordKey,
    ) -> Option<&Phrase> {
        self.word(language, list, word)
            .or_else(|| self.inflected(language, stem).iter().find(|phrase| phrase.list == list))
    }

    /// The key of a folded word's stem.
    pub(super) fn stem_key(&self, language: Language, word: &str) -> WordKey {
        let word = without_clitic(language, word);
        let irregular = self.languages[language.index()].irregular.get(&word_key(word));
        irregular.copied().unwrap_or_else(|| regular_stem_key(language, word))
    }

    /// Whether two stems share a set of synonyms.
    pub(super) fn are_synonyms(&self, language: Language, one: WordKey, two: WordKey) -> bool {
        let sets = |stem| self.languages[language.index()].synonyms.get(&stem).map_or(&[][..], Vec::as_slice);
        let (ones, twos) = (sets(one), sets(two));
        ones.contains(&two) || twos.contains(&one) || ones.iter().any(|set| twos.contains(set))
    }

    /// Whether the words of a stem have synonyms or antonyms here, which says that it is no name.
    pub(super) fn is_known(&self, language: Language, stem: WordKey) -> bool {
        let words = &self.languages[language.index()];
        words.synonyms.contains_key(&stem) || words.antonyms.contains_key(&stem)
    }

    /// Whether two stems are opposites.
    pub(super) fn are_antonyms(&self, language: Language, one: WordKey, two: WordKey) -> bool {
        self.languages[language.index()].antonyms.get(&one).is_some_and(|stems| stems.contains(&two))
    }

    /// Whether two values of lists are opposites in any language.
    pub(super) fn are_opposites(&self, one: WordKey, two: WordKey) -> bool {
        self.languages.iter().any(|words| words.opposites.contains(&(one, two)))
    }
}

impl LanguageWords {
    fn add(&mut self, language: Language, list: WordList, line: &WordLine) {
        match (list, line) {
            (WordList::Synonyms, WordLine::Same(word, set)) => {
                self.synonyms
                    .entry(regular_stem_key(language, word))
                    .or_default()
                    .push(regular_stem_key(language, set));
            }
            (WordList::IrregularForms, WordLine::Same(form, word)) => {
                self.irregular.insert(word_key(form), regular_stem_key(language, word));
            }
            (WordList::Antonyms, WordLine::Opposite(one, two)) => {
                let (one, two) = (regular_stem_key(language, one), regular_stem_key(language, two));
                self.antonyms.entry(one).or_default().push(two);
                self.antonyms.entry(two).or_default().push(one);
            }
            (_, WordLine::Opposite(one, two)) => {
                let (one, two) = (word_key(one), word_key(two));
                self.opposites.extend([(one, two), (two, one)]);
            }
            (_, WordLine::Member(word)) => self.add_phrase(language, list, word, word),
            (_, WordLine::Same(word, value)) => self.add_phrase(language, list, word, value),
        }
    }

    fn add_phrase(&mut self, language: Language, list: WordList, words: &str, value: &str) {
        let mut keys = words.split(' ').map(word_key);
        let Some(first) = keys.next() else { return };
        let (name, number) = value_and_number(list, value);
        let phrase = Phrase { list, rest: keys.collect(), value: word_key(name), words: name.into(), number };
        if phrase.rest.is_empty() && is_inflected(list) {
            self.inflected.entry(regular_stem_key(language, words)).or_default().push(phrase.clone());
        }
        self.phrases.entry(first).or_default().push(phrase);
    }
}

fn regular_stem_key(language: Language, word: &str) -> WordKey {
    let (start, end) = stem(language, word);
    if end.is_empty() { word_key(start) } else { word_key(&[start, end].concat()) }
}

/// The name and the number of a value: `mass 1000`, `x100`, `5`. Of other lists the whole value is a name.
fn value_and_number(list: WordList, value: &str) -> (&str, f64) {
    let (name, number) = if matches!(list, WordList::Units | WordList::UnitSuffixes) {
        value.rsplit_once(' ').unwrap_or((value, ""))
    } else if needs_number(list) {
        (value, value.strip_prefix('x').unwrap_or(value))
    } else {
        (value, "")
    };
    (name, number.parse().unwrap_or(0.0))
}

/// Whether other inflections of a list's single words count as well.
fn is_inflected(list: WordList) -> bool {
    matches!(
        list,
        WordList::Persons
            | WordList::Verbs
            | WordList::AskingVerbs
            | WordList::ExchangeVerbs
            | WordList::ChangeVerbs
            | WordList::ChangeObjects
            | WordList::LightWords
            | WordList::SoftNegations
            | WordList::Formats
    )
}

/// Whether a list takes a line of this shape.
fn is_taken(list: WordList, line: &WordLine) -> bool {
    match (list, line) {
        (WordList::Synonyms | WordList::IrregularForms | WordList::Antonyms, WordLine::Member(_)) => false,
        (WordList::Synonyms | WordList::IrregularForms, WordLine::Same(word, _)) => !word.contains(' '),
        (WordList::Antonyms, WordLine::Opposite(one, two)) => !one.contains(' ') && !two.contains(' '),
        (WordList::Antonyms, WordLine::Same(..)) => false,
        (
            WordList::Comparators | WordList::Quantifiers | WordList::Particles | WordList::QuestionWords,
            WordLine::Opposite(..),
        ) => true,
        (_, WordLine::Opposite(..)) => false,
        (WordList::Contractions | WordList::Abbreviations, WordLine::Same(word, _)) => !word.contains(' '),
        (WordList::Contractions | WordList::Abbreviations, WordLine::Member(_)) => false,
        (list, line) if needs_number(list) => match line {
            WordLine::Same(_, value) => {
                let number = value_and_number(list, value).1;
                number.is_finite() && number > 0.0 || value == "0"
            }
            WordLine::Member(_) | WordLine::Opposite(..) => false,
        },
        (_, WordLine::Member(_) | WordLine::Same(..)) => true,
    }
}

fn needs_number(list: WordList) -> bool {
    matches!(
        list,
        WordList::Numbers
            | WordList::Ordinals
            | WordList::Units
            | WordList::UnitSuffixes
            | WordList::Months
            | WordList::AmbiguousMonths
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_extended_and_faults_are_named() {
        let mut lexicon = Lexicon::builtin();
        let key = word_key("fuchsia");
        assert!(lexicon.word(Language::English, WordList::Colours, key).is_none());
        lexicon.extend(Language::English, "colours", "fuchsia # a colour").unwrap();
        assert!(lexicon.word(Language::English, WordList::Colours, key).is_some());
        for (list, text) in
            [("colors", "red"), ("numbers", "two"), ("units", "\nstone = heavy"), ("antonyms", "a = b")]
        {
            let error = lexicon.extend(Language::English, list, text).unwrap_err();
            assert!(error.to_string().contains(list), "{error}");
        }
    }

    #[test]
    fn every_list_is_built_in() {
        for list in WordList::ALL {
            assert!(BUILTIN.iter().any(|(_, built_in, _)| built_in == list), "{}", list.name());
        }
    }

    #[test]
    fn wordnet_is_built_in() {
        let lexicon = Lexicon::builtin();
        let key = |word| lexicon.stem_key(Language::English, word);
        assert!(lexicon.are_antonyms(Language::English, key("increases"), key("decreased")));
        assert!(lexicon.are_synonyms(Language::English, key("buys"), key("purchased")));
        assert!(!lexicon.are_synonyms(Language::English, key("buys"), key("sells")));
    }
}
