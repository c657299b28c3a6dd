//! The options of each of several models.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Options, Prompts, RemoteOptions, TokenIds};

/// A model among several: in a directory, or on another server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOptions {
    /// The name in requests; by default that of the directory, or of the model on the other server.
    pub name: Option<String>,
    /// Other names in requests.
    pub aliases: Vec<String>,
    /// The model's directory.
    pub dir: Option<PathBuf>,
    /// When the model of a directory is loaded.
    pub load: LoadTime,
    /// As [`Options::tokens_max`].
    pub tokens_max: Option<usize>,
    /// As [`Options::token_ids`].
    pub token_ids: TokenIds,
    /// As [`Options::prompts`].
    pub prompts: Prompts,
    /// As [`Options::is_matryoshka`].
    pub is_matryoshka: Option<bool>,
    /// The model on another server, instead of a directory.
    pub remote: RemoteOptions,
}

/// When a model is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadTime {
    /// Before the server is ready.
    #[default]
    Start,
    /// When the first text is embedded, which waits for it. Until then the model takes no memory. The default model is loaded at the start.
    FirstUse,
}

impl ModelOptions {
    /// The options of the module for this model: its own, and those that all models have in common.
    pub fn options(&self, common: &Options) -> Options {
        Options {
            batch_tokens_max: common.batch_tokens_max,
            queue_texts_max: common.queue_texts_max,
            tokens_max: self.tokens_max,
            token_ids: self.token_ids,
            prompts: self.prompts.clone(),
            is_matryoshka: self.is_matryoshka,
            remote: self.remote.clone(),
        }
    }
}
