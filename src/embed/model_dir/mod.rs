//! A model directory of sentence-transformers: small JSON files beside the weights.
//!
//! Defaults are those of sentence-transformers. An unsupported module or option is refused by name: vectors that a guess
//! gives are plausible and wrong.

mod json_file;
mod pooling;
mod tokenizer_config;

use std::path::{Path, PathBuf};

use likewise_encoder::Activation;
use serde::Deserialize;

use self::json_file::{optional, required, unsupported};
pub(super) use self::pooling::Pooling;
use self::tokenizer_config::TokenizerConfig;
use super::prompts::{Family, Prompts, family_of};
use crate::error::{Error, Kind, Result};

/// The encoder's shape, from `config.json`.
#[derive(Debug, Clone)]
pub(super) struct EncoderShape {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) feed_forward: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    /// The position of the first token: RoBERTa counts from the padding token's id and one.
    pub(super) first_position: usize,
    pub(super) norm_epsilon: f64,
    pub(super) activation: Activation,
}

/// Everything in the directory but weights and vocabulary.
#[derive(Debug)]
pub(super) struct ModelDir {
    pub(super) dir: PathBuf,
    /// Where the transformer's files are; usually `dir` itself.
    pub(super) transformer: PathBuf,
    pub(super) shape: EncoderShape,
    pub(super) pooling: Pooling,
    /// Whether the tokens of a prompt are pooled too.
    pub(super) includes_prompt: bool,
    pub(super) normalizes: bool,
    pub(super) lowercases: bool,
    pub(super) tokens_max: usize,
    pub(super) prompts: Prompts,
    pub(super) is_matryoshka: bool,
}

#[derive(Deserialize)]
struct ModuleJson {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct ConfigJson {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    pad_token_id: Option<usize>,
    #[serde(default)]
    is_decoder: Option<bool>,
    #[serde(default)]
    pruned_heads: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    quantization_config: Option<serde_json::Value>,
    #[serde(rename = "_name_or_path")]
    name_or_path: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SentenceBertJson {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SentenceTransformersJson {
    prompts: std::collections::BTreeMap<String, String>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    model_type: Option<String>,
}

impl ModelDir {
    /// Reads the directory. The model's family is found by `name`.
    ///
    /// # Errors
    /// `Model`, naming the file that is missing, malformed or needs an unsupported feature.
    pub(super) fn read(dir: &Path, name: &str) -> Result<ModelDir> {
        if !dir.is_dir() {
            return Err(Error::new(Kind::Model, "cannot read the model directory: it does not exist")
                .with("path", dir.display()));
        }
        let modules = modules(dir)?;
        let transformer = dir.join(&modules.transformer);
        let config_path = transformer.join("config.json");
        let config: ConfigJson = required(&config_path)?;
        let own_name = config.name_or_path.clone().unwrap_or_default();
        let family = family_of([name, &own_name]);
        let shape = shape(&config, &config_path)?;
        let sentence = sentence(&transformer)?;
        let tokenizer = TokenizerConfig::read(&transformer, dir)?;
        let module = modules.pooling.map(|path| pooling::read(&dir.join(path), shape.hidden));
        let module = module.unwrap_or(Ok(pooling::MEAN))?;
        Ok(ModelDir {
            dir: dir.to_owned(),
            pooling: module.pooling,
            includes_prompt: module.includes_prompt,
            normalizes: modules.normalizes.unwrap_or(family.is_some_and(|family| family.normalizes)),
            lowercases: sentence.do_lower_case,
            tokens_max: tokens_max(&sentence, &tokenizer, &shape),
            prompts: prompts(dir, family)?,
            is_matryoshka: family.is_some_and(|family| family.is_matryoshka),
            transformer,
            shape,
        })
    }
}

/// The supported modules of `modules.json`.
struct Modules {
    transformer: String,
    pooling: Option<String>,
    /// `None` without a `modules.json`.
    normalizes: Option<bool>,
}

fn modules(dir: &Path) -> Result<Modules> {
    let path = dir.join("modules.json");
    if !path.exists() {
        return Ok(Modules { transformer: String::new(), pooling: None, normalizes: None });
    }
    let list: Vec<ModuleJson> = required(&path)?;
    let mut modules = Modules { transformer: String::new(), pooling: None, normalizes: Some(false) };
    for (place, module) in list.into_iter().enumerate() {
        // The package has moved its modules between releases and kept their names.
        let name =
            module.kind.strip_prefix("sentence_transformers.").and_then(|kind| kind.rsplit('.').next());
        match (place, name) {
            (0, Some("Transformer")) => modules.transformer = module.path,
            (1.., Some("Pooling")) if modules.pooling.is_none() => modules.pooling = Some(module.path),
            (2.., Some("Normalize")) => modules.normalizes = Some(true),
            _ => {
                return Err(Error::new(
                    Kind::Model,
                    format!("cannot use the model: the module `{}` is not supported", module.kind),
                )
                .with("path", path.display()));
            }
        }
    }
    if modules.pooling.is_none() {
        let message = "cannot use the model: it has no pooling module";
        return Err(Error::new(Kind::Model, message).with("path", path.display()));
    }
    Ok(modules)
}

fn shape(config: &ConfigJson, path: &Path) -> Result<EncoderShape> {
    let refuse = |what: &str, got: &str| {
        Err(Error::new(Kind::Model, format!("cannot use the model: the {what} `{got}` is not supported"))
            .with("path", path.display()))
    };
    let first_position = match config.model_type.as_str() {
        "bert" => 0,
        "xlm-roberta" | "roberta" | "camembert" => config.pad_token_id.unwrap_or(1) + 1,
        other => return refuse("model_type", other),
    };
    if config.is_decoder == Some(true) {
        return refuse("is_decoder", "true");
    }
    if config.pruned_heads.as_ref().is_some_and(|heads| !heads.is_empty()) {
        return refuse("pruned_heads", "of some layers");
    }
    if config.quantization_config.as_ref().is_some_and(|quantization| !quantization.is_null()) {
        return refuse("quantization_config", "of the weights");
    }
    match config.position_embedding_type.as_deref() {
        None | Some("absolute") => {}
        Some(other) => return refuse("position_embedding_type", other),
    }
    let activation = match config.hidden_act.as_deref() {
        None | Some("gelu") => Activation::Gelu,
        Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
        Some("relu") => Activation::Relu,
        Some(other) => return refuse("hidden_act", other),
    };
    let heads = config.num_attention_heads;
    if heads == 0 || !config.hidden_size.is_multiple_of(heads) || config.hidden_size == 0 {
        return refuse("num_attention_heads", &heads.to_string());
    }
    if config.intermediate_size == 0 {
        return refuse("intermediate_size", "0");
    }
    if config.max_position_embeddings <= first_position {
        return refuse("max_position_embeddings", &config.max_position_embeddings.to_string());
    }
    Ok(EncoderShape {
        hidden: config.hidden_size,
        layers: config.num_hidden_layers,
        heads,
        feed_forward: config.intermediate_size,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings - first_position,
        first_position,
        norm_epsilon: config.layer_norm_eps.unwrap_or(1e-12),
        activation,
    })
}

/// As in sentence-transformers: its own setting, else the tokenizer's, at most the number of positions.
fn tokens_max(sentence: &SentenceBertJson, tokenizer: &TokenizerConfig, shape: &EncoderShape) -> usize {
    sentence.max_seq_length.or(tokenizer.tokens_max()).unwrap_or(shape.positions).min(shape.positions)
}

fn prompts(dir: &Path, family: Option<&Family>) -> Result<Prompts> {
    let path = dir.join("config_sentence_transformers.json");
    let json: SentenceTransformersJson = optional(&path)?;
    let refuse = |what: String| Err(unsupported(&what, &path));
    if let Some(kind) = json.model_type.as_deref().filter(|kind| *kind != "SentenceTransformer") {
        return refuse(format!("the model_type `{kind}` is not supported"));
    }
    if let Some(name) = json.default_prompt_name.as_ref().filter(|name| !json.prompts.contains_key(*name)) {
        return refuse(format!("the default_prompt_name `{name}` is none of the prompts"));
    }
    if let Some(similarity) = json.similarity_fn_name.as_deref().filter(|name| *name != "cosine") {
        // Vectors do not depend on it; each collection has its own metric.
        tracing::warn!(
            similarity,
            "the model was trained for another similarity than cosine: set it as the metric of its collections"
        );
    }
    let named = |names: &[&str]| {
        names.iter().find_map(|name| json.prompts.get(*name)).filter(|prompt| !prompt.is_empty()).cloned()
    };
    let own = Prompts {
        query: named(&["query", "search_query"]),
        document: named(&["document", "passage", "corpus", "search_document"]),
        default: json.default_prompt_name.as_deref().and_then(|name| named(&[name])),
    };
    Ok(own.or(family.map(Family::prompts).unwrap_or_default()))
}

/// Names of one file, by the model that it was first written for (sentence-transformers, `Transformer.load`).
const SENTENCE_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

fn sentence(transformer: &Path) -> Result<SentenceBertJson> {
    // transformers would add an adapter's weights to the model's.
    let adapter = transformer.join("adapter_config.json");
    if adapter.exists() {
        return Err(Error::new(Kind::Model, "cannot use the model: adapters are not supported")
            .with("path", adapter.display()));
    }
    let mut paths = SENTENCE_CONFIGS.iter().map(|name| transformer.join(name));
    paths.find(|path| path.exists()).map_or(Ok(SentenceBertJson::default()), |path| required(&path))
}

#[cfg(test)]
mod tests;
