//! Tokenizes texts as the model was trained to read them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use tokenizers::Tokenizer as HuggingFaceTokenizer;

use super::option_path::option_path;
use crate::error::{Error, Kind, Result};

/// Bytes of a text's prefix that is tokenized first, for each token that the model reads. Most texts have fewer bytes a token.
const BYTES_PER_TOKEN: usize = 16;

/// The token ids of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenizedText {
    /// Ids, special tokens included.
    pub(super) ids: Vec<u32>,
    /// Whether the text had more tokens.
    pub(super) is_truncated: bool,
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextToken {
    /// Its id in the vocabulary.
    pub id: u32,
    /// The part of the text that it stands for; of a special token its name.
    pub text: String,
    /// Where that part is, in bytes. `None` for a special token, which is not in the text.
    pub span: Option<Range<usize>>,
}

/// A model's tokenizer. The padding and truncation of its file are switched off: the encoder needs no padding, and another
/// file holds the length that the model reads (the tokenizer of all-MiniLM-L6-v2 truncates to 128, the model reads 256).
#[derive(Clone)]
pub(super) struct Tokenizer {
    /// Shared by clones: its vocabulary takes up to hundreds of megabytes.
    inner: Arc<HuggingFaceTokenizer>,
    tokens_max: usize,
    lowercases: bool,
    /// Special tokens at the end of every text; truncation keeps them.
    suffix: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `lowercases` is sentence-transformers' own step before the tokenizer.
    ///
    /// # Errors
    /// `Model` if the file cannot be read, or `tokens_max` leaves no tokens beside the special ones.
    pub(super) fn from_json(json: &[u8], tokens_max: usize, lowercases: bool) -> Result<Tokenizer> {
        let fault = |error: tokenizers::Error| {
            Error::new(Kind::Model, "cannot read tokenizer.json")
                .source(std::io::Error::other(error.to_string()))
        };
        let mut inner = HuggingFaceTokenizer::from_bytes(json).map_err(fault)?;
        inner.with_truncation(None).map_err(fault)?;
        inner.with_padding(None);
        let specials = inner.encode_fast("", true).map_err(fault)?;
        // An empty text has the special tokens only; BERT and XLM-R have one before and one after a text.
        let suffix = specials.len() / 2;
        if tokens_max <= specials.len() {
            let fault = format!(" must be more than the {} special tokens, got {tokens_max}", specials.len());
            return Err(Error::naming(Kind::Model, option_path("tokens_max"), "", &fault));
        }
        Ok(Tokenizer { inner: Arc::new(inner), tokens_max, lowercases, suffix })
    }

    /// One more than the highest id.
    pub(super) fn vocabulary(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |highest| highest as usize + 1)
    }

    /// The ids of a text, at most `tokens_max` of them.
    ///
    /// # Errors
    /// `Internal` if the tokenizer fails on the text.
    ///
    /// Cost: that of a prefix a few times as long as the part that the model reads, unless the text has far fewer tokens
    /// than bytes.
    pub(super) fn encode(&self, text: &str) -> Result<TokenizedText> {
        let mut ids = self.prefix(text)?;
        let is_truncated = ids.len() > self.tokens_max;
        if is_truncated {
            let end = ids.split_off(ids.len() - self.suffix);
            ids.truncate(self.tokens_max - self.suffix);
            ids.extend(end);
        }
        Ok(TokenizedText { ids, is_truncated })
    }

    /// Tokens of a text, special tokens included; for a truncated text one more than the model reads.
    pub(super) fn count(&self, text: &str) -> Result<usize> {
        Ok(self.prefix(text)?.len().min(self.tokens_max + 1))
    }

    /// The ids of a text without special tokens, however many.
    ///
    /// # Errors
    /// `Internal` if the tokenizer fails on the text.
    pub(super) fn word_ids(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, false)
    }

    /// The tokens of a text, however many; with the special ones if `adds_specials`. If the model reads texts in lower case, the tokens
    /// are of such a text.
    ///
    /// # Errors
    /// `Internal` if the tokenizer fails on the text.
    pub(super) fn tokens(&self, text: &str, adds_specials: bool) -> Result<Vec<TextToken>> {
        let text = self.as_read(text);
        let encoding = self.inner.encode(&*text, adds_specials).map_err(failed)?;
        let parts = encoding.get_ids().iter().zip(encoding.get_tokens()).zip(encoding.get_offsets());
        let tokens =
            parts.zip(encoding.get_special_tokens_mask()).map(|(((&id, name), &(start, end)), &mask)| {
                if mask == 1 {
                    return TextToken { id, text: name.clone(), span: None };
                }
                // A token of bytes may end within a character.
                let part = text.as_bytes().get(start..end).unwrap_or_default();
                TextToken { id, text: String::from_utf8_lossy(part).into_owned(), span: Some(start..end) }
            });
        Ok(tokens.collect())
    }

    /// The special tokens before and after every text.
    ///
    /// # Errors
    /// `Model` if it has not one of each.
    pub(super) fn specials(&self) -> Result<(u32, u32)> {
        match self.all_ids("")?[..] {
            [first, last] => Ok((first, last)),
            _ => {
                Err(Error::new(Kind::Model, "cannot use the tokenizer: a text must have two special tokens"))
            }
        }
    }

    /// The ids of all tokens with a digit.
    pub(super) fn ids_with_digits(&self) -> HashSet<u32> {
        let has_digit = |token: &str| token.bytes().any(|byte| byte.is_ascii_digit());
        self.inner
            .get_vocab(true)
            .into_iter()
            .filter(|(token, _)| has_digit(token))
            .map(|(_, id)| id)
            .collect()
    }

    /// The text of ids, special tokens left out.
    ///
    /// # Errors
    /// `InvalidInput` naming the first id outside the vocabulary.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(Error::invalid(
                "ids",
                format!("token ids must be in the model's vocabulary, got {id}"),
            ));
        }
        self.inner.decode(ids, true).map_err(|error| {
            Error::invalid("ids", "token ids must be decodable")
                .source(std::io::Error::other(error.to_string()))
        })
    }

    /// The ids of a text. If they are more than the model reads, the ids of a prefix, which begin with the same ids as those
    /// of the whole text.
    ///
    /// A prefix that ends before a space has the same tokens, since the supported tokenizers split there. One that ends
    /// within a word is compared with a prefix four times as long: ids that are equal in both do not depend on the rest.
    fn prefix(&self, text: &str) -> Result<Vec<u32>> {
        let kept = self.tokens_max - self.suffix;
        let mut bytes = self.tokens_max.saturating_mul(BYTES_PER_TOKEN);
        let mut shorter: Option<Vec<u32>> = None;
        while let Some((prefix, is_whole_words)) = prefix_of(text, bytes) {
            let mut ids = self.all_ids(prefix)?;
            if ids.len() > self.tokens_max {
                if is_whole_words || shorter.as_deref() == Some(&ids[..kept]) {
                    return Ok(ids);
                }
                ids.truncate(kept);
                shorter = Some(ids);
            }
            bytes = bytes.saturating_mul(4);
        }
        self.all_ids(text)
    }

    fn all_ids(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    fn ids(&self, text: &str, with_specials: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(&*self.as_read(text), with_specials).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A text as the tokenizer gets it.
    fn as_read<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.lowercases { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) }
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::new(Kind::Internal, "cannot tokenize a text").source(std::io::Error::other(error.to_string()))
}

/// A prefix of a text of at least `bytes` and less than twice as many bytes, and whether it ends before a space. `None` if
/// the text is shorter.
fn prefix_of(text: &str, bytes: usize) -> Option<(&str, bool)> {
    let most = bytes.saturating_mul(2);
    if text.len() <= most {
        return None;
    }
    // Before the first of several spaces: byte-level tokenizers join all of them but the last.
    let is_end = |pair: &[u8]| matches!(pair, [before, b' ' | b'\n'] if !before.is_ascii_whitespace());
    let window = &text.as_bytes()[bytes - 1..most];
    match window.windows(2).position(is_end) {
        Some(at) => Some((&text[..bytes + at], true)),
        None => Some((&text[..text.floor_char_boundary(most)], false)),
    }
}

#[cfg(test)]
mod tests;
