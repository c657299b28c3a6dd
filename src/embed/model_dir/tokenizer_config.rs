//! `tokenizer_config.json`. It may contradict `tokenizer.json`: transformers follows the former, this program the latter,
//! so a contradiction is refused.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::json_file::{optional, unsupported};
use crate::error::Result;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct TokenizerConfig {
    /// transformers writes 1e30 for "no limit", so it is read as a float.
    model_max_length: Option<f64>,
    truncation_side: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
}

impl TokenizerConfig {
    /// Reads the file of `folder` and compares it with the `tokenizer.json` of `dir`.
    ///
    /// # Errors
    /// `Model`, naming the file, if the two contradict each other or truncation is on the left.
    pub(super) fn read(folder: &Path, dir: &Path) -> Result<TokenizerConfig> {
        let path = folder.join("tokenizer_config.json");
        let config: TokenizerConfig = optional(&path)?;
        let refuse = |what: String| Err(unsupported(&what, &path));
        if let Some(side) = config.truncation_side.as_deref().filter(|side| *side != "right") {
            return refuse(format!("the truncation_side `{side}` is not supported"));
        }
        let tokenizer: Steps = optional(&dir.join("tokenizer.json"))?;
        for (name, wanted, found) in config.steps(&tokenizer) {
            if let (Some(wanted), Some(found)) = (wanted, found)
                && wanted != found
            {
                return refuse(format!("{name} is {wanted} here and {found} in tokenizer.json"));
            }
        }
        Ok(config)
    }

    /// The longest text in tokens, if the file limits it.
    pub(super) fn tokens_max(&self) -> Option<usize> {
        self.model_max_length.filter(|max| (1.0..=1e6).contains(max)).map(|max| max as usize)
    }

    /// Options of normalizer and pre-tokenizer: their names, the values of this file, those of `tokenizer.json`.
    fn steps(&self, tokenizer: &Steps) -> [(&'static str, Option<bool>, Option<bool>); 4] {
        let normalizer = |name| option(&tokenizer.normalizer, "BertNormalizer", name);
        [
            ("do_lower_case", self.do_lower_case, normalizer("lowercase")),
            ("strip_accents", self.strip_accents, normalizer("strip_accents")),
            ("tokenize_chinese_chars", self.tokenize_chinese_chars, normalizer("handle_chinese_chars")),
            (
                "add_prefix_space",
                self.add_prefix_space,
                option(&tokenizer.pre_tokenizer, "ByteLevel", "add_prefix_space"),
            ),
        ]
    }
}

/// The steps of `tokenizer.json` before the vocabulary.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Steps {
    normalizer: Value,
    pre_tokenizer: Value,
}

fn option(step: &Value, kind: &str, name: &str) -> Option<bool> {
    (step["type"] == kind).then(|| step[name].as_bool()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str, tokenizer: &str) -> Result<TokenizerConfig> {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        fs_err::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
        TokenizerConfig::read(dir.path(), dir.path())
    }

    const BERT: &str = r#"{"normalizer":{"type":"BertNormalizer","lowercase":true,"strip_accents":null,
        "handle_chinese_chars":true},"pre_tokenizer":{"type":"BertPreTokenizer"}}"#;
    const ROBERTA: &str =
        r#"{"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}}"#;

    #[test]
    fn files_that_agree_or_say_nothing_are_read() {
        for (config, tokenizer) in [
            ("{}", BERT),
            (r#"{"do_lower_case":true,"strip_accents":null,"tokenize_chinese_chars":true}"#, BERT),
            (r#"{"do_lower_case":false}"#, ROBERTA),
            (r#"{"add_prefix_space":false,"truncation_side":"right","other":1}"#, ROBERTA),
            (r#"{"model_max_length":512}"#, "{}"),
        ] {
            assert!(read(config, tokenizer).is_ok(), "{config}");
        }
        assert_eq!(read(r#"{"model_max_length":512}"#, "{}").unwrap().tokens_max(), Some(512));
        assert_eq!(read(r#"{"model_max_length":1e30}"#, "{}").unwrap().tokens_max(), None);
    }

    #[test]
    fn files_that_contradict_each_other_are_refused() {
        for (config, tokenizer, word) in [
            (r#"{"do_lower_case":false}"#, BERT, "do_lower_case is false"),
            (r#"{"tokenize_chinese_chars":false}"#, BERT, "tokenize_chinese_chars"),
            (r#"{"add_prefix_space":true}"#, ROBERTA, "add_prefix_space"),
            (r#"{"truncation_side":"left"}"#, BERT, "truncation_side"),
        ] {
            let message = read(config, tokenizer).err().expect("it is refused").to_string();
            assert!(message.contains(word) && message.contains("tokenizer_config.json"), "{message}");
        }
    }
}
