//! Token ids in place of text: OpenAI's clients send ids of their own tokenizer, whatever model is asked for.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Whose ids requests carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIds {
    /// Those of `text-embedding-3-*` and `ada-002`; LangChain sends them by default.
    #[default]
    Cl100k,
    /// Those of the model that is served.
    Model,
}

/// One past the last id of cl100k, special tokens included.
const CL100K_IDS: u32 = 100_277;

/// The text of cl100k ids.
///
/// # Errors
/// `InvalidInput` naming the first id outside the vocabulary.
pub(super) fn decode_cl100k(ids: &[u32]) -> Result<String> {
    let bytes = tiktoken_rs::cl100k_base_singleton().decode_bytes(ids).map_err(|_| out_of_range(ids))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn out_of_range(ids: &[u32]) -> Error {
    let tokenizer = tiktoken_rs::cl100k_base_singleton();
    let unknown = ids.iter().find(|&&id| id >= CL100K_IDS || tokenizer.decode_bytes(&[id]).is_err());
    let id = unknown.map_or(String::new(), u32::to_string);
    Error::invalid("input", format!("the token id {id} is not in the vocabulary of cl100k"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_their_text() {
        assert_eq!(decode_cl100k(&[15339, 1917]).unwrap(), "hello world");
    }

    #[test]
    fn a_character_cut_in_half_is_replaced() {
        // The first two of the three tokens of an emoji: not UTF-8 by themselves.
        let ids = tiktoken_rs::cl100k_base_singleton().encode_ordinary("🦜");
        assert!(ids.len() > 1);
        assert!(decode_cl100k(&ids[..1]).unwrap().contains('\u{fffd}'));
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let error = decode_cl100k(&[15339, 100_300]).unwrap_err();
        assert!(error.to_string().contains("100300"), "{error}");
        assert_eq!(error.param_name(), Some("input"));
    }
}
