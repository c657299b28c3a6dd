//! Small records of any length: tables of bytes by bytes, always durable, with `redb` behind one door.
//!
//! One thread writes. Changes that arrive during a commit share the next one, so that many writers pay one fsync. Changes
//! of one table, on which the meaning of everything else that is stored depends, are written to a copy of it first.

mod change;
pub(crate) mod header_copy;
pub(crate) mod mirror;
pub(crate) mod overlay;
pub(crate) mod redb_header;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use redb::{Database, ReadableDatabase, ReadableTable as _, TableDefinition, TableError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use self::change::Change;
use self::header_copy::{CopiedBackend, HeaderState};
use self::mirror::{Mirror, Table};
use crate::error::{Error, Kind, Result};
use crate::storage::files::{FILE_MODE, OsFiles, create_private_dir, remove_if_present};
use crate::sync::lock;

/// The name of the database's file.
pub const RECORDS_NAME: &str = "records.redb";

/// The table of which there is a copy: the tokens that invalidations replace, which `src/cache/invalidation_tokens/` keeps. Without
/// them nothing that was stored, vectors too, can be shown not to be hidden.
pub(crate) const MIRRORED: &str = "versions";

/// Writers in one commit at most.
const GROUP_MAX: usize = 1024;
/// The longest time that a commit waits for others to join it, once two have come at the same time.
const GROUP_WAIT: Duration = Duration::from_millis(2);
/// Bytes of changes that wait for the writer; who brings more waits for room.
const QUEUE_BYTES_MAX: u32 = 64 << 20;
/// What redb may keep of its pages in memory.
const CACHE_BYTES: usize = 16 << 20;

/// A table as transactions that read see it.
type BytesTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Room in the queue of changes, given back when they are made.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Changes that have their place in the order.
#[derive(Debug)]
#[must_use = "changes are durable only after waiting"]
pub struct Pending(oneshot::Receiver<Result<()>>);

impl Pending {
    /// Waits until the changes survive the loss of power.
    ///
    /// Errors: as [`Records::write`].
    ///
    /// Cancel safety: the changes are made also if the future is dropped.
    pub async fn durable(self) -> Result<()> {
        self.0.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// A record with the record of another table that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedRecord {
    /// The key of the record.
    pub key: Vec<u8>,
    /// The record.
    pub value: Vec<u8>,
    /// The record of the other table, if there is one.
    pub joined: Option<Vec<u8>>,
}

/// Small records on disk. Reading is done by the caller's thread, all writing by one thread that the store owns.
#[derive(Debug)]
pub struct Records {
    database: Arc<Database>,
    path: PathBuf,
    queue: Mutex<Option<Sender<Write>>>,
    room: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// What the copy of a table held when it was opened.
    mirrored: Mutex<Option<Table>>,
}

#[derive(Debug)]
struct Write {
    changes: Vec<Change>,
    room: Room,
    done: oneshot::Sender<Result<()>>,
}

impl Records {
    /// Opens the records in `dir`, which is created if it is missing.
    ///
    /// Errors: `Corrupt` if the file is damaged (`likewise verify --repair` moves it aside), `Locked` if another
    /// process has it open, `Io` and `DiskFull` from the file system.
    pub fn open(dir: &Path) -> Result<Records> {
        create_private_dir(dir)
            .map_err(|error| Error::io("cannot create the directory of the records", error))?;
        let path = dir.join(RECORDS_NAME);
        check_header(&path)?;
        create_private_file(&path).map_err(|error| Error::io("cannot create the records", error))?;
        let database = guarded(|| {
            let backend = CopiedBackend::open(&path)?;
            Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
        });
        let database = Arc::new(database.map_err(|error| failed("cannot open the records", &path, error))?);
        let content = || encoded(&database, &path);
        let (mirror, mirrored) = Mirror::open(Arc::new(OsFiles), dir, MIRRORED, content)?;
        let (queue, inbox) = mpsc::channel();
        let writer = Writer { database: database.clone(), path: path.clone(), mirror, failed: None };
        let writer = thread::Builder::new()
            .name("storage-records".into())
            .spawn(move || writer.run(&inbox))
            .map_err(|error| Error::io("cannot start the writer of the records", error))?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize));
        let (queue, writer, mirrored) =
            (Mutex::new(Some(queue)), Mutex::new(Some(writer)), Mutex::new(mirrored));
        Ok(Records { database, path, queue, room, writer, mirrored })
    }

    /// What the copy of the table `versions` held when the records were opened, once. It lacks nothing that was
    /// acknowledged, unless a program wrote to the records that knows of no copy. `None` if there was none that verifies.
    pub fn take_mirrored(&self) -> Option<HashMap<Vec<u8>, Vec<u8>>> {
        lock(&self.mirrored).take()
    }

    /// Makes all of the changes or none, in their order. Returns when they survive the loss of power.
    ///
    /// Errors: `Io`, `DiskFull`, `Corrupt`. A failed commit poisons: every later write is refused until the records
    /// are opened again, because what the file holds is known only then.
    ///
    /// Cancel safety: dropping the future before it has room in the queue changes nothing; after that, everything.
    pub async fn write(&self, changes: Vec<Change>) -> Result<()> {
        let room = self.reserve(changes.iter().map(Change::bytes).sum()).await?;
        self.submit(room, changes)?.durable().await
    }

    /// Room in the queue for `bytes` of changes; waits until there is some.
    ///
    /// Errors: `Unavailable` once the records are closed.
    pub async fn reserve(&self, bytes: usize) -> Result<Room> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES_MAX);
        self.room.clone().acquire_many_owned(permits).await.map(Room).map_err(|_| stopped())
    }

    /// Queues changes and returns at once: a caller that submits under a lock of its own knows that the changes are made in
    /// the order in which the lock was held.
    ///
    /// Errors: `Unavailable` once the records are closed.
    pub fn submit(&self, room: Room, changes: Vec<Change>) -> Result<Pending> {
        let (done, outcome) = oneshot::channel();
        let write = Write { changes, room, done };
        lock(&self.queue).as_ref().ok_or_else(stopped)?.send(write).map_err(|_| stopped())?;
        Ok(Pending(outcome))
    }

    /// As [`Records::submit`], for changes that may be lost: there are none if the queue is full.
    ///
    /// Errors: `Unavailable` once the records are closed.
    pub fn submit_now(&self, changes: Vec<Change>) -> Result<()> {
        let bytes = changes.iter().map(Change::bytes).sum::<usize>();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES_MAX);
        if !changes.is_empty()
            && let Ok(room) = self.room.clone().try_acquire_many_owned(permits)
        {
            // They are made also if no caller waits.
            let _ = self.submit(Room(room), changes)?;
        }
        Ok(())
    }

    /// Puts one record. Otherwise as [`Records::write`].
    pub async fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(vec![Change::put(table, key, value.into())]).await
    }

    /// Deletes one record, if it is there. Otherwise as [`Records::write`].
    pub async fn delete(&self, table: &str, key: &[u8]) -> Result<()> {
        self.write(vec![Change::delete(table, key)]).await
    }

    /// The record of the key. Blocks.
    ///
    /// Errors: `Io`, `Corrupt`.
    pub fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.read(table, |table| {
            let found = table.get(key)?;
            Ok(found.map(|value| value.value().to_vec()))
        })?;
        Ok(found.flatten())
    }

    /// Up to `limit` records whose keys are at least `from`, ascending by key. Blocks.
    ///
    /// Errors: `Io`, `Corrupt`.
    pub fn range(&self, table: &str, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let found = self.read(table, |table| {
            let mut records = Vec::new();
            for record in table.range(from..)?.take(limit) {
                let (key, value) = record?;
                records.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(records)
        })?;
        Ok(found.unwrap_or_default())
    }

    /// As [`Records::range`], each record with that of the table `joined` whose key is `key_of` its key, in one consistent view.
    /// Blocks.
    ///
    /// Errors: `Io`, `Corrupt`.
    pub fn range_joined(
        &self,
        table: &str,
        from: &[u8],
        limit: usize,
        joined: &str,
        key_of: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<JoinedRecord>> {
        let found = self.read_both(table, joined, |table, joined| {
            let mut records = Vec::new();
            for record in table.range(from..)?.take(limit) {
                let (key, value) = record?;
                let joined = joined.get(key_of(key.value()).as_slice())?;
                records.push(JoinedRecord {
                    key: key.value().to_vec(),
                    value: value.value().to_vec(),
                    joined: joined.map(|value| value.value().to_vec()),
                });
            }
            Ok(records)
        })?;
        Ok(found.unwrap_or_default())
    }

    /// As [`Records::range`], with the lengths of the values instead of the values.
    ///
    /// Errors: `Io`, `Corrupt`.
    pub fn range_lengths(&self, table: &str, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, usize)>> {
        let found = self.read(table, |table| {
            let mut records = Vec::new();
            for record in table.range(from..)?.take(limit) {
                let (key, value) = record?;
                records.push((key.value().to_vec(), value.value().len()));
            }
            Ok(records)
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Writes what is queued and ends the writer's thread. Blocks. Later writes are refused.
    pub fn shutdown(&self) {
        lock(&self.queue).take();
        if let Some(writer) = lock(&self.writer).take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the records had panicked");
        }
    }

    /// Reads from a table in one consistent view; `None` if there is no such table.
    fn read<T>(
        &self,
        table: &str,
        read: impl FnOnce(&BytesTable) -> Result<T, redb::StorageError>,
    ) -> Result<Option<T>> {
        let attempt = || -> Result<Option<T>, redb::Error> {
            let transaction = self.database.begin_read()?;
            match transaction.open_table(definition(table)) {
                Ok(table) => Ok(Some(read(&table)?)),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        guarded(attempt)
            .map_err(|error| failed("cannot read a record", &self.path, error).with("table", table))
    }

    /// Reads from two tables in one consistent view; `None` if one of them does not exist.
    fn read_both<T>(
        &self,
        table: &str,
        other: &str,
        read: impl FnOnce(&BytesTable, &BytesTable) -> Result<T, redb::StorageError>,
    ) -> Result<Option<T>> {
        let attempt = || -> Result<Option<T>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let open = |name| match transaction.open_table(definition(name)) {
                Ok(table) => Ok(Some(table)),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error),
            };
            match (open(table)?, open(other)?) {
                (Some(table), Some(other)) => Ok(Some(read(&table, &other)?)),
                (None, _) | (_, None) => Ok(None),
            }
        };
        guarded(attempt)
            .map_err(|error| failed("cannot read a record", &self.path, error).with("table", table))
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Refuses a file whose header is not that of its last commit: redb would go back to an earlier one, which may hold what
/// was deleted since.
fn check_header(path: &Path) -> Result<()> {
    let is_there = path
        .try_exists()
        .map_err(|error| Error::io("cannot find the records", error).with("path", path.display()))?;
    if !is_there {
        // A copy of the header of a file that has gone would mark the next file as damaged.
        return remove_if_present(&OsFiles, &header_copy::path_of(path))
            .map_err(|error| Error::io("cannot remove the copy of the records' header", error));
    }
    match header_copy::check_header(path)? {
        HeaderState::Valid | HeaderState::OlderSlotDamaged(_) => Ok(()),
        HeaderState::Damaged(_) => {
            let message = "cannot open the records: their header is not that of the last commit";
            Err(Error::new(Kind::Corrupt, message).with("path", path.display()))
        }
        HeaderState::Unknown(error) => {
            tracing::warn!(%error, "the header of the records is used without a check by its copy");
            Ok(())
        }
    }
}

/// Creates the file with its mode, if it is missing: redb takes an empty one for a new database.
pub(crate) fn create_private_file(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path).map(drop)
}

struct Writer {
    database: Arc<Database>,
    path: PathBuf,
    /// Missing once it could not be written.
    mirror: Option<Mirror>,
    failed: Option<Error>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Write>) {
        while let Ok(first) = inbox.recv() {
            let group = gather(first, inbox);
            let result = match &self.failed {
                Some(error) => {
                    Err(Error::new(Kind::Unavailable, "cannot write records after a failed write")
                        .with("path", self.path.display())
                        .source(error.clone()))
                }
                None => self.mirror(&group).and_then(|()| {
                    self.commit(&group).map_err(|error| failed("cannot write records", &self.path, error))
                }),
            };
            if let (Err(error), None) = (&result, &self.failed) {
                self.failed = Some(error.clone());
            }
            for Write { room, done, .. } in group {
                drop(room);
                // A caller that has stopped waiting has lost nothing.
                let _ = done.send(result.clone());
            }
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.close();
        }
    }

    /// Writes the changes of the mirrored table to its copy: durable when this returns.
    ///
    /// Errors: `Io` if the copy can be neither written nor removed.
    fn mirror(&mut self, group: &[Write]) -> Result<()> {
        let changes = group.iter().flat_map(|write| &write.changes);
        let changes: Vec<&Change> = changes.filter(|change| change.table == MIRRORED).collect();
        let Some(mirror) = self.mirror.as_mut().filter(|_| !changes.is_empty()) else { return Ok(()) };
        if mirror.is_long()
            && let Err(error) =
                encoded(&self.database, &self.path).and_then(|content| mirror.rewrite(&content))
        {
            tracing::warn!(%error, "failed to rewrite the log of tokens");
        }
        if let Err(error) = mirror.append(&changes) {
            tracing::warn!(%error, "the copy of a table of the records is given up until the next start");
            mirror.discard()?;
            self.mirror = None;
        }
        Ok(())
    }

    fn commit(&self, group: &[Write]) -> Result<(), redb::Error> {
        // A transaction is durable when its commit returns: that is redb's default, and none here asks for less.
        let transaction = self.database.begin_write()?;
        for change in group.iter().flat_map(|write| &write.changes) {
            let mut table = transaction.open_table(definition(&change.table))?;
            match &change.value {
                Some(value) => table.insert(change.key.as_slice(), value.as_slice())?,
                None => table.remove(change.key.as_slice())?,
            };
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Everything that waits. A single writer is not kept waiting; two or more wait a little for others.
fn gather(first: Write, inbox: &Receiver<Write>) -> Vec<Write> {
    let deadline = Instant::now() + GROUP_WAIT;
    let mut group = vec![first];
    while group.len() < GROUP_MAX {
        let wait = deadline.saturating_duration_since(Instant::now());
        match inbox.try_recv() {
            Ok(write) => group.push(write),
            Err(TryRecvError::Empty) if group.len() > 1 && !wait.is_zero() => {
                match inbox.recv_timeout(wait) {
                    Ok(write) => group.push(write),
                    Err(_) => break,
                }
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    group
}

/// The mirrored table as its copy begins with it.
fn encoded(database: &Database, path: &Path) -> Result<Vec<u8>> {
    let encoded = guarded(|| {
        let mut bytes = mirror::encode(std::iter::empty());
        let transaction = database.begin_read()?;
        let table = match transaction.open_table(definition(MIRRORED)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(bytes),
            table => table?,
        };
        for record in table.iter()? {
            let (key, value) = record?;
            mirror::push(&mut bytes, key.value(), Some(value.value()));
        }
        Ok(bytes)
    });
    encoded.map_err(|error| failed("cannot read a table that has a copy", path, error))
}

pub(crate) fn definition(table: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(table)
}

/// Runs an operation on bytes that may be damaged in a way that redb meets with a panic: that is damage too.
pub(crate) fn guarded<T>(operation: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    // What a panicking operation leaves behind is only read again by operations that are guarded themselves.
    catch_unwind(AssertUnwindSafe(operation))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("the file holds what no writer wrote".into())))
}

/// Sorts redb's errors into ours.
#[expect(clippy::wildcard_enum_match_arm, reason = "redb's errors are non-exhaustive")]
pub(crate) fn failed(message: &str, path: &Path, error: redb::Error) -> Error {
    let error = match error {
        redb::Error::Io(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
            Error::new(Kind::Corrupt, message).source(cause)
        }
        redb::Error::Io(cause) => Error::io(message, cause),
        redb::Error::DatabaseAlreadyOpen => Error::new(Kind::Locked, message).source(error),
        redb::Error::UpgradeRequired(_) => Error::new(Kind::Format, message).source(error),
        redb::Error::Corrupted(_) | redb::Error::RepairAborted => {
            Error::new(Kind::Corrupt, message).source(error)
        }
        _ => Error::new(Kind::Io, message).source(error),
    };
    error.with("path", path.display())
}

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the records have been closed")
}
