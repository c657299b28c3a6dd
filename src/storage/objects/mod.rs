//! The store of objects: entries of any length as small records, always durable. `src/cache/entry_codec.rs` encodes them; the
//! store reads the frame only.
//!
//! Each object is one record, head and value together, and its head once more in a table of heads, which is what is
//! read when the store opens and when entries are counted. Its names, if it has some, are in a third table, which is in the
//! order of namespaces. All are written in one transaction.

mod frame;
mod index;
mod names;
mod namespace_counts;
mod scan;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

pub use frame::{FLAG_OTHER_TENANT, HEAD_FIXED_BYTES, Record, RecordFrame, TAG_BYTES};
pub use names::{Position, ScanScope, decode as decode_names};
pub use namespace_counts::NamespaceCount;
pub use scan::{ScanPart, ScannedObject};

use self::index::{Index, Removed, Row};
use crate::domain::{Clock, EntryNames, Key, NamespaceId, UnixSeconds};
use crate::error::{Error, Kind, Result};
use crate::storage::metrics::StorageMetrics;
use crate::storage::records::{Change, Records};
use crate::sync::lock;

/// The table of whole records.
pub(super) const OBJECTS: &str = "objects";
/// The table of heads.
pub(super) const HEADS: &str = "object_heads";
/// The table of names.
pub(super) const NAMES: &str = "object_names";

/// Heads read at a time.
const CHUNK: usize = 4096;
/// Rows looked at for ended ones with each object that is put, so that none stays for long.
const SWEPT_PER_PUT: usize = 8;
/// What a record takes besides head and value: both keys and both rows of the tables.
const OVERHEAD_BYTES: usize = 128;
/// What names take besides their bytes: their key and their row of the table.
const NAMES_OVERHEAD_BYTES: usize = 64;
/// An object that would fill more than this share of the budget is refused: it would push out many for one.
const BUDGET_SHARE: u64 = 8;

/// Options of the store of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Budget in bytes. The file that the records lie in may keep pages that were freed.
    pub bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { bytes_max: 1 << 30 }
    }
}

/// The store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Objects, expired ones that were not removed yet included.
    pub entries: u64,
    /// What they take of the budget.
    pub bytes: u64,
    /// Whether the store takes part; a failed write turns it off.
    pub is_on: bool,
}

/// Objects on disk. Reading is done by the caller's thread, writing by the thread of the records.
///
/// A caller that writes and reads one key at the same time orders that by a lock of its own.
pub struct ObjectStore {
    records: Arc<Records>,
    index: Mutex<Index>,
    bytes_max: u64,
    clock: Arc<dyn Clock>,
    metrics: Arc<StorageMetrics>,
    is_on: AtomicBool,
}

impl ObjectStore {
    /// The objects among `records`. Blocks.
    ///
    /// Errors: `Io`, `Corrupt`. A head that does not verify is no error: its object is a miss and goes first.
    ///
    /// Cost: reads every head and the lengths of all names.
    pub fn open(
        records: Arc<Records>,
        options: &Options,
        clock: Arc<dyn Clock>,
        metrics: Arc<StorageMetrics>,
    ) -> Result<ObjectStore> {
        let mut index = Index::default();
        let mut bad = 0;
        each_head(&records, |key, head| {
            let frame = RecordFrame::read(&key, head);
            bad += u64::from(frame.is_none());
            index.put(row_of(key, frame.as_ref()));
        })?;
        metrics.corrupt_slots.inc_by(bad);
        enter_names(&records, &mut index)?;
        Ok(ObjectStore {
            records,
            index: Mutex::new(index),
            bytes_max: options.bytes_max,
            clock,
            metrics,
            is_on: AtomicBool::new(true),
        })
    }

    /// Whether an object of the key is there. Looks into memory only.
    pub fn contains(&self, key: &Key) -> bool {
        self.is_on() && lock(&self.index).contains(key)
    }

    /// The record of the key. Blocks. One that does not verify is a miss and is counted.
    ///
    /// Errors: `Io`, `Corrupt`.
    pub fn get(&self, key: &Key) -> Result<Option<Record>> {
        if !self.contains(key) {
            return Ok(None);
        }
        let Some(bytes) = self.records.get(OBJECTS, &key.0)? else { return Ok(None) };
        let record = Record::read(key, bytes);
        if record.is_none() {
            self.metrics.corrupt_slots.inc();
            tracing::warn!(?key, "an object's record does not verify");
        }
        Ok(record)
    }

    /// The head of the record of the key. Blocks. `None` for one that does not verify.
    ///
    /// Errors: `Io`, `Corrupt`.
    pub fn head(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        if !self.contains(key) {
            return Ok(None);
        }
        let head = self.records.get(HEADS, &key.0)?;
        Ok(head.filter(|head| RecordFrame::read(key, head).is_some()))
    }

    /// Writes objects, all or none, each in the place of the one of its key, and returns when they survive a loss of
    /// power. Objects that have ended, and those that end soonest, make room.
    ///
    /// Errors: `TooLarge` for an object that would fill an eighth of the budget; then nothing changes. `Io`, `DiskFull`
    /// and `Corrupt` if the write failed, which turns the store off; `Unavailable` once it is off.
    ///
    /// Cancel safety: dropping the future before it has room in the queue changes nothing; after that, everything.
    pub async fn put_many(&self, records: Vec<(Key, Record)>) -> Result<()> {
        self.write(records, None).await
    }

    /// Writes one object and its names. Otherwise as [`ObjectStore::put_many`], which leaves the names of an object as they are.
    pub async fn put_named(&self, key: Key, record: Record, names: &EntryNames) -> Result<()> {
        let position = Position::of(record.frame().namespace, &key);
        let names = names::encode(&position, names).ok_or_else(|| {
            Error::new(Kind::TooLarge, "cannot store an object with a longer name than a record has room for")
        })?;
        self.write(vec![(key, record)], Some((position, names))).await
    }

    async fn write(&self, records: Vec<(Key, Record)>, names: Option<(Position, Vec<u8>)>) -> Result<()> {
        self.check_is_on()?;
        let rows = records.iter().map(|(key, record)| self.row(key, record)).collect::<Result<Vec<Row>>>()?;
        let names_bytes = names.as_ref().map_or(0, |(_, names)| names.len() + NAMES_OVERHEAD_BYTES);
        let bytes = rows.iter().map(|row| row.bytes as usize).sum::<usize>() + names_bytes;
        let room = self.records.reserve(bytes).await?;
        let pending = {
            let mut index = lock(&self.index);
            rows.iter().for_each(|row| index.put(*row));
            if let Some((position, names)) = &names {
                index.put_names(&position.key(), position.namespace(), names_taken(names.len()));
            }
            let gone = self.make_room(&mut index, &rows);
            let mut changes: Vec<Change> = gone.iter().flat_map(deletions).collect();
            if let Some((position, names)) = names {
                changes.push(Change::put(NAMES, position.as_bytes().to_vec(), names));
            }
            for (key, record) in records {
                changes.push(Change::put(HEADS, key.0, record.head().to_vec()));
                changes.push(Change::put(OBJECTS, key.0, record.into_bytes()));
            }
            // Submitted under the lock, so that the table and the disk see changes of one key in one order.
            self.records.submit(room, changes)
        };
        self.settle(pending?.durable().await)
    }

    /// Removes objects and returns when that survives a loss of power. Unknown keys are ignored.
    ///
    /// Errors and cancel safety: as [`ObjectStore::put_many`].
    pub async fn remove_many(&self, keys: &[Key]) -> Result<()> {
        self.check_is_on()?;
        let room = self.records.reserve(keys.len() * OVERHEAD_BYTES).await?;
        let pending = {
            let mut index = lock(&self.index);
            let removed = keys.iter().filter_map(|key| index.remove(key));
            let changes: Vec<Change> = removed.flat_map(|removed| deletions(&removed)).collect();
            if changes.is_empty() {
                return Ok(());
            }
            self.records.submit(room, changes)
        };
        self.settle(pending?.durable().await)
    }

    /// Visits the heads that verify, of the next objects behind `after` in the order of their keys. Returns the last key, or `None`
    /// at the end. Blocks.
    ///
    /// Errors: `Io`, `Corrupt`.
    ///
    /// Cost: reads 4096 heads.
    pub fn visit_heads(&self, after: Option<Key>, visit: &mut dyn FnMut(&[u8])) -> Result<Option<Key>> {
        chunk_of_heads(&self.records, after, |key, head| {
            if RecordFrame::read(&key, head).is_some() {
                visit(head);
            }
        })
    }

    /// The namespaces that have objects, in no order. Looks into memory only.
    pub fn namespaces(&self) -> Vec<NamespaceCount> {
        lock(&self.index).namespaces().all().copied().collect()
    }

    /// Whether the store takes part. A failed write turns it off until it is opened again, because what the disk holds
    /// is known only then.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// The store in numbers.
    pub fn stats(&self) -> Stats {
        let index = lock(&self.index);
        Stats { entries: index.len() as u64, bytes: index.bytes(), is_on: self.is_on() }
    }

    fn check_is_on(&self) -> Result<()> {
        if self.is_on() {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, "the store of objects has turned itself off until the next start"))
    }

    fn row(&self, key: &Key, record: &Record) -> Result<Row> {
        let row = row_of(*key, Some(record.frame()));
        if u64::from(row.bytes) <= self.bytes_max / BUDGET_SHARE {
            return Ok(row);
        }
        Err(Error::new(
            Kind::TooLarge,
            "cannot store an object that would fill an eighth of the disk's budget",
        )
        .with("bytes", record.value().len())
        .with("budget", self.bytes_max))
    }

    /// Removes objects for which there is no room beside `rows`, and some that have ended.
    fn make_room(&self, index: &mut Index, rows: &[Row]) -> Vec<Removed> {
        let spared: Vec<Key> = rows.iter().map(|row| row.key).collect();
        let now = self.clock.now();
        let mut gone = index.take_ended(SWEPT_PER_PUT * rows.len(), now, &spared);
        while index.bytes() > self.bytes_max
            && let Some(removed) = index.take_one(now, &spared)
        {
            self.metrics.evictions.inc();
            gone.push(removed);
        }
        gone
    }

    fn settle(&self, outcome: Result<()>) -> Result<()> {
        if let Err(error) = &outcome
            && self.is_on.swap(false, Ordering::AcqRel)
        {
            tracing::error!(%error, "the store of objects has turned itself off; the server goes on without it");
        }
        outcome
    }
}

/// Deletes an object, its head and its names.
fn deletions(removed: &Removed) -> impl Iterator<Item = Change> + use<> {
    let Removed { key, namespace, has_names } = *removed;
    let names = has_names.then(|| Change::delete(NAMES, Position::of(namespace, &key).as_bytes()));
    [HEADS, OBJECTS].into_iter().map(move |table| Change::delete(table, key.0)).chain(names)
}

/// What names take of the budget.
fn names_taken(bytes: usize) -> u16 {
    u16::try_from(bytes + NAMES_OVERHEAD_BYTES).unwrap_or(u16::MAX)
}

/// What an object takes of the budget: its head lies in both tables.
fn bytes_taken(head_bytes: usize, value_bytes: usize) -> u32 {
    u32::try_from(2 * head_bytes + value_bytes + OVERHEAD_BYTES).unwrap_or(u32::MAX)
}

/// A head that does not verify ends at once: it is the first to make room.
fn row_of(key: Key, frame: Option<&RecordFrame>) -> Row {
    match frame {
        Some(frame) => Row {
            key,
            created: frame.created,
            end: frame.end,
            bytes: bytes_taken(frame.head_bytes, frame.value_bytes as usize),
            namespace: frame.namespace,
        },
        None => Row {
            key,
            created: UnixSeconds(0),
            end: UnixSeconds(0),
            bytes: bytes_taken(0, 0),
            namespace: NamespaceId::default(),
        },
    }
}

/// Visits every head, in chunks, so that no long read holds back what writers free.
fn each_head(records: &Records, mut visit: impl FnMut(Key, &[u8])) -> Result<()> {
    let mut after = None;
    loop {
        after = chunk_of_heads(records, after, &mut visit)?;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Visits a chunk of heads behind `after`. Returns the last key, or `None` at the end.
fn chunk_of_heads(
    records: &Records,
    after: Option<Key>,
    mut visit: impl FnMut(Key, &[u8]),
) -> Result<Option<Key>> {
    let from = after.map_or_else(Vec::new, |Key(key)| [&key[..], &[0]].concat());
    let chunk = records.range(HEADS, &from, CHUNK)?;
    let mut last = None;
    for (key, head) in &chunk {
        // A key of another length was written by no version of this program.
        if let Ok(key) = <[u8; 32]>::try_from(key.as_slice()) {
            visit(Key(key), head);
            last = Some(Key(key));
        }
    }
    Ok(last)
}

/// Enters what names take. Those of no object were left by a program that knows of no names: they are removed.
fn enter_names(records: &Records, index: &mut Index) -> Result<()> {
    let mut from = Vec::new();
    loop {
        let chunk = records.range_lengths(NAMES, &from, CHUNK)?;
        let Some((last, _)) = chunk.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        let mut orphans = Vec::new();
        for (key, bytes) in chunk {
            let is_entered = Position::from_bytes(&key)
                .is_some_and(|at| index.put_names(&at.key(), at.namespace(), names_taken(bytes)));
            if !is_entered {
                orphans.push(Change::delete(NAMES, key));
            }
        }
        records.submit_now(orphans)?;
    }
}
