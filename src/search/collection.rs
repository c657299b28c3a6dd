//! One collection: a writer with a thread of its own, and readers who never wait for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use likewise_index::SpecError;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, Semaphore, oneshot};

use super::ann_index::AnnIndex;
use super::build::{BuildFailure, FailureCause};
use super::change::{Change, Receipt};
use super::generation::StoredSettings;
use super::index_builder::{IndexBuilder, IndexPlan};
use super::indexing;
use super::metrics::SearchMetrics;
use super::query_watch::{QueryWatch, WatchedQuery};
use super::record::{self, Op};
use super::replay::Replayed;
use super::running_work::{CollectionWork, CollectionWorkKind, RunningWork};
use super::segment_view::SegmentView;
use super::settings::Settings;
use super::view::View;
use super::writer::{CollectionState, CollectionWriter, CompactionOptions, WriterCommand};
use crate::domain::Key;
use crate::error::{Error, Kind, Result};
use crate::storage::RowStore;
use crate::storage::collections::{Opened, Place};
use crate::sync::lock;

/// Bytes that one permit of the queue stands for.
const PERMIT_BYTES: usize = 1024;
/// Bytes of changes that wait for the writer, each counted as one KiB at least. Further callers wait for permits.
const QUEUED_BYTES_MAX: usize = 64 << 20;

static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// The activation of a generation that was never activated.
const NEVER: u64 = u64::MAX;

/// A collection: one generation of it. Shared by `Arc`.
#[derive(Debug)]
pub struct Collection {
    instance: u64,
    number: u32,
    /// When it was activated, counted in activations of the collection; [`NEVER`] if it never was.
    activation: AtomicU64,
    /// Set once another generation is served, or may be at the next start.
    is_superseded: AtomicBool,
    /// Held for reading by each change, and for writing while changes are paused.
    changing: Arc<RwLock<()>>,
    settings: Settings,
    /// The index that it is to have, or why it has none.
    plan: Result<Option<IndexPlan>, SpecError>,
    shared: Arc<CollectionState>,
    commands: Mutex<Option<mpsc::Sender<WriterCommand>>>,
    queue_permits: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// No change of a collection is made while it is held.
#[must_use = "changes go on when it is dropped"]
#[derive(Debug)]
pub struct PausedWrites {
    pub(super) collection: Arc<Collection>,
    _guard: OwnedRwLockWriteGuard<()>,
}

/// While it is held, no other generation is served in the place of this one.
#[must_use = "another generation may be served when it is dropped"]
#[derive(Debug)]
pub struct ChangeGuard {
    collection: Arc<Collection>,
    _guard: OwnedRwLockReadGuard<()>,
}

impl ChangeGuard {
    /// Makes a change. When this returns it is on the disk, flushed, and everybody sees it.
    ///
    /// # Errors
    /// As [`Collection::change`].
    ///
    /// Cancel safety: a change that was sent is made.
    pub async fn change(self, change: Change) -> Result<Receipt> {
        self.collection.send_change(change).await
    }
}

impl Collection {
    /// A new collection, or a new generation of one.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub(super) fn create(
        place: &Place,
        name: &str,
        number: u32,
        stored: StoredSettings,
        compaction: CompactionOptions,
        index_builder: &Arc<IndexBuilder>,
        metrics: &Arc<SearchMetrics>,
    ) -> Result<Collection> {
        let settings = &stored.settings;
        let store = RowStore::create(place, name, settings.dim as u32, encoded(&stored)?)?;
        let view =
            View { metric: settings.metric, dim: settings.dim, parts: Vec::new(), index: None, version: 0 };
        Collection::start(number, stored, store, view, 0, compaction, index_builder, metrics)
    }

    /// The collection as it was when its last change was acknowledged.
    ///
    /// # Errors
    /// `Corrupt`, `Format`, `Io`.
    pub(super) fn open(
        place: &Place,
        name: &str,
        number: u32,
        compaction: CompactionOptions,
        index_builder: &Arc<IndexBuilder>,
        metrics: &Arc<SearchMetrics>,
    ) -> Result<Collection> {
        let Opened { mut store, segments, replay } = RowStore::open(place, name)?;
        let manifest = store.manifest().clone();
        let stored: StoredSettings = serde_json::from_slice(&manifest.settings).map_err(|error| {
            Error::new(Kind::Corrupt, "cannot read the settings of a collection")
                .with("collection", name)
                .source(error)
        })?;
        let settings = &stored.settings;
        let (metric, dim, version) = (settings.metric, settings.dim, manifest.version);
        let mut view = View { metric, dim, parts: Vec::new(), index: None, version };
        let mut bad = replay.damaged;
        for (segment, listing) in segments.into_iter().zip(&manifest.segments) {
            let (part, bad_rows) = SegmentView::sealed(settings.metric, settings.dim, segment, &listing.dead);
            bad += bad_rows as u64;
            view.parts.push(part);
        }
        view.index = indexed(&mut store, &view, index_builder.indexing.nprobe, metrics);
        let mut replayed = Replayed::default();
        let mut log_rows = 0;
        for body in &replay.records {
            let Some((first, ops)) = record::decode(settings.dim, body) else {
                bad += 1;
                continue;
            };
            view.version = view.version.max(first + (ops.len() as u64).saturating_sub(1));
            log_rows += ops.iter().map(Op::rows).sum::<usize>();
            ops.into_iter().for_each(|op| replayed.take(op, &mut view));
        }
        replayed.flush(&mut view);
        if bad > 0 {
            metrics.corrupt_rows.inc_by(bad);
            tracing::error!(collection = name, bad, "rows of a collection are damaged; they are left out");
        }
        if replay.torn_bytes > 0 {
            tracing::info!(collection = name, bytes = replay.torn_bytes, "cut off what was being written");
        }
        Collection::start(number, stored, store, view, log_rows, compaction, index_builder, metrics)
    }

    #[expect(clippy::too_many_arguments, reason = "everything that a writer is made of")]
    fn start(
        number: u32,
        stored: StoredSettings,
        store: RowStore,
        mut view: View,
        log_rows: usize,
        compaction: CompactionOptions,
        index_builder: &Arc<IndexBuilder>,
        metrics: &Arc<SearchMetrics>,
    ) -> Result<Collection> {
        view.prepare();
        let StoredSettings { settings, activation } = stored;
        let plan = index_builder.plan(&settings);
        let (builds_begun, index_error) = not_built(&plan, &store, metrics);
        let shared = Arc::new(CollectionState {
            watch: QueryWatch::new(view.version),
            view: ArcSwap::from_pointee(view),
            is_dropped: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            work: RunningWork::default(),
            index_error: Mutex::new(index_error),
        });
        // Unbounded, since each sent change holds its share of `queue_permits`.
        let (commands, inbox) = mpsc::channel();
        let writer = CollectionWriter {
            shared: Arc::clone(&shared),
            store,
            inbox,
            log_rows,
            is_compacting: false,
            compaction,
            plan: plan.clone().unwrap_or_default(),
            index_builder: Arc::clone(index_builder),
            building: None,
            builds_begun,
            metrics: Arc::clone(metrics),
        };
        let writer = std::thread::Builder::new()
            .name("collection".into())
            .spawn(|| writer.run())
            .map_err(|error| Error::io("cannot start the writer of a collection", error))?;
        Ok(Collection {
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            number,
            activation: AtomicU64::new(activation.unwrap_or(NEVER)),
            is_superseded: AtomicBool::new(false),
            changing: Arc::default(),
            settings,
            plan,
            shared,
            commands: Mutex::new(Some(commands)),
            queue_permits: Arc::new(Semaphore::new(QUEUED_BYTES_MAX / PERMIT_BYTES)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// What it is of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A number that no other collection of this process has had, nor one of the same name before it was dropped.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// The number of the generation.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// When the generation was activated, counted in activations of the collection; `None` if it never was.
    pub fn activation(&self) -> Option<u64> {
        Some(self.activation.load(Ordering::Acquire)).filter(|&activation| activation != NEVER)
    }

    /// Whether it takes no changes because another generation of the collection is served.
    pub fn is_superseded(&self) -> bool {
        self.is_superseded.load(Ordering::Acquire)
    }

    /// The collection as it is now.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Queries whose results are cached.
    pub fn watched(&self) -> usize {
        self.shared.watch.len()
    }

    /// What `look` finds under the key of a cached result, if no write has changed that result; with the version of the
    /// collection of which it is true.
    pub fn cached<T>(&self, key: &Key, look: impl FnOnce() -> Option<T>) -> Option<(T, u64)> {
        self.shared.watch.look(key, look)
    }

    /// Lets `store` keep results under `key`, if they are still what a search finds.
    pub fn admit(&self, version: u64, key: Key, watched: WatchedQuery, store: impl FnOnce()) {
        self.shared.watch.admit(version, key, watched, store);
    }

    /// Makes a change. When this returns it is on the disk, flushed, and everybody sees it.
    ///
    /// # Errors
    /// `NotFound` if the collection has been dropped; `Io`, `DiskFull`: the change is not made, and the collection takes
    /// no more until the next start; then `Unavailable`.
    ///
    /// Cancel safety: a change that was sent is made.
    pub async fn change(self: &Arc<Self>, change: Change) -> Result<Receipt> {
        let guard = self.admit_change().await.ok_or_else(|| self.gone())?;
        guard.change(change).await
    }

    /// Lets a change begin, once changes are not paused; none if another generation is served by then.
    pub async fn admit_change(self: &Arc<Self>) -> Option<ChangeGuard> {
        let guard = Arc::clone(&self.changing).read_owned().await;
        (!self.is_superseded()).then(|| ChangeGuard { collection: Arc::clone(self), _guard: guard })
    }

    /// Makes a change of a generation that is not served, by the work that fills it. It may have been served before.
    ///
    /// # Errors
    /// As [`Collection::change`].
    pub async fn fill(&self, change: Change) -> Result<Receipt> {
        self.send_change(change).await
    }

    async fn send_change(&self, change: Change) -> Result<Receipt> {
        let dropped = || self.gone();
        let permits =
            change.bytes(&self.view()).div_ceil(PERMIT_BYTES).clamp(1, QUEUED_BYTES_MAX / PERMIT_BYTES)
                as u32;
        let permit =
            Arc::clone(&self.queue_permits).acquire_many_owned(permits).await.map_err(|_| dropped())?;
        let commands = self.sender().ok_or_else(dropped)?;
        let (reply, answer) = oneshot::channel();
        commands.send(WriterCommand::Change { change, reply, _permit: permit }).map_err(|_| dropped())?;
        answer.await.map_err(|_| dropped())?
    }

    /// Waits until all changes that were sent are made, and lets no other begin. They wait.
    ///
    /// # Errors
    /// As [`Collection::change`].
    pub async fn pause_writes(self: &Arc<Self>) -> Result<PausedWrites> {
        let guard = Arc::clone(&self.changing).write_owned().await;
        // A change whose caller has left may still be on its way.
        let (reply, answer) = oneshot::channel();
        let commands = self.sender().ok_or_else(|| self.gone())?;
        commands.send(WriterCommand::Barrier { reply }).map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?;
        Ok(PausedWrites { collection: Arc::clone(self), _guard: guard })
    }

    /// Takes no more changes: another generation is about to be served.
    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Release);
    }

    /// Writes that this generation was activated: durable when this returns. It takes changes from then on.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`, `NotFound` as [`Collection::change`].
    pub(super) async fn activate(&self, activation: u64) -> Result<()> {
        let stored = StoredSettings { settings: self.settings.clone(), activation: Some(activation) };
        let commands = self.sender().ok_or_else(|| self.gone())?;
        let (reply, answer) = oneshot::channel();
        let settings = encoded(&stored)?;
        commands.send(WriterCommand::Settings { settings, reply }).map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())??;
        self.activation.store(activation, Ordering::Release);
        self.is_superseded.store(false, Ordering::Release);
        Ok(())
    }

    /// Lets the index be built of all rows that there are, due or not, and its snapshot taken, also if that has failed
    /// before. Returns at once.
    ///
    /// # Errors
    /// `Conflict` if the collection can have no index, or has too few documents for it; `Unavailable`, `NotFound`.
    pub fn index(&self) -> Result<()> {
        let conflict = |message: String| Err(Error::new(Kind::Conflict, message).param("name"));
        let documents = self.view().documents();
        match &self.plan {
            Ok(None) => return conflict("the collection is searched exactly, and has no index".into()),
            Err(refused) => return conflict(format!("the collection has no index: {refused}")),
            Ok(Some(plan)) if documents > 0 && documents < plan.spec.rows_min() => {
                let (factory, min) = (&plan.factory, plan.spec.rows_min());
                return conflict(format!(
                    "{factory} is built of at least {min} documents; there are {documents}"
                ));
            }
            Ok(Some(_)) => {}
        }
        self.shared.work.begin_build(CollectionWorkKind::Snapshot, documents);
        let commands = self.sender().ok_or_else(|| self.gone())?;
        commands.send(WriterCommand::Index).map_err(|_| self.gone())
    }

    /// Whether an index is being built.
    pub fn is_indexing(&self) -> bool {
        self.shared.work.is_building()
    }

    /// What the writer does beside changes, or will do next.
    pub fn running_work(&self) -> Vec<CollectionWork> {
        self.shared.work.list()
    }

    /// Why there is no index of all rows, and none is built unless a client asks for it.
    pub fn index_error(&self) -> Option<Arc<str>> {
        self.shared.index_error()
    }

    /// Removes the collection and its bytes.
    ///
    /// # Errors
    /// `NotFound` if another caller has dropped it; `Io`.
    pub(super) async fn drop_collection(&self) -> Result<()> {
        let dropped = || self.gone();
        let commands = self.sender().ok_or_else(dropped)?;
        let (reply, answer) = oneshot::channel();
        commands.send(WriterCommand::Drop { reply }).map_err(|_| dropped())?;
        answer.await.map_err(|_| dropped())?
    }

    /// Ends the writer once it has made the changes that were sent. Blocks.
    pub(super) fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        drop(lock(&self.commands).take());
        let writer = lock(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of a collection has died");
        }
    }

    /// Why there is no writer.
    fn gone(&self) -> Error {
        if self.shared.is_dropped.load(Ordering::Acquire) {
            Error::new(Kind::NotFound, "the collection has been dropped")
        } else if self.is_superseded() {
            let message = "the collection takes no changes: another generation of it is served, or will be from the next start on";
            Error::new(Kind::Unavailable, message)
        } else {
            Error::new(Kind::Unavailable, "the collection takes no changes: its writer has ended")
        }
    }

    fn sender(&self) -> Option<mpsc::Sender<WriterCommand>> {
        lock(&self.commands).clone()
    }
}

fn encoded(stored: &StoredSettings) -> Result<Vec<u8>> {
    serde_json::to_vec(stored).map_err(|error| {
        Error::new(Kind::Internal, "cannot write the settings of a collection").source(error)
    })
}

/// How many builds have begun without an end, and why no index is built.
fn not_built(
    plan: &Result<Option<IndexPlan>, SpecError>,
    store: &RowStore,
    metrics: &SearchMetrics,
) -> (u32, Option<Arc<str>>) {
    let (begun, failure) = match plan {
        Ok(plan) => indexing::recall(store, plan.as_ref()),
        Err(refused) => (0, Some(BuildFailure::new(FailureCause::SpecError, refused.to_string()))),
    };
    if let Some(failure) = &failure {
        indexing::report(metrics, store.name(), failure);
    }
    (begun, failure.map(|failure| failure.reason))
}

/// The index of the snapshot, if it can be used; else it is removed, and rebuilt when its turn comes.
fn indexed(store: &mut RowStore, view: &View, nprobe: usize, metrics: &SearchMetrics) -> Option<AnnIndex> {
    let opened = store.snapshot().and_then(|snapshot| {
        snapshot.map(|snapshot| AnnIndex::open(snapshot, &view.parts, view.dim, nprobe)).transpose()
    });
    opened.unwrap_or_else(|error| {
        metrics.index_errors.inc();
        tracing::warn!(%error, "the snapshot of an index cannot be used; it is rebuilt, searches are exact until then");
        if let Err(error) = store.drop_index() {
            tracing::warn!(%error, "the snapshot of an index cannot be removed");
        }
        None
    })
}
