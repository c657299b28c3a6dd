//! Token ids as input: OpenAI's clients send ids of their own tokenizer to every model.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// The vocabulary of the token ids in requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIds {
    /// The vocabulary of `text-embedding-3-*` and `ada-002`; LangChain's default.
    #[default]
    Cl100k,
    /// The vocabulary of the served model.
    Model,
}

/// One past the last id of cl100k, special tokens included.
const CL100K_IDS: u32 = 100_277;

/// Ids that are decoded between two checks of the length: one id may stand for 128 bytes.
const DECODED_AT_ONCE: usize = 4096;

/// The text of cl100k ids.
///
/// # Errors
/// `InvalidInput` naming the first id outside the vocabulary, `TooLarge` for a text of more than `bytes_max` bytes.
pub(super) fn decode_cl100k(ids: &[u32], bytes_max: usize) -> Result<String> {
    let tokenizer = tiktoken_rs::cl100k_base_singleton();
    let mut bytes = Vec::new();
    for some in ids.chunks(DECODED_AT_ONCE) {
        bytes.extend(tokenizer.decode_bytes(some).map_err(|_| out_of_range(some))?);
        if bytes.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
    }
    check_bytes(String::from_utf8_lossy(&bytes).into_owned(), bytes_max)
}

/// Tokens of each text in cl100k.
pub fn count_cl100k(texts: &[String]) -> Vec<usize> {
    let tokenizer = tiktoken_rs::cl100k_base_singleton();
    texts.iter().map(|text| tokenizer.encode_ordinary(text).len()).collect()
}

/// The text, if it is not too long.
///
/// # Errors
/// `TooLarge`.
pub(super) fn check_bytes(text: String, bytes_max: usize) -> Result<String> {
    if text.len() <= bytes_max { Ok(text) } else { Err(too_large(bytes_max)) }
}

fn too_large(bytes_max: usize) -> Error {
    let message = format!("the text of the token ids must have at most {bytes_max} bytes");
    Error::new(Kind::TooLarge, message).param("ids")
}

fn out_of_range(ids: &[u32]) -> Error {
    let tokenizer = tiktoken_rs::cl100k_base_singleton();
    let unknown = ids.iter().find(|&&id| id >= CL100K_IDS || tokenizer.decode_bytes(&[id]).is_err());
    let id = unknown.map_or(String::new(), u32::to_string);
    Error::invalid("ids", format!("token ids must be in the vocabulary of cl100k, got {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_their_text() {
        assert_eq!(decode_cl100k(&[15339, 1917], 11).unwrap(), "hello world");
    }

    #[test]
    fn a_character_cut_in_half_is_replaced() {
        // The first two of the three tokens of an emoji: not UTF-8 by themselves.
        let ids = tiktoken_rs::cl100k_base_singleton().encode_ordinary("🦜");
        assert!(ids.len() > 1);
        assert!(decode_cl100k(&ids[..1], 100).unwrap().contains('\u{fffd}'));
    }

    #[test]
    fn a_text_past_its_limit_is_refused_while_it_is_decoded() {
        assert_eq!(decode_cl100k(&[15339, 1917], 10).unwrap_err().kind(), Kind::TooLarge);
        // The longest token: 81 spaces or more.
        let spaces = tiktoken_rs::cl100k_base_singleton().encode_ordinary(&" ".repeat(64));
        assert_eq!(spaces.len(), 1);
        let ids = vec![spaces[0]; 1 << 20];
        assert_eq!(decode_cl100k(&ids, 1 << 20).unwrap_err().kind(), Kind::TooLarge);
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let error = decode_cl100k(&[15339, 100_300], 100).unwrap_err();
        assert!(error.to_string().contains("100300"), "{error}");
        assert_eq!(error.param_name(), Some("ids"));
    }
}
