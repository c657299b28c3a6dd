//! The pooling module of a model directory. Each member changes vectors, so an unknown one is refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::json_file::{required, unsupported};
use crate::error::Result;

/// How the vectors of the tokens become the vector of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embed) enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token.
    Cls,
    /// The last token.
    Last,
}

impl Pooling {
    /// Its name in Text Embeddings Inference.
    pub(in crate::embed) fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Last => "last_token",
        }
    }
}

/// `1_Pooling/config.json`. Defaults are those of sentence-transformers' `Pooling.__init__` (5.1).
#[derive(Deserialize)]
#[serde(default)]
struct PoolingJson {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
    include_prompt: bool,
    #[serde(alias = "embedding_dimension")]
    word_embedding_dimension: Option<usize>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Default for PoolingJson {
    fn default() -> PoolingJson {
        PoolingJson {
            pooling_mode: None,
            pooling_mode_cls_token: false,
            pooling_mode_mean_tokens: true,
            pooling_mode_max_tokens: false,
            pooling_mode_mean_sqrt_len_tokens: false,
            pooling_mode_weightedmean_tokens: false,
            pooling_mode_lasttoken: false,
            include_prompt: true,
            word_embedding_dimension: None,
            others: BTreeMap::new(),
        }
    }
}

/// A pooling module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) pooling: Pooling,
    /// Whether the tokens of a prompt are pooled too.
    pub(super) includes_prompt: bool,
}

/// The default of sentence-transformers without a module.
pub(super) const MEAN: Module = Module { pooling: Pooling::Mean, includes_prompt: true };

/// Reads the module in `folder` of a model whose vectors have `hidden` numbers.
///
/// # Errors
/// `Model`, naming the file, for what is not built.
pub(super) fn read(folder: &Path, hidden: usize) -> Result<Module> {
    let path = folder.join("config.json");
    let json: PoolingJson = required(&path)?;
    let refuse = |what: String| Err(unsupported(&what, &path));
    if let Some((name, value)) = json.others.iter().find(|(_, value)| !is_unset(value)) {
        return refuse(format!("the pooling option `{name}`: {value} is not supported"));
    }
    if let Some(dim) = json.word_embedding_dimension.filter(|dim| *dim != hidden) {
        return refuse(format!(
            "the pooling's word_embedding_dimension is {dim}, the model's hidden_size {hidden}"
        ));
    }
    let mode = json.mode();
    let pooling = match mode.as_str() {
        "mean" => Pooling::Mean,
        "cls" => Pooling::Cls,
        "lasttoken" => Pooling::Last,
        other => return refuse(format!("the pooling mode `{other}` is not supported")),
    };
    Ok(Module { pooling, includes_prompt: json.include_prompt })
}

impl PoolingJson {
    /// The mode, or all modes joined by `+`, as their vectors would be concatenated.
    fn mode(&self) -> String {
        if let Some(mode) = &self.pooling_mode {
            return mode.to_lowercase();
        }
        let by_flag = [
            ("cls", self.pooling_mode_cls_token),
            ("mean", self.pooling_mode_mean_tokens),
            ("max", self.pooling_mode_max_tokens),
            ("mean_sqrt_len_tokens", self.pooling_mode_mean_sqrt_len_tokens),
            ("weightedmean", self.pooling_mode_weightedmean_tokens),
            ("lasttoken", self.pooling_mode_lasttoken),
        ];
        let set: Vec<&str> = by_flag.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
        set.join("+")
    }
}

fn is_unset(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn read_text(text: &str) -> Result<Module> {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("config.json"), text).unwrap();
        read(dir.path(), 8)
    }

    #[test]
    fn modes_are_read_as_sentence_transformers_reads_them() {
        for (text, pooling) in [
            ("{}", Pooling::Mean),
            (r#"{"word_embedding_dimension":8,"pooling_mode_mean_tokens":true}"#, Pooling::Mean),
            (r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#, Pooling::Cls),
            (r#"{"pooling_mode_lasttoken":true,"pooling_mode_mean_tokens":false}"#, Pooling::Last),
            (r#"{"embedding_dimension":8,"pooling_mode":"CLS"}"#, Pooling::Cls),
            (r#"{"pooling_mode":"lasttoken","pooling_mode_mean_tokens":true}"#, Pooling::Last),
            (r#"{"pooling_mode_new":false,"later":null}"#, Pooling::Mean),
        ] {
            assert_eq!(read_text(text).unwrap(), Module { pooling, includes_prompt: true }, "{text}");
        }
        assert!(!read_text(r#"{"include_prompt":false}"#).unwrap().includes_prompt);
    }

    #[test]
    fn what_would_give_other_vectors_is_refused_by_name() {
        for (text, word) in [
            // The mean is on by default.
            (r#"{"pooling_mode_cls_token":true}"#, "cls+mean"),
            (r#"{"pooling_mode_max_tokens":true,"pooling_mode_mean_tokens":false}"#, "`max`"),
            (r#"{"pooling_mode_mean_tokens":false}"#, "mode ``"),
            (r#"{"pooling_mode":"weightedmean"}"#, "weightedmean"),
            (r#"{"pooling_mode_new":true}"#, "pooling_mode_new"),
            (r#"{"layers":[1,2]}"#, "layers"),
            (r#"{"word_embedding_dimension":16}"#, "word_embedding_dimension is 16"),
            (r#"{"pooling_mode":["cls","mean"]}"#, "cannot parse"),
            (r#"{"include_prompt":"no"}"#, "cannot parse"),
        ] {
            let error = read_text(text).unwrap_err();
            let message = error.to_string();
            assert!(
                error.kind() == Kind::Model && message.contains(word) && message.contains("config.json"),
                "{text}: {message}"
            );
        }
    }
}
