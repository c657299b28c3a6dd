//! One collection: a writer with a thread of its own, and readers who never wait for it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use likewise_index::Metric;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::block::hash_id;
use super::document::DocumentRef;
use super::filter::Filter;
use super::record::{self, Op};
use super::view::{Batch, Part, View};
use super::watch::{Effects, Watch, Watched};
use crate::domain::Key;
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::storage::RowStore;
use crate::storage::rows::{Listing, LogFate, Opened, Place, Row};

/// Changes that share a flush.
const GROUP_MAX: usize = 256;
/// What permits of the queue stand for.
const PERMIT_BYTES: usize = 1024;
/// Bytes of changes that wait for the writer, each counted as one KiB at least; who brings more waits for room.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Rows of a segment, whatever their length.
const SEGMENT_ROWS_MAX: usize = 1 << 20;
/// One dead row in so many rows is worth a compaction.
const DEAD_SHARE: usize = 5;

/// When log and segments are tidied up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tidying {
    /// Rows in log and memory become a segment past so many bytes; also the bytes of vectors in a segment.
    pub segment_bytes: usize,
    /// So many dead rows are worth a compaction while there are writes, if they are a fifth of all; fewer wait until
    /// there are none.
    pub dead_rows_busy: usize,
    /// How long no change has come when there is time for what can wait.
    pub idle_ms: u64,
}

impl Default for Tidying {
    fn default() -> Tidying {
        Tidying { segment_bytes: 32 << 20, dead_rows_busy: 4096, idle_ms: 1000 }
    }
}

static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// What a collection is of; fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How vectors are compared.
    #[serde(with = "metric_name")]
    pub metric: Metric,
    /// Length of its vectors.
    pub dim: usize,
    /// The model whose vectors it holds; none if clients bring vectors of their own.
    pub model: Option<Model>,
}

/// A model as a collection remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name when the collection was made.
    pub name: String,
    /// Its fingerprint, in hexadecimal digits.
    pub fingerprint: String,
}

/// The names of metrics in files and interfaces.
pub mod metric_name {
    use super::{Deserialize, Metric};

    /// All metrics with their names.
    pub const NAMES: [(Metric, &str); 3] =
        [(Metric::Cosine, "cosine"), (Metric::InnerProduct, "inner_product"), (Metric::L2, "l2")];

    /// The name of a metric.
    pub fn of(metric: Metric) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == metric).map_or("", |(_, name)| name)
    }

    /// The metric of a name.
    pub fn read(name: &str) -> Option<Metric> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(metric, _)| *metric)
    }

    pub(super) fn serialize<S: serde::Serializer>(metric: &Metric, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(of(*metric))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Metric, D::Error> {
        let name = String::deserialize(from)?;
        read(&name).ok_or_else(|| serde::de::Error::custom(format!("there is no metric {name}")))
    }
}

/// A change of a collection: applied whole, or not at all.
#[derive(Debug)]
pub enum Change {
    /// Documents in the place of those with the same ids.
    Upsert(Batch),
    /// Documents by their ids.
    Delete(Vec<String>),
    /// Documents that a filter means.
    DeleteMatching(Filter),
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Documents stored or removed.
    pub documents: usize,
    /// The collection's version with it.
    pub version: u64,
}

/// A change on its way to the writer.
enum Order {
    Change { change: Change, reply: oneshot::Sender<Result<Receipt>>, _room: OwnedSemaphorePermit },
    Drop { reply: oneshot::Sender<Result<()>> },
}

/// A collection. Shared by `Arc`.
#[derive(Debug)]
pub struct Collection {
    instance: u64,
    settings: Settings,
    shared: Arc<Shared>,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    room: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer makes and readers see.
#[derive(Debug)]
struct Shared {
    view: ArcSwap<View>,
    watch: Watch,
    is_dropped: AtomicBool,
}

impl Collection {
    /// A new collection.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub(super) fn create(
        place: &Place,
        name: &str,
        settings: Settings,
        tidying: Tidying,
        metrics: &Arc<Metrics>,
    ) -> Result<Collection> {
        let encoded = serde_json::to_vec(&settings).map_err(|error| {
            Error::new(Kind::Internal, "write the settings of a collection").source(error)
        })?;
        let store = RowStore::create(place, name, settings.dim as u32, encoded)?;
        let view = View { metric: settings.metric, dim: settings.dim, parts: Vec::new(), version: 0 };
        Collection::start(settings, store, view, 0, tidying, metrics)
    }

    /// The collection as it was when its last change was acknowledged.
    ///
    /// # Errors
    /// `Corrupt`, `Format`, `Io`.
    pub(super) fn open(
        place: &Place,
        name: &str,
        tidying: Tidying,
        metrics: &Arc<Metrics>,
    ) -> Result<Collection> {
        let Opened { store, segments, replay } = RowStore::open(place, name)?;
        let manifest = store.manifest();
        let settings: Settings = serde_json::from_slice(&manifest.settings).map_err(|error| {
            Error::new(Kind::Corrupt, "read the settings of a collection")
                .with("collection", name)
                .source(error)
        })?;
        let mut view =
            View { metric: settings.metric, dim: settings.dim, parts: Vec::new(), version: manifest.version };
        let mut bad = replay.damaged;
        for (segment, listing) in segments.into_iter().zip(&manifest.segments) {
            let (part, bad_rows) = Part::sealed(settings.metric, settings.dim, segment, &listing.dead);
            bad += bad_rows as u64;
            view.parts.push(part);
        }
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
            metrics.bad_rows.inc_by(bad);
            tracing::error!(collection = name, bad, "rows of a collection are damaged; they are left out");
        }
        if replay.torn_bytes > 0 {
            tracing::info!(collection = name, bytes = replay.torn_bytes, "cut off what was being written");
        }
        Collection::start(settings, store, view, log_rows, tidying, metrics)
    }

    fn start(
        settings: Settings,
        store: RowStore,
        view: View,
        log_rows: usize,
        tidying: Tidying,
        metrics: &Arc<Metrics>,
    ) -> Result<Collection> {
        view.prepare();
        let shared = Arc::new(Shared {
            watch: Watch::new(view.version),
            view: ArcSwap::from_pointee(view),
            is_dropped: AtomicBool::new(false),
        });
        // What is sent has taken its share of `room`, which is the limit.
        let (orders, inbox) = mpsc::channel();
        let writer = Writer {
            shared: Arc::clone(&shared),
            store,
            inbox,
            log_rows,
            is_compacting: false,
            tidying,
            metrics: Arc::clone(metrics),
        };
        let writer = std::thread::Builder::new()
            .name("collection".into())
            .spawn(|| writer.run())
            .map_err(|error| Error::io("start the writer of a collection", error))?;
        Ok(Collection {
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            settings,
            shared,
            orders: Mutex::new(Some(orders)),
            room: Arc::new(Semaphore::new(QUEUED_BYTES_MAX / PERMIT_BYTES)),
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
    pub fn admit(&self, version: u64, key: Key, watched: Watched, store: impl FnOnce()) {
        self.shared.watch.admit(version, key, watched, store);
    }

    /// Makes a change. When this returns it is on the disk, flushed, and everybody sees it.
    ///
    /// # Errors
    /// `NotFound` if the collection has been dropped; `Io`, `DiskFull`: the change is not made, and the collection takes
    /// no more until the next start; then `Unavailable`.
    ///
    /// Cancel safety: a change that was sent is made.
    pub async fn change(&self, change: Change) -> Result<Receipt> {
        let dropped = || self.gone();
        let permits = change.bytes().div_ceil(PERMIT_BYTES).clamp(1, QUEUED_BYTES_MAX / PERMIT_BYTES) as u32;
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| dropped())?;
        let orders = self.sender().ok_or_else(dropped)?;
        let (reply, answer) = oneshot::channel();
        orders.send(Order::Change { change, reply, _room: room }).map_err(|_| dropped())?;
        answer.await.map_err(|_| dropped())?
    }

    /// Removes the collection and its bytes.
    ///
    /// # Errors
    /// `NotFound` if somebody else has; `Io`.
    pub(super) async fn drop_collection(&self) -> Result<()> {
        let dropped = || self.gone();
        let orders = self.sender().ok_or_else(dropped)?;
        let (reply, answer) = oneshot::channel();
        orders.send(Order::Drop { reply }).map_err(|_| dropped())?;
        answer.await.map_err(|_| dropped())?
    }

    /// Ends the writer once it has made the changes that were sent. Blocks.
    pub(super) fn close(&self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of a collection has died");
        }
    }

    /// Why there is no writer.
    fn gone(&self) -> Error {
        if self.shared.is_dropped.load(Ordering::Acquire) {
            Error::new(Kind::NotFound, "the collection has been dropped")
        } else {
            Error::new(Kind::Unavailable, "the collection takes no changes: its writer has ended")
        }
    }

    fn sender(&self) -> Option<mpsc::Sender<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Change {
    /// About what it takes of memory.
    fn bytes(&self) -> usize {
        match self {
            Change::Upsert(batch) => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                let documents = batch.documents.iter();
                let documents =
                    documents.map(|document| text(&document.text) + document.metadata.len() + 128);
                batch.vectors.len() * 4 + documents.sum::<usize>()
            }
            Change::Delete(ids) => ids.iter().map(|id| id.len() + 24).sum(),
            Change::DeleteMatching(_) => PERMIT_BYTES,
        }
    }

    /// What is to be done in the collection as it is now.
    fn into_op(self, view: &View) -> Op {
        let present = |ids: Vec<String>| ids.into_iter().filter(|id| view.get(id).is_some()).collect();
        match self {
            Change::Upsert(batch) => Op::Upsert {
                vectors: batch.vectors,
                documents: batch.documents.iter().map(|document| document.encode().into()).collect(),
            },
            Change::Delete(ids) => Op::Delete { ids: present(ids) },
            Change::DeleteMatching(filter) => Op::Delete { ids: view.ids_of(&filter) },
        }
    }
}

impl Op {
    fn rows(&self) -> usize {
        match self {
            Op::Upsert { documents, .. } => documents.len(),
            Op::Delete { .. } => 0,
        }
    }
}

/// Documents of a log on their way into a view: many at a time, because each addition makes a block.
#[derive(Default)]
struct Replayed {
    vectors: Vec<f32>,
    documents: Vec<Arc<[u8]>>,
    ids: HashSet<u64>,
}

impl Replayed {
    fn take(&mut self, op: Op, view: &mut View) {
        match op {
            Op::Upsert { vectors, documents } => {
                let ids: Vec<u64> = documents
                    .iter()
                    .filter_map(|document| DocumentRef::decode(document))
                    .map(|document| hash_id(document.id))
                    .collect();
                // A document that comes again takes the place of the first one, which must be there by then.
                if ids.iter().any(|id| self.ids.contains(id)) {
                    self.flush(view);
                }
                self.vectors.extend(vectors);
                self.documents.extend(documents);
                self.ids.extend(ids);
            }
            Op::Delete { ids } => {
                self.flush(view);
                view.remove(ids);
            }
        }
    }

    fn flush(&mut self, view: &mut View) {
        let Replayed { vectors, documents, .. } = std::mem::take(self);
        if !documents.is_empty() {
            view.add(vectors, documents);
            view.merge_delta();
        }
    }
}

/// Applies a change to rows; tells how many documents it stored or removed.
fn apply(view: &mut View, op: Op, effects: &mut Effects) -> usize {
    match op {
        Op::Upsert { vectors, documents } => {
            effects.vectors.extend_from_slice(&vectors);
            effects.documents.extend(documents.iter().cloned());
            let ids =
                documents.iter().filter_map(|document| Some(hash_id(DocumentRef::decode(document)?.id)));
            effects.gone.extend(ids);
            let count = documents.len();
            view.add(vectors, documents);
            count
        }
        Op::Delete { ids } => {
            let removed = view.remove(ids);
            effects.gone.extend(removed.iter().map(|id| hash_id(id)));
            removed.len()
        }
    }
}

/// The one who changes a collection.
struct Writer {
    shared: Arc<Shared>,
    store: RowStore,
    inbox: mpsc::Receiver<Order>,
    /// Rows in the log, dead ones included.
    log_rows: usize,
    /// Set when dead rows have become too many, until none is left.
    is_compacting: bool,
    tidying: Tidying,
    metrics: Arc<Metrics>,
}

type Reply = oneshot::Sender<Result<Receipt>>;

impl Writer {
    fn run(mut self) {
        let idle = Duration::from_millis(self.tidying.idle_ms);
        loop {
            match self.inbox.recv_timeout(idle) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Order::Drop { reply }) => {
                    return self.drop_collection(reply);
                }
                Ok(Order::Change { change, reply, _room }) => {
                    if let Some(reply) = self.commit(change, reply) {
                        return self.drop_collection(reply);
                    }
                    self.tidy(false);
                }
                Err(RecvTimeoutError::Timeout) => self.tidy(true),
            }
        }
    }

    fn drop_collection(self, reply: oneshot::Sender<Result<()>>) {
        self.shared.is_dropped.store(true, Ordering::Release);
        // Whoever asked may have left; the collection is dropped all the same.
        let _ = reply.send(self.store.drop_collection());
    }

    /// Makes a change and those that wait behind it, with one flush. Returns the order to drop the collection, if it
    /// came among them.
    fn commit(&mut self, first: Change, reply: Reply) -> Option<oneshot::Sender<Result<()>>> {
        let mut view = View::clone(&self.shared.view.load());
        let mut effects = Effects::default();
        let (mut ops, mut replies, mut rooms, mut last) = (Vec::new(), Vec::new(), Vec::new(), None);
        let (from, mut version) = (view.version + 1, view.version);
        let mut take = |change: Change, reply: Reply| {
            let op = change.into_op(&view);
            let is_empty = matches!(&op, Op::Delete { ids } if ids.is_empty());
            if !is_empty {
                version += 1;
                ops.push(op.clone());
            }
            let documents = apply(&mut view, op, &mut effects);
            replies.push((reply, Receipt { documents, version }));
        };
        take(first, reply);
        for _ in 1..GROUP_MAX {
            match self.inbox.try_recv() {
                Ok(Order::Change { change, reply, _room: room }) => {
                    rooms.push(room);
                    take(change, reply);
                }
                Ok(Order::Drop { reply }) => {
                    last = Some(reply);
                    break;
                }
                Err(_) => break,
            }
        }
        let written = if ops.is_empty() { Ok(()) } else { self.store.append(&record::encode(from, &ops)) };
        if written.is_ok() {
            self.log_rows += ops.iter().map(Op::rows).sum::<usize>();
            view.version = version;
            view.merge_delta();
            self.publish(view, &effects);
        }
        if let Err(error) = &written {
            tracing::error!(%error, "a change of a collection could not be written");
        }
        for (reply, receipt) in replies {
            // Whoever asked may have left.
            let _ = reply.send(written.clone().map(|()| receipt));
        }
        last
    }

    fn publish(&self, view: View, effects: &Effects) {
        view.prepare();
        let (metric, version) = (view.metric, view.version);
        self.shared.watch.publish(metric, version, effects, || self.shared.view.store(Arc::new(view)));
    }

    /// Does one step of what keeps log and segments small. A step that fails is tried again later; nothing is lost by it.
    fn tidy(&mut self, is_idle: bool) {
        if !self.store.is_on() {
            return;
        }
        let view = self.shared.view.load_full();
        let dead = self.dead_rows(&view);
        let rows = view.documents() + dead;
        let is_due = dead * DEAD_SHARE > rows && (is_idle || dead >= self.tidying.dead_rows_busy);
        self.is_compacting = (self.is_compacting || is_due) && dead > 0;
        let is_delta_full = self.store.log_bytes() as usize > self.tidying.segment_bytes;
        let step = if is_delta_full {
            self.seal(&view)
        } else if self.is_compacting {
            self.compact(&view)
        } else {
            return;
        };
        if let Err(error) = step {
            self.metrics.compaction_errors.inc();
            tracing::warn!(%error, "a collection could not be tidied up; it is tried again later");
        }
    }

    /// Rows on the disk that cannot be found.
    fn dead_rows(&self, view: &View) -> usize {
        let (sealed, delta) = view.parts.split_at(view.delta_from());
        let live: usize = delta.iter().map(Part::live_rows).sum();
        sealed.iter().map(Part::dead_rows).sum::<usize>() + self.log_rows.saturating_sub(live)
    }

    /// Makes a segment of the delta, so that a new log can begin.
    fn seal(&mut self, view: &View) -> Result<()> {
        let (sealed, delta) = view.parts.split_at(view.delta_from());
        let mut parts = sealed.to_vec();
        if let Some(part) = self.write(view, delta)? {
            parts.push(part);
        }
        self.replace(view, parts, LogFate::Replaced)
    }

    /// Writes the first run of segments with dead rows anew, without these; the delta, when it alone has any left.
    fn compact(&mut self, view: &View) -> Result<()> {
        let (sealed, delta) = view.parts.split_at(view.delta_from());
        let Some(from) = sealed.iter().position(|part| part.dead_rows() > 0) else { return self.seal(view) };
        // Neighbours join as long as they make one segment.
        let rows_max = (self.tidying.segment_bytes / (view.dim * 4)).clamp(1, SEGMENT_ROWS_MAX);
        let mut rows = 0;
        let fits = |part: &&Part| {
            rows += part.live_rows();
            rows <= rows_max
        };
        let to = from + sealed[from..].iter().take_while(fits).count().max(1);
        let mut parts = sealed[..from].to_vec();
        parts.extend(self.write(view, &sealed[from..to])?);
        parts.extend_from_slice(&sealed[to..]);
        parts.extend_from_slice(delta);
        self.replace(view, parts, LogFate::Kept)
    }

    /// A segment of the live rows of some parts; none if there are no such rows.
    fn write(&mut self, view: &View, parts: &[Part]) -> Result<Option<Part>> {
        let rows: Vec<Row<'_>> =
            parts.iter().flat_map(Part::rows).map(|(vector, document)| Row { vector, document }).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let segment = self.store.write_segment(rows.iter().copied())?;
        Ok(Some(Part::sealed(view.metric, view.dim, segment, &[]).0))
    }

    /// Publishes other parts with the same live rows, on the disk and then for readers.
    fn replace(&mut self, view: &View, parts: Vec<Part>, fate: LogFate) -> Result<()> {
        let listing = |part: &Part| {
            let segment = part.block.segment()?;
            Some(Listing { number: segment.number(), rows: segment.rows() as u32, dead: part.dead_bits() })
        };
        let listings = parts.iter().filter_map(listing).collect();
        self.store.publish(listings, view.version, fate)?;
        if fate == LogFate::Replaced {
            self.log_rows = 0;
        }
        self.publish(View { parts, ..view.clone() }, &Effects::default());
        Ok(())
    }
}

impl Effects {
    /// Whether anything was changed.
    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.gone.is_empty()
    }
}
