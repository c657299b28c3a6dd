//! A local model that is loaded when its first text is embedded.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::local::LocalEmbedder;
use super::metrics::EmbedMetrics;
use super::option_path::option_path;
use super::queue_room::QueueRoom;
use super::token_ids::decode_cl100k;
use super::verifier::Verifier;
use super::{EmbedJob, Embedder, ModelCard, Options, TokenIds};
use crate::error::{Error, Kind, Result};

/// How long a failure to load is remembered, during which requests fail with it.
const FAILURE_LASTS: Duration = Duration::from_secs(2);

/// A model that takes no memory before it is used. Once loaded, it stays.
pub struct OnDemandEmbedder {
    card: ModelCard,
    model: Arc<UnloadedModel>,
}

struct UnloadedModel {
    dir: PathBuf,
    card: ModelCard,
    options: Options,
    metrics: Arc<EmbedMetrics>,
    /// That of the queue of the loaded model, for which texts wait before it is loaded too.
    room: Arc<QueueRoom>,
    loaded: OnceLock<LocalEmbedder>,
    /// Held while it is loaded. The last failure, with its moment.
    loading: tokio::sync::Mutex<Option<(Instant, Error)>>,
    /// Texts that wait for the load.
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
            let fault = " must be \"cl100k\" for a model that is loaded on first use";
            return Err(Error::naming(Kind::Config, option_path("token_ids"), "", fault));
        }
        let card = LocalEmbedder::describe(dir, name, options)?;
        let model = UnloadedModel {
            dir: dir.to_owned(),
            card: card.clone(),
            options: options.clone(),
            metrics,
            room: Arc::new(QueueRoom::new(options.queue_texts_max, 1)),
            loaded: OnceLock::new(),
            loading: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
        };
        Ok(OnDemandEmbedder { card, model: Arc::new(model) })
    }

    /// Counts texts that wait for the load, if there is room for them.
    fn admit(&self, texts: usize) -> Result<()> {
        let max = self.model.options.queue_texts_max;
        let fits = |waiting: usize| waiting.checked_add(texts).filter(|waiting| *waiting <= max);
        let admitted = self.model.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        admitted.map(|_| ()).map_err(|waiting| {
            let message =
                format!("the model is being loaded, and {waiting} texts wait for it; the limit is {max}");
            Error::new(Kind::Overloaded, message)
        })
    }
}

impl UnloadedModel {
    /// Loads the model. Blocks.
    ///
    /// # Errors
    /// As [`LocalEmbedder::load`]; `Model` if the directory holds another model by now.
    fn load(&self) -> Result<LocalEmbedder> {
        let (metrics, room) = (Arc::clone(&self.metrics), Arc::clone(&self.room));
        let loaded = LocalEmbedder::load_with(&self.dir, &self.card.name, &self.options, metrics, room)?;
        if loaded.card().fingerprint != self.card.fingerprint {
            let message =
                "the directory of the model holds another one than at the start: start the server again";
            return Err(Error::new(Kind::Model, message).with("path", self.dir.display()));
        }
        Ok(loaded)
    }

    /// The model, loaded once if need be, on a thread that may block.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be loaded. It is tried again after a while.
    async fn loaded(self: &Arc<Self>) -> Result<&LocalEmbedder> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let mut failure = self.loading.lock().await;
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        if let Some((_, error)) = failure.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_LASTS) {
            return Err(error.clone());
        }
        let model = Arc::clone(self);
        let loading = tokio::task::spawn_blocking(move || model.load());
        let lost = |error| Error::new(Kind::Internal, "cannot load a model").source(error);
        match loading.await.map_err(lost).flatten() {
            Ok(loaded) => {
                tracing::info!(model = self.card.name, "loaded a model on its first use");
                Ok(self.loaded.get_or_init(|| loaded))
            }
            Err(error) => {
                tracing::error!(%error, model = self.card.name, "cannot load a model on its first use");
                let message = format!("the model `{}` cannot be loaded", self.card.name);
                let error = Error::new(Kind::Unavailable, message);
                *failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

impl Embedder for OnDemandEmbedder {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn room(&self) -> Option<&QueueRoom> {
        Some(&self.model.room)
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
                // They have their places, so that only the death of the model drops them, which their callers notice.
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

    /// That of the loaded model: who needs it before loads the model at the start.
    fn verifier(&self) -> Option<&Arc<Verifier>> {
        self.model.loaded.get()?.verifier()
    }

    fn operations(&self, lengths: &[usize]) -> Option<u64> {
        self.model.loaded.get().and_then(|model| model.operations(lengths))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn queued(&self) -> usize {
        let waiting = self.model.waiting.load(Ordering::Acquire);
        waiting + self.model.loaded.get().map_or(0, Embedder::queued)
    }

    fn is_alive(&self) -> bool {
        self.model.loaded.get().is_none_or(Embedder::is_alive)
    }
}
