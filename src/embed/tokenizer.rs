//! Texts to token ids, as the model was trained to read them.

use tokenizers::Tokenizer as Inner;

use crate::error::{Error, Kind, Result};

/// Bytes that are tokenized first of a text, for each token that the model reads; most texts have fewer a token.
const BYTES_PER_TOKEN: usize = 16;

/// The token ids of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Ids, special tokens included.
    pub(super) ids: Vec<u32>,
    /// Whether the text was longer.
    pub(super) is_truncated: bool,
}

/// A model's tokenizer. Padding and truncation that its file carries are switched off: padding is never wanted here, and
/// the length that the model reads is written elsewhere (the file of all-MiniLM-L6-v2 says 128, its model reads 256).
#[derive(Clone)]
pub(super) struct Tokenizer {
    inner: Inner,
    tokens_max: usize,
    lowercases: bool,
    /// Special tokens that end every text; kept when a text is cut.
    suffix: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `lowercases` is sentence-transformers' own step before the tokenizer.
    ///
    /// # Errors
    /// `Model` if the file cannot be read, or `tokens_max` leaves no tokens beside the special ones.
    pub(super) fn from_json(json: &[u8], tokens_max: usize, lowercases: bool) -> Result<Tokenizer> {
        let fault = |error: tokenizers::Error| {
            Error::new(Kind::Model, "read tokenizer.json").source(std::io::Error::other(error.to_string()))
        };
        let mut inner = Inner::from_bytes(json).map_err(fault)?;
        inner.with_truncation(None).map_err(fault)?;
        inner.with_padding(None);
        let specials = inner.encode_fast("", true).map_err(fault)?;
        // What an empty text becomes is prefix and suffix; BERT and XLM-R have one token of each.
        let suffix = specials.len() / 2;
        if tokens_max <= specials.len() {
            return Err(Error::new(
                Kind::Model,
                format!(
                    "the model must read more than its {} special tokens, got {tokens_max}",
                    specials.len()
                ),
            ));
        }
        Ok(Tokenizer { inner, tokens_max, lowercases, suffix })
    }

    /// The highest id that the tokenizer can give, and one.
    pub(super) fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of a text, at most `tokens_max` of them.
    ///
    /// # Errors
    /// `Internal` if the tokenizer fails on the text.
    ///
    /// Cost: that of a beginning of the text, a few times as long as what the model reads, unless the text has far fewer
    /// tokens than bytes.
    pub(super) fn encode(&self, text: &str) -> Result<Tokens> {
        let mut ids = self.beginning(text)?;
        let is_truncated = ids.len() > self.tokens_max;
        if is_truncated {
            let end = ids.split_off(ids.len() - self.suffix);
            ids.truncate(self.tokens_max - self.suffix);
            ids.extend(end);
        }
        Ok(Tokens { ids, is_truncated })
    }

    /// Tokens of a text, special tokens included; a text that is cut counts one more than the model reads.
    pub(super) fn count(&self, text: &str) -> Result<usize> {
        Ok(self.beginning(text)?.len().min(self.tokens_max + 1))
    }

    /// The text of ids, special tokens left out.
    ///
    /// # Errors
    /// `InvalidInput` naming the first id outside the vocabulary.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(Error::invalid("ids", format!("the token id {id} is not in the model's vocabulary")));
        }
        self.inner.decode(ids, true).map_err(|error| {
            Error::invalid("ids", "token ids cannot be decoded")
                .source(std::io::Error::other(error.to_string()))
        })
    }

    /// The ids of a text; or, if they are more than the model reads, those of a beginning of it, of which the first that the
    /// model reads are the same as those of the whole.
    ///
    /// A beginning that ends before a space gives the same tokens, since the supported tokenizers split there. One that ends
    /// within a word is compared with one four times as long: what both agree on does not depend on what follows.
    fn beginning(&self, text: &str) -> Result<Vec<u32>> {
        let kept = self.tokens_max - self.suffix;
        let mut bytes = self.tokens_max.saturating_mul(BYTES_PER_TOKEN);
        let mut shorter: Option<Vec<u32>> = None;
        while let Some((beginning, is_whole_words)) = cut(text, bytes) {
            let mut ids = self.all_ids(beginning)?;
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
        let lowercase;
        let text = if self.lowercases {
            lowercase = text.to_lowercase();
            &lowercase
        } else {
            text
        };
        let encoding = self.inner.encode_fast(text, true).map_err(|error| {
            Error::new(Kind::Internal, "tokenize a text").source(std::io::Error::other(error.to_string()))
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// A beginning of a text of at least `bytes` bytes and less than twice as many, and whether it ends before a space; none if
/// the text is shorter.
fn cut(text: &str, bytes: usize) -> Option<(&str, bool)> {
    let most = bytes.saturating_mul(2);
    if text.len() <= most {
        return None;
    }
    // Of several spaces before the first: byte-level tokenizers join those that stand before the last.
    let is_end = |pair: &[u8]| matches!(pair, [before, b' ' | b'\n'] if !before.is_ascii_whitespace());
    let window = &text.as_bytes()[bytes - 1..most];
    match window.windows(2).position(is_end) {
        Some(at) => Some((&text[..bytes + at], true)),
        None => Some((&text[..text.floor_char_boundary(most)], false)),
    }
}

#[cfg(test)]
mod tests;
