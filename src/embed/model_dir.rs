//! A model as sentence-transformers keeps it: a directory of small JSON files around the weights.
//!
//! What a file does not say is what sentence-transformers would take; what we cannot do is refused by name, because a
//! guessed module gives plausible and wrong vectors.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::prompts::{Family, Prompts, family_of};
use crate::error::{Error, Kind, Result};

/// How the vectors of the tokens become the vector of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token.
    Cls,
    /// The last token.
    Last,
}

/// The activation between the two layers of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// Gaussian error linear unit, by the error function.
    Gelu,
    /// Its approximation by the hyperbolic tangent.
    GeluTanh,
    /// Rectified linear unit.
    Relu,
}

/// The encoder's shape, from `config.json`.
#[derive(Debug, Clone)]
pub(super) struct Shape {
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
    pub(super) shape: Shape,
    pub(super) pooling: Pooling,
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
    #[serde(rename = "_name_or_path")]
    name_or_path: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PoolingJson {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SentenceBertJson {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenizerConfigJson {
    /// transformers writes 1e30 for "no limit", so it is read as a float.
    model_max_length: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SentenceTransformersJson {
    prompts: std::collections::BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

impl ModelDir {
    /// Reads the directory. `name` is what the model is called, to find its family.
    ///
    /// # Errors
    /// `Model`, naming the file that is missing, malformed or asks for something that is not built.
    pub(super) fn read(dir: &Path, name: &str) -> Result<ModelDir> {
        if !dir.is_dir() {
            return Err(
                Error::new(Kind::Model, "the model directory does not exist").with("path", dir.display())
            );
        }
        let modules = modules(dir)?;
        let transformer = dir.join(&modules.transformer);
        let config_path = transformer.join("config.json");
        let config: ConfigJson = required(&config_path)?;
        let own_name = config.name_or_path.clone().unwrap_or_default();
        let family = family_of([name, &own_name]);
        let shape = shape(&config, &config_path)?;
        let sentence: SentenceBertJson = optional(&transformer.join("sentence_bert_config.json"))?;
        let tokenizer: TokenizerConfigJson = optional(&transformer.join("tokenizer_config.json"))?;
        Ok(ModelDir {
            dir: dir.to_owned(),
            pooling: modules.pooling.map_or(Ok(Pooling::Mean), |path| pooling(&dir.join(path)))?,
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

/// The modules that we know, from `modules.json`.
struct Modules {
    transformer: String,
    pooling: Option<String>,
    /// None where there is no `modules.json` to tell.
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
        // The package has moved its modules between releases; their names have stayed.
        let name =
            module.kind.strip_prefix("sentence_transformers.").and_then(|kind| kind.rsplit('.').next());
        match (place, name) {
            (0, Some("Transformer")) => modules.transformer = module.path,
            (1.., Some("Pooling")) if modules.pooling.is_none() => modules.pooling = Some(module.path),
            (2.., Some("Normalize")) => modules.normalizes = Some(true),
            _ => {
                return Err(Error::new(
                    Kind::Model,
                    format!("the module `{}` is not supported", module.kind),
                )
                .with("path", path.display()));
            }
        }
    }
    Ok(modules)
}

fn shape(config: &ConfigJson, path: &Path) -> Result<Shape> {
    let refuse = |what: &str, got: &str| {
        Err(Error::new(Kind::Model, format!("the {what} `{got}` is not supported"))
            .with("path", path.display()))
    };
    let first_position = match config.model_type.as_str() {
        "bert" => 0,
        "xlm-roberta" | "roberta" | "camembert" => config.pad_token_id.unwrap_or(1) + 1,
        other => return refuse("model_type", other),
    };
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
    if config.max_position_embeddings <= first_position {
        return refuse("max_position_embeddings", &config.max_position_embeddings.to_string());
    }
    Ok(Shape {
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

fn pooling(module: &Path) -> Result<Pooling> {
    let path = module.join("config.json");
    let json: PoolingJson = required(&path)?;
    let by_flag = [
        ("cls", json.pooling_mode_cls_token),
        ("mean", json.pooling_mode_mean_tokens),
        ("max", json.pooling_mode_max_tokens),
        ("mean_sqrt_len_tokens", json.pooling_mode_mean_sqrt_len_tokens),
        ("weightedmean", json.pooling_mode_weightedmean_tokens),
        ("lasttoken", json.pooling_mode_lasttoken),
    ];
    let named = match json.pooling_mode {
        Some(mode) => mode,
        None => {
            by_flag.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect::<Vec<_>>().join("+")
        }
    };
    match named.as_str() {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::Cls),
        "lasttoken" => Ok(Pooling::Last),
        other => Err(Error::new(Kind::Model, format!("the pooling mode `{other}` is not supported"))
            .with("path", path.display())),
    }
}

/// What sentence-transformers takes: its own setting, else the tokenizer's, and never more than there are positions.
fn tokens_max(sentence: &SentenceBertJson, tokenizer: &TokenizerConfigJson, shape: &Shape) -> usize {
    let by_tokenizer =
        tokenizer.model_max_length.filter(|max| (1.0..=1e6).contains(max)).map(|max| max as usize);
    sentence.max_seq_length.or(by_tokenizer).unwrap_or(shape.positions).min(shape.positions)
}

fn prompts(dir: &Path, family: Option<&Family>) -> Result<Prompts> {
    let json: SentenceTransformersJson = optional(&dir.join("config_sentence_transformers.json"))?;
    let named = |names: &[&str]| {
        names.iter().find_map(|name| json.prompts.get(*name)).filter(|prompt| !prompt.is_empty()).cloned()
    };
    let own = Prompts {
        query: named(&["query", "search_query"]),
        document: named(&["document", "passage", "search_document"]),
        default: json.default_prompt_name.as_deref().and_then(|name| named(&[name])),
    };
    Ok(own.or(family.map(Family::prompts).unwrap_or_default()))
}

fn required<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs_err::read_to_string(path)
        .map_err(|error| Error::new(Kind::Model, "read the model directory").source(error))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::new(Kind::Model, "a file of the model directory is malformed")
            .with("path", path.display())
            .source(error)
    })
}

fn optional<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    if path.exists() { required(path) } else { Ok(T::default()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"model_type":"bert","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,
        "intermediate_size":16,"vocab_size":10,"max_position_embeddings":64,"hidden_act":"gelu"}"#;

    fn read(files: &[(&str, &str)], name: &str) -> Result<ModelDir> {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        ModelDir::read(dir.path(), name)
    }

    fn refused(files: &[(&str, &str)]) -> String {
        let error = read(files, "m").unwrap_err();
        assert_eq!(error.kind(), Kind::Model);
        error.to_string()
    }

    #[test]
    fn a_bare_directory_is_a_transformer_with_mean_pooling() {
        let model = read(&[("config.json", CONFIG)], "m").unwrap();
        assert_eq!((model.pooling, model.normalizes, model.tokens_max), (Pooling::Mean, false, 64));
        let e5 = read(&[("config.json", CONFIG)], "multilingual-e5-small").unwrap();
        assert!(e5.normalizes);
        assert_eq!(e5.prompts.query.as_deref(), Some("query: "));
    }

    #[test]
    fn the_models_own_length_wins_over_the_tokenizers() {
        let files = [
            ("config.json", CONFIG),
            ("sentence_bert_config.json", r#"{"max_seq_length":32}"#),
            ("tokenizer_config.json", r#"{"model_max_length":16}"#),
        ];
        assert_eq!(read(&files, "m").unwrap().tokens_max, 32);
        assert_eq!(read(&[files[0], files[2]], "m").unwrap().tokens_max, 16);
        let unlimited = ("tokenizer_config.json", r#"{"model_max_length":1e30}"#);
        assert_eq!(read(&[files[0], unlimited], "m").unwrap().tokens_max, 64);
    }

    #[test]
    fn modules_are_read_and_their_folders_may_be_absent() {
        let modules = r#"[{"path":"","type":"sentence_transformers.models.Transformer"},
            {"path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
            {"path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#;
        let pooling = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#;
        let files = [("config.json", CONFIG), ("modules.json", modules), ("1_Pooling/config.json", pooling)];
        let model = read(&files, "m").unwrap();
        assert_eq!((model.pooling, model.normalizes), (Pooling::Cls, true));
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let dense = r#"[{"path":"","type":"sentence_transformers.models.Transformer"},
            {"path":"2_Dense","type":"sentence_transformers.models.Dense"}]"#;
        let said = refused(&[("config.json", CONFIG), ("modules.json", dense)]);
        assert!(said.contains("models.Dense") && said.contains("modules.json"), "{said}");
        let said = refused(&[("config.json", &CONFIG.replace("\"bert\"", "\"mpnet\""))]);
        assert!(said.contains("mpnet") && said.contains("config.json"), "{said}");
        let said = refused(&[("config.json", &CONFIG.replace("gelu", "swish"))]);
        assert!(said.contains("swish"), "{said}");
        let modules = dense.replace("2_Dense", "1_Pooling").replace("Dense", "Pooling");
        let both = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true}"#;
        let said =
            refused(&[("config.json", CONFIG), ("modules.json", &modules), ("1_Pooling/config.json", both)]);
        assert!(said.contains("cls+mean"), "{said}");
    }

    #[test]
    fn missing_and_malformed_files_are_named() {
        assert!(refused(&[]).contains("config.json"));
        assert!(refused(&[("config.json", "{")]).contains("config.json"));
        assert!(refused(&[("config.json", CONFIG), ("modules.json", "[1]")]).contains("modules.json"));
    }

    #[test]
    fn prompts_of_the_directory_win_over_the_familys() {
        let own = r#"{"prompts":{"query":"Q: ","document":""},"default_prompt_name":"query"}"#;
        let files = [("config.json", CONFIG), ("config_sentence_transformers.json", own)];
        let prompts = read(&files, "e5-base").unwrap().prompts;
        assert_eq!(prompts.query.as_deref(), Some("Q: "));
        assert_eq!(prompts.default.as_deref(), Some("Q: "));
        assert_eq!(prompts.document.as_deref(), Some("passage: "));
    }
}
