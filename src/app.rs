//! Builds every part in order, owns the background tasks, and stops them in the opposite order.

mod caches;
mod job_store;
mod metrics;
mod models;
mod startup_advice;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::byte_budget::ByteBudget;
use crate::cache::warm_restart::WarmRestart;
use crate::cache::{
    Machine, Namespaces, PairFeedback, Replication, SharedStatus, SharedTier, Tiers, WarmUp,
    exchange_feedback,
};
use crate::config::Config;
use crate::domain::{Clock, SystemClock};
use crate::embed::ModelRegistry;
use crate::error::{Error, Kind, Result};
use crate::http::{self, Readiness, RouterParts, Server, State};
use crate::metrics::MetricDescription;
use crate::nodes::Nodes;
use crate::search::{Catalog, Program};
use crate::service::answers::SemanticLookup;
use crate::service::embeddings::UpstreamEmbeddings;
use crate::service::{Answers, Collections, Embeddings, Invalidation, Jobs, Listing, Objects, Rerank};
use crate::storage::collections::Place;
use crate::storage::{DataDirectory, HotKeysFile, ObjectStore, OsFiles, Records, VectorStore};
use crate::upstream::{Origin, Prices, Upstream};

use self::caches::Caches;
use self::job_store::JobTable;
use self::metrics::AppMetrics;
pub use self::models::load_default as load_embedder;

/// The parts below HTTP: enough for a command that embeds without serving.
pub struct Engine {
    /// Embeds texts.
    pub embeddings: Arc<Embeddings>,
    /// Stores objects.
    pub objects: Arc<Objects>,
    /// Searches collections.
    pub collections: Arc<Collections>,
    /// Long work in the background.
    pub jobs: Arc<Jobs>,
    /// Answers questions, from the cache or an upstream.
    pub answers: Arc<Answers>,
    /// Invalidates entries.
    pub invalidation: Arc<Invalidation>,
    /// Lists what is cached.
    pub listing: Arc<Listing>,
    origin: Arc<dyn Origin>,
    tiers: Arc<Tiers>,
    /// The embedding models.
    pub models: Arc<ModelRegistry>,
    budget: Arc<ByteBudget>,
    metrics: AppMetrics,
    stores: Stores,
    /// Moves the memory tier's budget, where it is automatic.
    pressure: Option<JoinHandle<()>>,
    /// Rebuilds the index of stored questions.
    indexing: JoinHandle<()>,
    /// Exchanges feedback with the other nodes.
    exchanging: Option<JoinHandle<()>>,
    shared: Option<Arc<SharedTier>>,
    nodes: Arc<Nodes>,
    warm_up: WarmUp,
    /// Follows the other nodes for as long as it is held.
    replication: Option<Replication>,
    // Held until the end: the directory stays locked for as long as anything may write to it.
    directory: DataDirectory,
}

/// The metrics of the program, for `docs/reference/metrics.md`.
pub fn metric_descriptions() -> Vec<MetricDescription> {
    AppMetrics::register().descriptions()
}

/// What an engine does not make of its configuration alone.
pub struct Environment {
    origin: Arc<dyn Origin>,
    /// The clock that all entries live by.
    pub clock: Arc<dyn Clock>,
    budget: Arc<ByteBudget>,
    metrics: AppMetrics,
}

impl Environment {
    /// The upstream of the configuration and the clock of the machine.
    ///
    /// # Errors
    /// `Config` about the options of the upstream.
    pub fn new(config: &Config) -> Result<Environment> {
        let (budget, metrics) = Environment::budget(config);
        let origin = Upstream::new(&config.upstream, Arc::clone(&budget), Arc::clone(&metrics.upstream))?;
        Ok(Environment { origin: Arc::new(origin), clock: Arc::new(SystemClock), budget, metrics })
    }

    /// `origin` in place of the upstream of the configuration.
    pub fn over(config: &Config, origin: Arc<dyn Origin>) -> Environment {
        let (budget, metrics) = Environment::budget(config);
        Environment { origin, clock: Arc::new(SystemClock), budget, metrics }
    }

    /// The byte budget of all requests in flight on this machine, with the metrics that it counts in.
    fn budget(config: &Config) -> (Arc<ByteBudget>, AppMetrics) {
        let metrics = AppMetrics::register();
        let bytes_max = config.http.inflight_bytes(Machine::read().total);
        (ByteBudget::new(bytes_max, Arc::clone(&metrics.budget)), metrics)
    }
}

/// The stores on disk.
struct Stores {
    vectors: Arc<VectorStore>,
    objects: Arc<ObjectStore>,
    records: Arc<Records>,
    catalog: Arc<Catalog>,
}

impl Engine {
    /// Locks the data directory, opens the tiers and loads the model.
    ///
    /// # Errors
    /// `Locked`, `Format`, `Corrupt`, `Io` about the data directory; `Model` about the model; `Config` about the options.
    pub async fn build(config: &Config) -> Result<Engine> {
        let environment = Environment::new(config).map_err(|error| startup_advice::advise(config, error))?;
        Engine::build_in(config, environment).await
    }

    /// As [`Engine::build`], in an environment that stands for the real one.
    ///
    /// # Errors
    /// As [`Engine::build`].
    pub async fn build_in(config: &Config, environment: Environment) -> Result<Engine> {
        Engine::assemble(config, environment).await.map_err(|error| startup_advice::advise(config, error))
    }

    async fn assemble(config: &Config, environment: Environment) -> Result<Engine> {
        let Environment { origin, clock, budget, metrics } = environment;
        let namespaces =
            Arc::new(Namespaces::new(&config.cache.namespaces, config.cache.allow_unknown_namespaces)?);
        let directory = tokio::task::block_in_place(|| DataDirectory::open(&config.data.dir))
            .map_err(|error| advise_on_access(config, error))?;
        let (models, stores) = tokio::task::block_in_place(|| {
            beside(
                || models::load(config, &metrics.embed),
                || Stores::open(config, &directory, &clock, &metrics),
            )
        });
        let (models, stores) = (Arc::new(models?), stores?);
        let caches = Caches::open(config, &stores, Arc::clone(&clock), &metrics).await?;
        let warm_up = WarmUp {
            tiers: Arc::clone(&caches.tiers),
            embeddings: Arc::clone(&caches.vectors),
            objects: Arc::clone(&caches.objects),
            namespaces: Arc::clone(&namespaces),
        };
        let embeddings = Arc::new(Embeddings::new(
            caches.vectors,
            Arc::clone(&namespaces),
            config.embeddings.clone(),
            Arc::clone(&metrics.texts),
            Duration::from_secs(config.http.request_timeout_seconds),
        ));
        let feedback = tokio::task::block_in_place(|| PairFeedback::open(Arc::clone(&stores.records)))?;
        let feedback = Arc::new(feedback);
        let semantic = semantic_lookup(config, &embeddings, &models, &namespaces, &feedback)?;
        let answers = Answers::new(
            Arc::clone(&caches.objects),
            Arc::clone(&namespaces),
            Arc::clone(&origin),
            &config.upstream,
            config.answers.clone(),
            &budget,
            Arc::clone(&metrics.answers),
        );
        let answers = Arc::new(match semantic {
            Some(semantic) => answers.with_semantic_lookup(semantic),
            None => answers,
        });
        let objects = Arc::new(Objects::new(
            caches.objects,
            Arc::clone(&namespaces),
            config.objects.clone(),
            Arc::clone(&metrics.objects),
        ));
        let collections = Arc::new(Collections::new(
            Arc::clone(&stores.catalog),
            Arc::clone(&models),
            Arc::clone(&embeddings),
            caches.results,
            Arc::clone(&namespaces),
            config.collections.clone(),
            Arc::clone(&metrics.queries),
        ));
        let jobs = tokio::task::block_in_place(|| {
            Jobs::open(
                Arc::clone(&collections),
                Arc::new(JobTable(Arc::clone(&stores.records))),
                Prices::new(&config.upstream.prices),
                clock,
                config.jobs.clone(),
                Arc::clone(&metrics.jobs),
            )
        })?;
        let listing = Arc::new(Listing::new(
            Arc::clone(&caches.tiers),
            Arc::clone(&namespaces),
            caches.freshness.clone(),
        ));
        let invalidation = Arc::new(Invalidation::new(
            Arc::clone(&objects),
            namespaces,
            Arc::clone(&caches.tiers),
            caches.freshness,
            Arc::clone(&metrics.invalidations),
        ));
        let indexing = tokio::spawn(Answers::index_stored_questions(
            Arc::downgrade(&answers),
            Arc::clone(&caches.tiers),
        ));
        let exchanging =
            caches.pairs.map(|pairs| tokio::spawn(exchange_feedback(Arc::downgrade(&feedback), pairs)));
        let shared = caches.registry.zip(caches.shared.clone());
        let nodes = Arc::new(Nodes::new(config.nodes.clone(), shared, Arc::clone(&metrics.nodes))?);
        Ok(Engine {
            embeddings,
            objects,
            collections,
            jobs: Arc::new(jobs),
            answers,
            invalidation,
            listing,
            origin,
            tiers: caches.tiers,
            models,
            budget,
            metrics,
            stores,
            pressure: caches.pressure,
            indexing,
            exchanging,
            shared: caches.shared,
            nodes,
            warm_up,
            replication: caches.replication,
            directory,
        })
    }

    /// The models that only an upstream has.
    fn upstream_embeddings(&self, config: &Config) -> UpstreamEmbeddings {
        UpstreamEmbeddings::new(
            Arc::clone(&self.embeddings),
            Arc::clone(&self.origin),
            config.upstream.forwards_any_client_key(),
            Arc::clone(&self.metrics.embed),
        )
    }

    /// Models of upstreams that score documents.
    fn rerank(&self, config: &Config) -> Rerank {
        let (embeddings, origin) = (Arc::clone(&self.embeddings), Arc::clone(&self.origin));
        Rerank::new(embeddings, origin, config.upstream.forwards_any_client_key())
    }

    /// Begins to read into memory what was there before the start, and to write down what is there. `None` if that is off.
    fn warm_restart(&self, config: &Config) -> Option<WarmRestart> {
        let file = HotKeysFile::new(Arc::new(OsFiles), self.directory.root());
        let metrics = Arc::clone(&self.metrics.warm_restart);
        WarmRestart::start(&config.cache.warm_restart, self.warm_up.clone(), file, metrics)
    }

    /// How the node stands to the others. `None` if it shares nothing.
    pub fn shared_status(&self) -> Option<SharedStatus> {
        self.shared.as_ref().map(|shared| shared.status())
    }

    /// Makes everything stored survive a loss of power and releases the data directory.
    pub async fn close(self) {
        if let Some(pressure) = &self.pressure {
            pressure.abort();
        }
        // Before the collections on which they work.
        self.jobs.close().await;
        self.indexing.abort();
        // It has ended when nothing of it writes any more.
        let _ = self.indexing.await;
        if let Some(exchanging) = self.exchanging {
            exchanging.abort();
            let _ = exchanging.await;
        }
        drop(self.replication);
        let catalog = Arc::clone(&self.stores.catalog);
        tokio::task::block_in_place(|| catalog.close());
        self.answers.close().await;
        self.tiers.flush().await;
        self.stores.vectors.close().await;
        tokio::task::block_in_place(|| self.stores.records.shutdown());
    }
}

impl Stores {
    /// Blocks.
    fn open(
        config: &Config,
        directory: &DataDirectory,
        clock: &Arc<dyn Clock>,
        metrics: &AppMetrics,
    ) -> Result<Stores> {
        let (vectors, recovery) = VectorStore::open(
            Arc::new(OsFiles),
            &directory.vectors(),
            &config.cache.disk,
            Arc::clone(clock),
            Arc::clone(&metrics.storage),
        )?;
        tracing::info!(?recovery, "opened the disk tier");
        let records = Arc::new(Records::open(&directory.records())?);
        let objects = ObjectStore::open(
            Arc::clone(&records),
            &config.cache.objects,
            Arc::clone(clock),
            Arc::clone(&metrics.storage),
        )?;
        let place =
            Place { files: Arc::new(OsFiles), dir: directory.collections(), read: config.cache.disk.read };
        let catalog = Arc::new(Catalog::open(
            place,
            config.search.clone(),
            Program::this(),
            Arc::clone(&metrics.search),
        )?);
        Ok(Stores { vectors: Arc::new(vectors), objects: Arc::new(objects), records, catalog })
    }
}

/// Runs two functions at the same time, the first on a thread of its own within the runtime, so that a start takes as
/// long as the slower one.
fn beside<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let first = scope.spawn(move || {
            let _within = runtime.enter();
            first()
        });
        let second = second();
        let first = first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (first, second)
    })
}

/// Most faults of opening a directory are of its permissions or its name.
fn advise_on_access(config: &Config, error: Error) -> Error {
    if error.kind() != Kind::Io {
        return error;
    }
    let dir = config.data.dir.display();
    error.advise(format!(
        "give --data-dir a directory that this user can write to, or make {dir} one: `mkdir -p {dir}`, `chown -R $USER {dir}`"
    ))
}

/// The search for questions in other words, which needs a model.
fn semantic_lookup(
    config: &Config,
    embeddings: &Arc<Embeddings>,
    models: &ModelRegistry,
    namespaces: &Namespaces,
    feedback: &Arc<PairFeedback>,
) -> Result<Option<SemanticLookup>> {
    let options = config.answers.semantic.clone();
    let model = match models.default_model() {
        Ok(model) => Arc::clone(model),
        Err(_) if options.namespaces.is_empty() => return Ok(None),
        Err(_) => {
            let message = "answers.semantic.namespaces must be empty without an embedding model";
            return Err(Error::new(Kind::Config, message));
        }
    };
    SemanticLookup::new(options, Arc::clone(embeddings), model, namespaces, Arc::clone(feedback)).map(Some)
}

/// Serves until the first of `stops`; the next one ends the requests in flight at once. `on_ready` gets the address
/// once the server is ready, and the name of the default model if there is one.
///
/// # Errors
/// Those of [`Engine::build`], and `Io` if the address cannot be bound.
pub async fn serve(
    config: Config,
    on_ready: impl FnOnce(SocketAddr, Option<&str>),
    mut stops: mpsc::Receiver<()>,
) -> Result<()> {
    tokio::task::block_in_place(|| config.warm.check_files())
        .map_err(|error| startup_advice::advise(&config, error))?;
    let server = Server::bind(&config.http).await?;
    let engine = Engine::build(&config).await?;
    let readiness = Arc::new(Readiness::default());
    let router = http::router(
        &config.http,
        RouterParts {
            embeddings: Arc::clone(&engine.embeddings),
            objects: Arc::clone(&engine.objects),
            invalidation: Arc::clone(&engine.invalidation),
            listing: Arc::clone(&engine.listing),
            collections: Arc::clone(&engine.collections),
            jobs: Arc::clone(&engine.jobs),
            answers: Arc::clone(&engine.answers),
            origin: config.upstream.is_configured().then(|| Arc::clone(&engine.origin)),
            rerank: config.upstream.is_configured().then(|| Arc::new(engine.rerank(&config))),
            upstream_embeddings: config
                .upstream
                .is_configured()
                .then(|| Arc::new(engine.upstream_embeddings(&config))),
            forwarded_headers: config.upstream.forwarded_headers.clone(),
            obeys_group_invalidation: config.upstream.obey_group_invalidation,
            models: Arc::clone(&engine.models),
            tiers: Arc::clone(&engine.tiers),
            shared: engine.shared.clone(),
            nodes: Arc::clone(&engine.nodes),
            readiness: Arc::clone(&readiness),
            budget: Arc::clone(&engine.budget),
            queue_texts_max: config.embed.queue_texts_max,
            batch_tokens_max: config.embed.batch_tokens_max,
            metrics: engine.metrics.of_server(),
        },
    )
    .map_err(|error| startup_advice::advise(&config, error))?;
    readiness.set(State::Ready);
    engine.nodes.warm_up(engine.warm_up.clone());
    let warm_restart = engine.warm_restart(&config);
    let own_routes =
        http::OwnRoutes::new(router.clone(), Arc::clone(&engine.objects), Arc::clone(&engine.models));
    engine.jobs.warm_at_start(&config.warm, Arc::new(own_routes)).await;
    engine.jobs.go_on();
    on_ready(server.address(), engine.models.default_model().ok().map(|model| &*model.card().name));
    let on_stop = || {
        tracing::info!("stopping: requests under way are finished");
        readiness.set(State::Stopping);
    };
    let served = http::serve(server, router, &mut stops, on_stop).await;
    if let Some(warm_restart) = warm_restart {
        warm_restart.close().await;
    }
    engine.close().await;
    served?;
    tracing::info!("stopped");
    Ok(())
}
