//! Builds every part in order, owns the background tasks, and stops them in the opposite order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cache::{Cache, DiskTier, Freshness, MemoryTier, Tier};
use crate::config::Config;
use crate::domain::{Clock, SystemClock};
use crate::embed::{Embedder, LocalEmbedder, RemoteEmbedder};
use crate::error::{Error, Kind, Result};
use crate::http::{self, Names, Parts, Readiness, Server, State};
use crate::metrics::Metrics;
use crate::service::Embeddings;
use crate::storage::{DataDirectory, OsFiles, VectorStore};

/// The parts below HTTP: enough for a command that embeds without serving.
pub struct Engine {
    /// The use case.
    pub embeddings: Arc<Embeddings>,
    cache: Arc<Cache>,
    embedder: Arc<dyn Embedder>,
    metrics: Arc<Metrics>,
    store: Arc<VectorStore>,
    // Held until the end: the directory stays locked for as long as anything may write to it.
    _directory: DataDirectory,
}

impl Engine {
    /// Locks the data directory, opens the tiers and loads the model. Blocks; must be called within a runtime.
    ///
    /// # Errors
    /// `Locked`, `Format`, `Io` about the data directory; `Model` about the model; `Config` about the options.
    pub fn build(config: &Config) -> Result<Engine> {
        let metrics = Arc::new(Metrics::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let directory = DataDirectory::open(&config.data.dir)?;
        let embedder = embedder(config, &metrics)?;
        let (store, recovery) = VectorStore::open(
            Arc::new(OsFiles),
            &directory.vectors(),
            &config.cache.disk,
            Arc::clone(&clock),
            Arc::clone(&metrics),
        )?;
        tracing::info!(?recovery, "opened the disk tier");
        let store = Arc::new(store);
        let disk: Arc<dyn Tier> =
            Arc::new(DiskTier::new(Arc::clone(&store), config.cache.disk.bytes_max, &metrics)?);
        let memory = Arc::new(MemoryTier::new(&config.cache.memory, &metrics)?);
        let cache = Arc::new(Cache::new(memory, vec![disk], Freshness::new(clock)));
        let embeddings = Arc::new(Embeddings::new(
            Arc::clone(&cache),
            Arc::clone(&embedder),
            config.embeddings.clone(),
            &metrics,
        ));
        Ok(Engine { embeddings, cache, embedder, metrics, store, _directory: directory })
    }

    /// Makes everything stored survive a loss of power and releases the data directory.
    pub async fn close(self) {
        self.cache.flush().await;
        self.store.close().await;
    }
}

fn embedder(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<dyn Embedder>> {
    let dir = match (&config.model.dir, &config.embed.remote.base_url) {
        (Some(_), Some(_)) => {
            let message = "two models: give model.dir (or --model) or embed.remote.base_url, not both";
            return Err(Error::new(Kind::Config, message));
        }
        (None, None) => {
            let message =
                "no model: give --model DIR, or model.dir or embed.remote.base_url in the configuration";
            return Err(Error::new(Kind::Config, message));
        }
        (None, Some(_)) => {
            let name = config.model.name.as_deref();
            return Ok(Arc::new(RemoteEmbedder::connect(name, &config.embed, Arc::clone(metrics))?));
        }
        (Some(dir), None) => dir,
    };
    let name = config.model.name.clone().or_else(|| Some(dir.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| "model".into());
    Ok(Arc::new(LocalEmbedder::load(dir, &name, &config.embed, Arc::clone(metrics))?))
}

/// Serves until `stop` is done. `on_ready` learns the address once requests are welcome.
///
/// # Errors
/// Whatever keeps the server from starting; see [`Engine::build`].
pub async fn serve(
    config: Config,
    on_ready: impl FnOnce(SocketAddr, &str),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let server = Server::bind(&config.http).await?;
    let engine = tokio::task::block_in_place(|| Engine::build(&config))?;
    let card = engine.embedder.card().clone();
    let readiness = Arc::new(Readiness::default());
    let router = http::router(
        &config.http,
        Parts {
            embeddings: Arc::clone(&engine.embeddings),
            embedder: Arc::clone(&engine.embedder),
            cache: Arc::clone(&engine.cache),
            names: Arc::new(Names::new(card.clone(), config.model.aliases.clone())),
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&engine.metrics),
        },
    )?;
    readiness.set(State::Ready);
    on_ready(server.address(), &card.name);
    let stop = async {
        stop.await;
        tracing::info!("stopping: requests under way are finished");
        readiness.set(State::Stopping);
    };
    http::serve(server, router, stop).await;
    engine.close().await;
    tracing::info!("stopped");
    Ok(())
}
