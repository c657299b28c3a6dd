//! The words of one text with the lexicon of its language: what the extractors read.

use super::folding::word_key;
use super::language::Language;
use super::lexicon::{Lexicon, Phrase};
use super::tokens::{Token, TokenForm, tokenize};
use super::word_list::WordList;

/// A text as tokens, with contractions written out.
pub(super) struct TextWords<'a> {
    pub(super) lexicon: &'a Lexicon,
    pub(super) language: Language,
    pub(super) tokens: Vec<Token>,
}

impl<'a> TextWords<'a> {
    /// Reads a text of at most [`super::tokens::TEXT_CHARS_MAX`] characters.
    pub(super) fn read(lexicon: &'a Lexicon, text: &str) -> TextWords<'a> {
        let tokens = expanded(lexicon, tokenize(text));
        let language = language_of(lexicon, text, &tokens);
        TextWords::with_stems(lexicon, language, tokens)
    }

    /// Reads a text as one of a language.
    pub(super) fn read_as(lexicon: &'a Lexicon, language: Language, text: &str) -> TextWords<'a> {
        TextWords::with_stems(lexicon, language, expanded(lexicon, tokenize(text)))
    }

    fn with_stems(lexicon: &'a Lexicon, language: Language, tokens: Vec<Token>) -> TextWords<'a> {
        let mut words = TextWords { lexicon, language, tokens };
        for token in &mut words.tokens {
            if token.form == TokenForm::Word {
                token.stem = lexicon.stem_key(language, &token.word);
            }
        }
        words
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Token> {
        self.tokens.get(at)
    }

    /// The word at a place. Empty past the end.
    pub(super) fn word(&self, at: usize) -> &str {
        self.get(at).map_or("", |token| &token.word)
    }

    /// Whether the token at a place is one of some words.
    pub(super) fn is_one_of(&self, at: usize, words: &[&str]) -> bool {
        self.get(at).is_some_and(|token| words.contains(&token.word.as_str()))
    }

    /// Whether the token at a place is a single word of a list.
    pub(super) fn is_in(&self, at: usize, list: WordList) -> bool {
        self.get(at).is_some_and(|token| self.lexicon.word(self.language, list, token.key).is_some())
    }

    /// The single word of a list at a place, in any form.
    pub(super) fn form_in(&self, at: usize, list: WordList) -> Option<&'a Phrase> {
        let token = self.get(at)?;
        self.lexicon.word_or_form(self.language, list, token.key, token.stem)
    }

    /// The longest phrase of a list at a place, and its length in tokens.
    pub(super) fn phrase_in(&self, at: usize, list: WordList) -> Option<(&'a Phrase, usize)> {
        let phrases = self.phrases_at(at).filter(|(phrase, _)| phrase.list == list);
        phrases.max_by_key(|(_, len)| *len)
    }

    /// Every phrase at a place with its length in tokens.
    pub(super) fn phrases_at(&self, at: usize) -> impl Iterator<Item = (&'a Phrase, usize)> {
        let key = self.get(at).map_or(0, |token| token.key);
        let lexicon: &'a Lexicon = self.lexicon;
        lexicon.phrases(self.language, key).iter().filter_map(move |phrase| {
            let is_here =
                (at + 1..).zip(&phrase.rest).all(|(at, key)| self.get(at).is_some_and(|t| t.key == *key));
            is_here.then_some((phrase, 1 + phrase.rest.len()))
        })
    }

    /// A number of a list for the word at a place, in the language of the text.
    pub(super) fn number_in(&self, at: usize, list: WordList) -> Option<f64> {
        let token = self.get(at).filter(|token| token.form == TokenForm::Word)?;
        self.lexicon.word(self.language, list, token.key).map(|phrase| phrase.number)
    }
}

/// Contractions and abbreviations as the words that they stand for.
fn expanded(lexicon: &Lexicon, tokens: Vec<Token>) -> Vec<Token> {
    let mut written_out = Vec::with_capacity(tokens.len() + 4);
    for token in tokens {
        if token.form != TokenForm::Word {
            written_out.push(token);
            continue;
        }
        let contraction = Language::ALL
            .iter()
            .find_map(|&language| {
                let list = |list| lexicon.word(language, list, token.key);
                list(WordList::Contractions).or_else(|| list(WordList::Abbreviations))
            })
            .map(|phrase| &*phrase.words);
        match contraction {
            Some(words) => push_words(&mut written_out, &token, words.split(' ')),
            None if token.word.contains('\'') => {
                let parts = apostrophe_parts(&token.word);
                push_words(&mut written_out, &token, parts.into_iter());
            }
            None => written_out.push(token),
        }
    }
    written_out
}

fn push_words<'w>(tokens: &mut Vec<Token>, token: &Token, words: impl Iterator<Item = &'w str>) {
    for (n, word) in words.filter(|word| !word.is_empty()).enumerate() {
        let key = word_key(word);
        let is_start = n == 0;
        tokens.push(Token {
            word: word.to_owned(),
            key,
            stem: key,
            is_glued: token.is_glued && is_start,
            is_after_break: token.is_after_break && is_start,
            is_first: token.is_first && is_start,
            is_capitalized: token.is_capitalized
                && is_start
                && word == token.word.split('\'').next().unwrap_or_default(),
            ..token.clone()
        });
    }
}

/// `couldn't` is `could not`, `Anna's` is `anna`. What follows other apostrophes is a word of its own.
fn apostrophe_parts(word: &str) -> Vec<&str> {
    if let Some(base) = word.strip_suffix("n't") {
        return vec![base, "not"];
    }
    word.split('\'').enumerate().filter(|(n, part)| *n == 0 || part.len() > 2).map(|(_, part)| part).collect()
}

/// The language whose function words a text has more of, else whose other words. English if neither is seen.
fn language_of(lexicon: &Lexicon, text: &str, tokens: &[Token]) -> Language {
    let count = |language| {
        let is_one = |token: &&Token| lexicon.word(language, WordList::FunctionWords, token.key).is_some();
        tokens.iter().filter(is_one).count()
    };
    let signs = text.chars().filter(|c| matches!(c, '¿' | '¡' | 'ñ' | 'Ñ')).count();
    let accents = text.chars().filter(|c| matches!(c, 'á' | 'é' | 'í' | 'ó' | 'ú')).count();
    let (english, spanish) =
        (count(Language::English), count(Language::Spanish) + 2 * signs + accents.min(1));
    if english != spanish {
        return if spanish > english { Language::Spanish } else { Language::English };
    }
    // Of `cuesta quinientos euros` no word is a function word, but two are in lists.
    let listed =
        |language| tokens.iter().filter(|token| !lexicon.phrases(language, token.key).is_empty()).count();
    if listed(Language::Spanish) > listed(Language::English) { Language::Spanish } else { Language::English }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_is_seen_by_function_words() {
        let lexicon = Lexicon::builtin();
        let cases = [
            ("How do I close my account?", Language::English),
            ("¿Cómo cierro mi cuenta?", Language::Spanish),
            ("cuanto cuesta el envio a madrid", Language::Spanish),
            ("cuesta quinientos euros", Language::Spanish),
            ("iphone 14", Language::English),
            ("", Language::English),
        ];
        for (text, language) in cases {
            assert_eq!(TextWords::read(&lexicon, text).language, language, "{text}");
        }
    }

    #[test]
    fn contractions_are_written_out() {
        let lexicon = Lexicon::builtin();
        let words = |text| -> Vec<String> {
            TextWords::read(&lexicon, text).tokens.into_iter().map(|token| token.word).collect()
        };
        assert_eq!(words("it doesn't, won't, cannot"), ["it", "does", "not", "will", "not", "can", "not"]);
        assert_eq!(words("dont Anna’s what's"), ["do", "not", "anna", "what", "is"]);
    }
}
