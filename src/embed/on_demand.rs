//! A local model that is loaded when its first text is embedded.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use futures_util::future::BoxFuture;

use super::local::LocalEmbedder;
use super::metrics::EmbedMetrics;
use super::option_path::option_path;
use super::queue_room::QueueRoom;
use super::token_ids::decode_cl100k;
use super::verifier::Verifier;
use super::{EmbedJob, Embedder, ModelCard, Options, TokenIds};
use crate::error::{Error, Kind, Result};
use crate::sync::lock;

/// A model that takes no memory before it is used. Once loaded, it stays.
pub struct OnDemandEmbedder {
    card: ModelCard,
    queue_texts_max: usize,
    model: Arc<UnloadedModel>,
}

struct UnloadedModel {
    dir: PathBuf,
    card: ModelCard,
    options: Options,
    metrics: Arc<EmbedMetrics>,
    loaded: OnceLock<LocalEmbedder>,
    /// Held while it is loaded.
    loading: Mutex<()>,
    /// Texts that wait for it.
    waiting: AtomicUsize,
}

impl OnDemandEmbedder {
    /// The model of a directory, which is served under `name`.
    ///
    /// Cost: reads and hashes the weights, and holds nothing of them.
    ///
    /// # Errors
    /// As [`LocalEmbedder::load`].
    pub fn new(
        dir: &Path,
        name: &str,
        options: &Options,
        metrics: Arc<EmbedMetrics>,
    ) -> Result<OnDemandEmbedder> {
        if options.token_ids == TokenIds::Model {
            let path = option_path("token_ids");
            let fault = " must be \"cl100k\" for a model that is loaded on first use";
            return Err(Error::naming(Kind::Config, path, "", fault));
        }
        let card = LocalEmbedder::describe(dir, name, options)?;
        let model = UnloadedModel {
            dir: dir.to_owned(),
            card: card.clone(),
            options: options.clone(),
            metrics,
            loaded: OnceLock::new(),
            loading: Mutex::new(()),
            waiting: AtomicUsize::new(0),
        };
        Ok(OnDemandEmbedder { card, queue_texts_max: options.queue_texts_max, model: Arc::new(model) })
    }

    /// Counts texts that wait for the model, if there is room for them.
    fn admit(&self, texts: usize) -> Result<()> {
        let fits =
            |waiting: usize| waiting.checked_add(texts).filter(|waiting| *waiting <= self.queue_texts_max);
        let admitted = self.model.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        admitted.map(|_| ()).map_err(|waiting| {
            let max = self.queue_texts_max;
            let message =
                format!("the model is being loaded, and {waiting} texts wait for it; the limit is {max}");
            Error::new(Kind::Overloaded, message)
        })
    }
}

impl UnloadedModel {
    /// The model, loaded if need be. Blocks.
    ///
    /// # Errors
    /// As [`LocalEmbedder::load`]; `Model` if the directory holds another model by now. The next call tries again.
    fn load(&self) -> Result<&LocalEmbedder> {
        let _loading = lock(&self.loading);
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let metrics = Arc::clone(&self.metrics);
        let loaded = LocalEmbedder::load(&self.dir, &self.card.name, &self.options, metrics)?;
        if loaded.card().fingerprint != self.card.fingerprint {
            let message =
                "the directory of the model holds another one than at the start: start the server again";
            return Err(Error::new(Kind::Model, message).with("path", self.dir.display()));
        }
        tracing::info!(model = self.card.name, "loaded a model on its first use");
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// Loads the model on a thread that may block.
    async fn loaded(self: &Arc<Self>) -> Result<&LocalEmbedder> {
        if self.loaded.get().is_none() {
            let model = Arc::clone(self);
            let loading = tokio::task::spawn_blocking(move || model.load().map(|_| ()));
            let lost = |error| Error::new(Kind::Internal, "cannot load a model").source(error);
            let loaded = loading.await.map_err(lost).flatten();
            loaded.map_err(|error| unavailable(&self.card.name, &error))?;
        }
        Ok(self.loaded.get().expect("it was loaded: this is a bug"))
    }
}

/// The error for clients of a model that cannot be loaded; the log has the cause.
fn unavailable(name: &str, error: &Error) -> Error {
    tracing::error!(%error, model = name, "cannot load a model on its first use");
    Error::new(Kind::Unavailable, format!("the model `{name}` cannot be loaded"))
}

impl Embedder for OnDemandEmbedder {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    /// That of the loaded model.
    fn room(&self) -> Option<&QueueRoom> {
        self.model.loaded.get()?.room()
    }

    fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()> {
        if let Some(loaded) = self.model.loaded.get() {
            return loaded.submit(jobs);
        }
        self.admit(jobs.len())?;
        let model = Arc::clone(&self.model);
        tokio::spawn(async move {
            let (texts, loaded) = (jobs.len(), model.loaded().await);
            model.waiting.fetch_sub(texts, Ordering::AcqRel);
            match loaded {
                // If the queue is full by now, the jobs are dropped, which their callers notice.
                Ok(loaded) => _ = loaded.submit(jobs),
                // The receiver is closed if its caller has left.
                Err(error) => jobs.into_iter().for_each(|job| _ = job.reply.send(Err(error.clone()))),
            }
        });
        Ok(())
    }

    fn count_tokens(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Option<Vec<usize>>>> {
        Box::pin(async move { self.model.loaded().await?.count_tokens(texts).await })
    }

    fn decode_tokens(&self, ids: &[u32], bytes_max: usize) -> Result<String> {
        decode_cl100k(ids, bytes_max)
    }

    fn verifier(&self) -> Option<&Arc<Verifier>> {
        let loaded = self.model.load().inspect_err(|error| _ = unavailable(&self.card.name, error));
        loaded.ok()?.verifier()
    }

    fn queued(&self) -> usize {
        let waiting = self.model.waiting.load(Ordering::Acquire);
        waiting + self.model.loaded.get().map_or(0, Embedder::queued)
    }

    fn is_alive(&self) -> bool {
        self.model.loaded.get().is_none_or(Embedder::is_alive)
    }
}
