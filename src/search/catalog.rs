//! All collections by tenant and name.

use std::sync::{Arc, RwLock};

use likewise_index::{Scanner, check_processor};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, oneshot};

use super::build::Program;
use super::collection::Collection;
use super::collection_table::{CollectionGenerations, CollectionTable};
use super::filter::Filter;
use super::generation::{FIRST, StoredSettings, owner_of, stored_name};
use super::index_builder::{IndexBuilder, Indexing};
use super::listing::{DocumentPage, PageQuery};
use super::metrics::SearchMetrics;
use super::query::Query;
use super::results::Results;
use super::settings::Settings;
use super::view::View;
use super::writer::CompactionOptions;
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use crate::storage::collections::Place;
use crate::sync::ignore_poison;

/// Bytes that the name of a collection may have.
const NAME_BYTES_MAX: usize = 64;

/// Options of collections and their search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Collections that there may be.
    pub collections_max: usize,
    /// Threads that search; 0 takes one for each core.
    pub threads: usize,
    /// Searches that may wait for a thread; more are refused.
    pub searches_queued_max: usize,
    /// When the log becomes a segment, and when segments are compacted.
    pub compaction: CompactionOptions,
    /// When and how collections are indexed.
    pub index: Indexing,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            collections_max: 256,
            threads: 0,
            searches_queued_max: 1024,
            compaction: CompactionOptions::default(),
            index: Indexing::default(),
        }
    }
}

/// All collections. Shared by `Arc`.
#[derive(Debug)]
pub struct Catalog {
    place: Place,
    options: Options,
    pub(super) table: RwLock<CollectionTable>,
    /// Held by who makes or drops a collection, or a generation of one.
    pub(super) changing: Mutex<()>,
    scanner: Arc<Scanner>,
    /// Searches that wait or run.
    searches: Semaphore,
    /// Searches that run: a thread that waits for a piece of one would begin another meanwhile, on its own stack.
    running: Arc<Semaphore>,
    pub(super) index_builder: Arc<IndexBuilder>,
    metrics: Arc<SearchMetrics>,
}

impl Catalog {
    /// The collections at a place. One that is damaged is kept as it is, and refuses its requests. `builder` is the
    /// program that builds indexes. Blocks.
    ///
    /// # Errors
    /// `Config` if the processor lacks what FAISS was built for, or the index to build is none that may be built; `Io`.
    pub fn open(
        place: Place,
        options: Options,
        builder: Program,
        metrics: Arc<SearchMetrics>,
    ) -> Result<Catalog> {
        check_processor().map_err(|missing| {
            let message = format!("FAISS was built for processors with {missing}, which this one lacks");
            Error::new(Kind::Config, message)
        })?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let scanner = Scanner::new(threads)
            .map_err(|error| Error::io("cannot start the threads that search", error))?;
        let index_builder = Arc::new(IndexBuilder::new(options.index.clone(), builder)?);
        let mut table = CollectionTable::default();
        for stored in place.names()? {
            let (tenant, name, number) = owner_of(&stored);
            let opened =
                Collection::open(&place, &stored, number, options.compaction, &index_builder, &metrics)
                    .map(Arc::new)
                    .inspect_err(|error| {
                        tracing::error!(%error, "a collection cannot be opened; the others are served");
                    });
            table.entry(&tenant, name).insert(number, opened);
        }
        Ok(Catalog {
            searches: Semaphore::new(options.searches_queued_max),
            running: Arc::new(Semaphore::new(threads)),
            place,
            options,
            table: RwLock::new(table),
            changing: Mutex::new(()),
            scanner: Arc::new(scanner),
            index_builder,
            metrics,
        })
    }

    /// The generation of a tenant's collection that is served.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if it could not be opened.
    pub fn get(&self, tenant: &TenantId, name: &str) -> Result<Arc<Collection>> {
        let table = ignore_poison(self.table.read());
        match table.get(tenant, name).map(CollectionGenerations::served) {
            Some(Ok(collection)) => Ok(Arc::clone(collection)),
            // Why is in the log: it names files of the server.
            Some(Err(_)) => {
                let message = "the collection cannot be opened, as the server's log says; it can be dropped, or \
                               repaired while the server is stopped";
                Err(Error::new(Kind::Unavailable, message).with("collection", name))
            }
            None => Err(Error::new(Kind::NotFound, format!("there is no collection {name:?}")).param("name")),
        }
    }

    /// Nodes that a graph expands for a search that does not say how many.
    pub fn ef(&self) -> usize {
        self.options.index.ef
    }

    /// The names of all collections of a tenant with what can be served of them.
    pub fn list(&self, tenant: &TenantId) -> Vec<(String, Option<Arc<Collection>>)> {
        let table = ignore_poison(self.table.read());
        let described = |(name, generations): (&str, &CollectionGenerations)| {
            (name.to_owned(), generations.served().ok().map(Arc::clone))
        };
        table.of_tenant(tenant).map(described).collect()
    }

    /// The tenants and names of all collections, also of those that cannot be served.
    pub fn names(&self) -> Vec<(TenantId, String)> {
        let table = ignore_poison(self.table.read());
        table.iter().map(|(tenant, name, _)| (tenant.clone(), name.to_owned())).collect()
    }

    /// Whether a tenant has a collection of this name, also one that cannot be served.
    pub fn has(&self, tenant: &TenantId, name: &str) -> bool {
        ignore_poison(self.table.read()).get(tenant, name).is_some()
    }

    /// Creates a collection and returns whether it is new. An existing one with the same settings is left as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a name that cannot be one; `Conflict` if it is there with other settings; `Overloaded` if there
    /// are too many; `Io`, `DiskFull`.
    pub async fn create(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: Settings,
    ) -> Result<(Arc<Collection>, bool)> {
        check_name(name)?;
        let _changing = self.changing.lock().await;
        match self.get(tenant, name) {
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
            Ok(there) if there.settings().is_as_asked(&settings) => return Ok((there, false)),
            Ok(there) => {
                let message = "the collection is there with another metric, dimension, model or index";
                let there = format!("{:?}", there.settings());
                return Err(Error::new(Kind::Conflict, message).param("name").with("it_has", there));
            }
        }
        self.index_builder.check(&settings)?;
        let max = self.options.collections_max;
        if ignore_poison(self.table.read()).len() >= max {
            return Err(Error::new(
                Kind::Overloaded,
                format!("there are {max} collections, and no more are allowed"),
            ));
        }
        let made =
            self.make(stored_name(tenant, name, FIRST), FIRST, StoredSettings::of_created(settings)).await?;
        ignore_poison(self.table.write()).entry(tenant, name).insert(FIRST, Ok(Arc::clone(&made)));
        Ok((made, true))
    }

    /// Makes the store of a generation.
    pub(super) async fn make(
        &self,
        stored_name: String,
        number: u32,
        settings: StoredSettings,
    ) -> Result<Arc<Collection>> {
        let (place, metrics) = (self.place.clone(), Arc::clone(&self.metrics));
        let (compaction, index_builder) = (self.options.compaction, Arc::clone(&self.index_builder));
        let create = move || {
            Collection::create(&place, &stored_name, number, settings, compaction, &index_builder, &metrics)
        };
        let made = tokio::task::spawn_blocking(create).await;
        let died = |died| Error::new(Kind::Internal, "cannot make a collection").source(died);
        made.map_err(died)?.map(Arc::new)
    }

    /// Drops a collection with all of its generations.
    ///
    /// # Errors
    /// `NotFound`; `Io`: it serves no more requests, and may be dropped again.
    pub async fn drop_collection(&self, tenant: &TenantId, name: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        match self.get(tenant, name) {
            Err(error) if error.kind() != Kind::Unavailable => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let removed = ignore_poison(self.table.write()).remove(tenant, name);
        let mut generations = removed.unwrap_or_default();
        for number in generations.removal_order() {
            let dropped = match generations.get(number) {
                Some(collection) => collection.drop_collection().await,
                None => self.drop_damaged(stored_name(tenant, name, number)).await,
            };
            if let Err(error) = dropped {
                // Its files may still be there, under a name that is free only without them.
                generations.insert(number, Err(error.clone()));
                *ignore_poison(self.table.write()).entry(tenant, name) = generations;
                return Err(error);
            }
            generations.remove(number);
        }
        Ok(())
    }

    async fn drop_damaged(&self, stored: String) -> Result<()> {
        let place = self.place.clone();
        tokio::task::spawn_blocking(move || place.drop_collection(&stored))
            .await
            .map_err(|died| Error::new(Kind::Internal, "cannot drop a collection").source(died))?
    }

    /// Results for each vector of a query in a view, on the threads of the search.
    ///
    /// # Errors
    /// `Overloaded` if too many searches wait; `InvalidInput` for results that are too large together.
    ///
    /// Cancel safety: a search whose caller has left is not begun.
    pub async fn search(&self, view: Arc<View>, query: Arc<Query>) -> Result<Vec<Results>> {
        self.run(move |scanner| view.search(scanner, &query)).await?
    }

    /// A page of the documents of a view, on the threads of the search.
    ///
    /// # Errors
    /// `Overloaded` if too many searches wait.
    ///
    /// Cancel safety: as [`Catalog::search`].
    pub async fn page(&self, view: Arc<View>, query: PageQuery) -> Result<DocumentPage> {
        self.run(move |_| view.page_of(&query)).await
    }

    /// How many documents of a view a filter selects, on the threads of the search.
    ///
    /// # Errors
    /// `Overloaded` if too many searches wait.
    ///
    /// Cancel safety: as [`Catalog::search`].
    pub async fn count(&self, view: Arc<View>, filter: Filter) -> Result<usize> {
        self.run(move |_| view.count(&filter)).await
    }

    /// Searches that wait or run, as a share of those that may; 1 if the next one is refused.
    pub fn share_of_searches(&self) -> f64 {
        let places_max = self.options.searches_queued_max;
        (places_max - self.searches.available_permits()) as f64 / places_max as f64
    }

    /// Runs work on the threads of the search.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Scanner) -> T + Send + 'static) -> Result<T> {
        let overloaded =
            |_| Error::new(Kind::Overloaded, "too many searches, counts and pages of documents are waiting");
        let _place = self.searches.try_acquire().map_err(overloaded)?;
        let closed =
            |error| Error::new(Kind::Internal, "cannot wait for a thread that searches").source(error);
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(closed)?;
        let (reply, answer) = oneshot::channel();
        let scanner = Arc::clone(&self.scanner);
        self.scanner.spawn(move || {
            let _turn = turn;
            if !reply.is_closed() {
                // The caller may have left meanwhile.
                let _ = reply.send(work(&scanner));
            }
        });
        answer.await.map_err(|died| {
            Error::new(Kind::Internal, "the thread of a search, count or page of documents has panicked")
                .source(died)
        })
    }

    /// Ends the writers once they have made what was sent to them. Blocks.
    pub fn close(&self) {
        let table = ignore_poison(self.table.read());
        let generations = table.iter().flat_map(|(_, _, generations)| generations.opened());
        let opened: Vec<Arc<Collection>> = generations.map(|(_, opened)| Arc::clone(opened)).collect();
        // A writer may take long to end, and the list is read meanwhile.
        drop(table);
        opened.iter().for_each(|collection| collection.close());
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    let message = format!("a collection's name has 1 to {NAME_BYTES_MAX} letters (a to z), digits, - and _");
    Err(Error::invalid("name", message))
}
