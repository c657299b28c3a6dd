//! A model that runs in this process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use futures_util::future::BoxFuture;
use likewise_encoder::PassCost;

use super::batcher::{Batcher, ForwardPass};
use super::encoder::{Encoder, FloatTable, RECIPE};
use super::metrics::EmbedMetrics;
use super::model_dir::ModelDir;
use super::option_path::option_path;
use super::queue_room::QueueRoom;
use super::token_ids::{TokenIds, check_bytes, decode_cl100k};
use super::tokenizer::{TextToken, TokenizedText, Tokenizer};
use super::verifier::{Verifier, sha256, shipped_for};
use super::{EmbedJob, Embedder, Matryoshka, ModelCard, Options};
use crate::domain::{Fingerprint, KeyHasher, UnixSeconds};
use crate::error::{Error, Kind, Result};

/// A sentence-transformers model behind a batcher.
pub struct LocalEmbedder {
    card: ModelCard,
    batcher: Batcher,
    tokenizer: Tokenizer,
    token_ids: TokenIds,
    verifier: LazyVerifier,
    cost: PassCost,
}

/// The verifier of a model, loaded when it is first needed.
struct LazyVerifier {
    tokenizer_sha256: String,
    words: FloatTable,
    norm_epsilon: f64,
    loaded: OnceLock<Option<Arc<Verifier>>>,
}

impl LazyVerifier {
    fn get(&self, tokenizer: &Tokenizer) -> Option<&Arc<Verifier>> {
        let load = || {
            shipped_for(tokenizer, &self.tokenizer_sha256, &self.words, self.norm_epsilon)
                .inspect_err(|error| tracing::error!(%error, "cannot load the verifier"))
                .ok()
                .flatten()
        };
        self.loaded.get_or_init(|| load().map(Arc::new)).as_ref()
    }
}

/// The files of a model, read and checked.
struct ModelFiles {
    model: ModelDir,
    tokenizer: Tokenizer,
    tokenizer_json: Vec<u8>,
    weights_path: PathBuf,
    weights: Vec<u8>,
    card: ModelCard,
}

impl ModelFiles {
    fn read(dir: &Path, name: &str, options: &Options) -> Result<ModelFiles> {
        let model = ModelDir::read(dir, name)?;
        let tokens_max = options.tokens_max.unwrap_or(model.tokens_max);
        if tokens_max > model.shape.positions {
            let path = option_path("tokens_max");
            let fault = format!(" must be at most {}, got {tokens_max}", model.shape.positions);
            return Err(Error::naming(Kind::Config, path, "", &fault));
        }
        let prompts = options.prompts.clone().or(model.prompts.clone());
        if !model.includes_prompt && !prompts.is_empty() {
            return Err(Error::new(
                Kind::Model,
                "cannot use the model: its pooling leaves out the prompt (include_prompt: false), which is not \
                 supported; set embed.prompts to empty texts to embed without prompts",
            ));
        }
        let (tokenizer, tokenizer_json) = read_tokenizer(&model, tokens_max)?;
        let weights_path = model.transformer.join("model.safetensors");
        let weights = read(&weights_path)?;
        let is_matryoshka = options.is_matryoshka.unwrap_or(model.is_matryoshka);
        let card = ModelCard {
            name: name.to_owned(),
            fingerprint: fingerprint(&model, tokens_max, &tokenizer_json, &weights),
            dim: model.shape.hidden,
            tokens_max,
            prompts,
            pooling: Some(model.pooling.name()),
            matryoshka: if is_matryoshka { Matryoshka::Any } else { Matryoshka::No },
            created: modified(&weights_path),
        };
        Ok(ModelFiles { model, tokenizer, tokenizer_json, weights_path, weights, card })
    }
}

impl LocalEmbedder {
    /// Loads the model of a directory and starts its threads. It is served under `name`.
    ///
    /// Cost: reads and hashes the weights; holds them as f32, four bytes a parameter.
    ///
    /// # Errors
    /// `Model`, naming the file; `Config` about the options.
    pub fn load(
        dir: &Path,
        name: &str,
        options: &Options,
        metrics: Arc<EmbedMetrics>,
    ) -> Result<LocalEmbedder> {
        let room = Arc::new(QueueRoom::new(options.queue_texts_max, 1));
        LocalEmbedder::load_with(dir, name, options, metrics, room)
    }

    /// As [`LocalEmbedder::load`], with this room before its queue.
    pub(super) fn load_with(
        dir: &Path,
        name: &str,
        options: &Options,
        metrics: Arc<EmbedMetrics>,
        room: Arc<QueueRoom>,
    ) -> Result<LocalEmbedder> {
        let ModelFiles { model, tokenizer, tokenizer_json, weights_path, weights, card } =
            ModelFiles::read(dir, name, options)?;
        let encoder = Encoder::new(&weights, model.shape.clone(), model.pooling, model.normalizes)
            .map_err(|error| error.with("path", weights_path.display()))?;
        drop(weights);
        let verifier = LazyVerifier {
            tokenizer_sha256: sha256([tokenizer_json]),
            words: encoder.words().clone(),
            norm_epsilon: model.shape.norm_epsilon,
            loaded: OnceLock::new(),
        };
        let cost = encoder.cost();
        let batcher = Batcher::start(tokenizer.clone(), encoder, options, metrics, room)?;
        Ok(LocalEmbedder { card, batcher, tokenizer, token_ids: options.token_ids, verifier, cost })
    }

    /// The properties of the model of a directory, which is not loaded.
    ///
    /// Cost: reads and hashes the weights.
    ///
    /// # Errors
    /// As [`LocalEmbedder::load`].
    pub fn describe(dir: &Path, name: &str, options: &Options) -> Result<ModelCard> {
        ModelFiles::read(dir, name, options).map(|files| files.card)
    }
}

/// Checks the small files of a model's directory: whether a model of its kind can be used. The weights need not be there yet.
///
/// Cost: builds the tokenizer, up to a second for the largest vocabularies.
///
/// # Errors
/// `Model`, naming the file that is missing, malformed or needs an unsupported feature.
pub fn check_model_dir(dir: &Path, name: &str) -> Result<()> {
    let model = ModelDir::read(dir, name)?;
    read_tokenizer(&model, model.tokens_max).map(|_| ())
}

/// The tokenizer of a model, and the bytes of its file.
fn read_tokenizer(model: &ModelDir, tokens_max: usize) -> Result<(Tokenizer, Vec<u8>)> {
    let path = model.dir.join("tokenizer.json");
    let json = read(&path)?;
    let tokenizer = Tokenizer::from_json(&json, tokens_max, model.lowercases)
        .map_err(|error| error.with("path", path.display()))?;
    if tokenizer.vocabulary() <= model.shape.vocabulary {
        return Ok((tokenizer, json));
    }
    let message = "cannot use the model: its tokenizer has more tokens than its vocabulary";
    Err(Error::new(Kind::Model, message)
        .with("tokenizer", tokenizer.vocabulary())
        .with("model", model.shape.vocabulary)
        .with("path", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs_err::read(path).map_err(|error| Error::new(Kind::Model, "cannot read the model").source(error))
}

/// When a file was written; 0 if the file system does not record it.
fn modified(path: &Path) -> UnixSeconds {
    let time = fs_err::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let seconds =
        time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    UnixSeconds(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// The hash of everything that can change a vector: contents, not names. Prompts are part of each key instead.
fn fingerprint(model: &ModelDir, tokens_max: usize, tokenizer: &[u8], weights: &[u8]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(weights);
    let shape = format!("{:?} {:?}", model.shape, model.pooling);
    let key = KeyHasher::new("likewise/model/v1")
        .field(RECIPE.as_bytes())
        .field(hasher.finalize().as_bytes())
        .field(tokenizer)
        .field(shape.as_bytes())
        .field(&[u8::from(model.normalizes), u8::from(model.lowercases)])
        .field(&(tokens_max as u64).to_le_bytes())
        .finish();
    Fingerprint(key.0)
}

impl ForwardPass for Encoder {
    fn embed(&self, texts: &[&TokenizedText]) -> Result<Vec<Vec<f32>>> {
        Encoder::embed(self, texts)
    }
}

impl Embedder for LocalEmbedder {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn room(&self) -> Option<&QueueRoom> {
        Some(self.batcher.room())
    }

    fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()> {
        self.batcher.submit(jobs)
    }

    fn count_tokens(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Option<Vec<usize>>>> {
        Box::pin(async move {
            let counts = self.batcher.count(texts)?.await;
            counts.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, "the model has stopped"))).map(Some)
        })
    }

    fn tokenize(&self, text: &str, adds_specials: bool) -> Result<Vec<TextToken>> {
        self.tokenizer.tokens(text, adds_specials)
    }

    fn decode_tokens(&self, ids: &[u32], bytes_max: usize) -> Result<String> {
        match self.token_ids {
            TokenIds::Cl100k => decode_cl100k(ids, bytes_max),
            TokenIds::Model => check_bytes(self.tokenizer.decode(ids)?, bytes_max),
        }
    }

    fn verifier(&self) -> Option<&Arc<Verifier>> {
        self.verifier.get(&self.tokenizer)
    }

    fn operations(&self, lengths: &[usize]) -> Option<u64> {
        Some(self.cost.operations(lengths))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn queued(&self) -> usize {
        self.batcher.queued()
    }

    fn is_alive(&self) -> bool {
        self.batcher.is_alive()
    }
}
