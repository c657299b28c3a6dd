//! The embedding models of the configuration.

use std::path::Path;
use std::sync::Arc;

use super::metrics::AppMetrics;
use super::startup_advice;
use crate::config::Config;
use crate::embed::{
    self, EmbedMetrics, Embedder, LoadTime, LocalEmbedder, ModelOptions, ModelRegistry, OnDemandEmbedder,
    RemoteEmbedder,
};
use crate::error::{Error, FieldPath, Kind, Result};

/// Loads all models: that of `[model]` and `[embed]`, which is the default, then those of `[[models]]`.
pub(super) fn load(config: &Config, metrics: &Arc<EmbedMetrics>) -> Result<ModelRegistry> {
    let mut registry = ModelRegistry::default();
    if config.has_default_model() {
        registry.add(default_model(config, metrics)?, config.model.aliases.clone())?;
    }
    check_unused(config)?;
    for (place, model) in config.models.iter().enumerate() {
        let at = FieldPath::from("models").element(place);
        // The default model embeds questions and the texts of collections, and its verifier is needed before.
        let is_default = registry.default_model().is_err();
        let loaded = one_of_several(model, is_default, &config.embed, metrics)
            .map_err(|error| error.map_field(|path| path.renamed("embed", at.clone())).with("model", &at));
        registry.add(loaded?, model.aliases.clone()).map_err(|error| error.with("model", &at))?;
    }
    Ok(registry)
}

/// The default model of the configuration alone, to try it.
///
/// # Panics
/// Outside a runtime.
///
/// # Errors
/// `Model` about the model; `Config` about the options.
pub fn load_default(config: &Config) -> Result<Arc<dyn Embedder>> {
    let metrics = AppMetrics::register().embed;
    let loaded = tokio::task::block_in_place(|| default_model(config, &metrics));
    loaded.map_err(|error| startup_advice::advise(config, error))
}

fn default_model(config: &Config, metrics: &Arc<EmbedMetrics>) -> Result<Arc<dyn Embedder>> {
    let refuse = |message: &str| Err(Error::new(Kind::Config, message));
    match (&config.model.dir, &config.embed.remote.base_url) {
        (Some(_), Some(_)) => {
            refuse("two models: give model.dir (--model) or embed.remote.base_url, not both")
        }
        (None, None) => refuse(
            "no model: give --model MODEL, or model.dir or embed.remote.base_url in the configuration; --model none serves without",
        ),
        (None, Some(_)) => remote(config.model.name.as_deref(), &config.embed, metrics),
        (Some(dir), None) => {
            local(dir, config.model.name.as_deref(), LoadTime::Start, &config.embed, metrics)
        }
    }
}

/// Refuses options of a default model where there is none.
fn check_unused(config: &Config) -> Result<()> {
    if config.has_default_model() {
        return Ok(());
    }
    let (embed, own) = (&config.embed, embed::Options::default());
    let unused = [
        ("model.name", config.model.name.is_some()),
        ("model.aliases", !config.model.aliases.is_empty()),
        ("embed.tokens_max", embed.tokens_max.is_some()),
        ("embed.is_matryoshka", embed.is_matryoshka.is_some()),
        ("embed.token_ids", embed.token_ids != own.token_ids),
        ("embed.prompts", embed.prompts != own.prompts),
        ("embed.remote", embed.remote != own.remote),
    ];
    match unused.iter().find(|(_, is_given)| *is_given) {
        Some((key, _)) => {
            let message = format!("{key} must not be given without a [model]; give it to one of [[models]]");
            Err(Error::new(Kind::Config, message))
        }
        None => Ok(()),
    }
}

fn one_of_several(
    model: &ModelOptions,
    is_default: bool,
    common: &embed::Options,
    metrics: &Arc<EmbedMetrics>,
) -> Result<Arc<dyn Embedder>> {
    let options = model.options(common);
    match (&model.dir, &model.remote.base_url) {
        (None, Some(_)) if model.load == LoadTime::FirstUse => {
            Err(Error::new(Kind::Config, "load must not be first_use for a model on another server"))
        }
        (None, Some(_)) => remote(model.name.as_deref(), &options, metrics),
        (Some(dir), None) => {
            let load = if is_default { LoadTime::Start } else { model.load };
            local(dir, model.name.as_deref(), load, &options, metrics)
        }
        (Some(_), Some(_)) | (None, None) => {
            Err(Error::new(Kind::Config, "a model must have either dir or remote.base_url"))
        }
    }
}

fn remote(
    name: Option<&str>,
    options: &embed::Options,
    metrics: &Arc<EmbedMetrics>,
) -> Result<Arc<dyn Embedder>> {
    Ok(Arc::new(RemoteEmbedder::connect(name, options, Arc::clone(metrics))?))
}

fn local(
    dir: &Path,
    name: Option<&str>,
    load: LoadTime,
    options: &embed::Options,
    metrics: &Arc<EmbedMetrics>,
) -> Result<Arc<dyn Embedder>> {
    let of_dir = || dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.map(str::to_owned).or_else(of_dir).unwrap_or_else(|| "model".into());
    let metrics = Arc::clone(metrics);
    Ok(match load {
        LoadTime::Start => Arc::new(LocalEmbedder::load(dir, &name, options, metrics)?),
        LoadTime::FirstUse => Arc::new(OnDemandEmbedder::new(dir, &name, options, metrics)?),
    })
}
