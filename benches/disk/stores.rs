//! The store of vectors and its rivals behind one door: the same keys, the same values, the same promises.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise::domain::{Codec, Entry, EntryMeta, Key, KeyHasher, SystemClock, UnixSeconds};
use likewise::metrics::unexported;
use likewise::storage::{Durability, Options, OsFiles, ReadMode, VectorStore};
use redb::{Database, ReadableDatabase as _, TableDefinition};
use rusqlite::{Connection, Row, params};
use tokio::runtime::Runtime;

const DIM: usize = 384;
pub(crate) const VALUE_BYTES: usize = DIM * size_of::<f32>();

/// What the rivals may keep in memory of their files.
const CACHE_BYTES: usize = 1 << 30;
/// Of SQLite: the whole file.
const MAPPED_BYTES: u64 = 8 << 30;
/// Of SQLite: five values fit into a page. With its default of 4,096 bytes it takes a quarter more space.
const PAGE_BYTES: usize = 8192;

pub(crate) type Pair = (Key, Arc<Entry>);
/// A value as a cache hands it on: copied out of the store once, shared from there.
pub(crate) type Value = Arc<[u8]>;
/// Takes how long a get took, and what it found.
pub(crate) type Seen<'a> = dyn FnMut(Duration, Option<Value>) + 'a;

/// A store on a directory.
pub(crate) trait Store: Send {
    /// Stores pairs in one commit; when it returns, they survive a loss of power.
    fn put_durably(&mut self, pairs: &[Pair]);

    /// Stores pairs in one commit that survives the death of the process.
    fn put(&mut self, pairs: &[Pair]);

    /// Gets the keys one after the other.
    fn get_each(&self, keys: &[Key], seen: &mut Seen<'_>);

    /// Makes everything durable.
    fn flush(&mut self);

    /// Ends in order.
    fn close(self: Box<Self>);
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Likewise,
    LikewisePread,
    Redb,
    Sqlite,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Likewise => "likewise",
            Kind::LikewisePread => "likewise, pread",
            Kind::Redb => "redb",
            Kind::Sqlite => "SQLite, WAL",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Kind> {
        [Kind::Likewise, Kind::LikewisePread, Kind::Redb, Kind::Sqlite].into_iter().find(|k| k.name() == name)
    }

    pub(crate) fn is_rival(self) -> bool {
        matches!(self, Kind::Redb | Kind::Sqlite)
    }

    pub(crate) fn open(self, dir: &Path) -> Box<dyn Store> {
        match self {
            Kind::Likewise => Box::new(Likewise::open(dir, ReadMode::Mmap)),
            Kind::LikewisePread => Box::new(Likewise::open(dir, ReadMode::Pread)),
            Kind::Redb => Box::new(Redb::open(dir)),
            Kind::Sqlite => Box::new(Sqlite::open(dir)),
        }
    }
}

/// The store of vectors, called from a thread: the runtime only waits for its writer.
pub(crate) struct Likewise {
    pub(crate) store: VectorStore,
    runtime: Runtime,
}

impl Likewise {
    pub(crate) fn open(dir: &Path, read: ReadMode) -> Likewise {
        let options = Options { read, ..Options::default() };
        let opened = VectorStore::open(Arc::new(OsFiles), dir, &options, Arc::new(SystemClock), unexported());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Likewise { store: opened.expect("the store opens").0, runtime }
    }

    fn put_as(&mut self, pairs: &[Pair], durability: Durability) {
        let put = self.store.put_many(pairs.to_vec(), Some(durability));
        self.runtime.block_on(put).expect("the disk has room");
    }
}

impl Store for Likewise {
    fn put_durably(&mut self, pairs: &[Pair]) {
        self.put_as(pairs, Durability::Sync);
    }

    fn put(&mut self, pairs: &[Pair]) {
        self.put_as(pairs, Durability::Async);
    }

    fn get_each(&self, keys: &[Key], seen: &mut Seen<'_>) {
        time_each(keys, seen, |key| self.store.get(key).expect("the disk reads").map(|entry| entry.value));
    }

    fn flush(&mut self) {
        self.runtime.block_on(self.store.flush()).expect("the disk has room");
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.store.close());
    }
}

const TABLE: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("vectors");

struct Redb(Database);

impl Redb {
    fn open(dir: &Path) -> Redb {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("vectors.redb"));
        Redb(database.expect("redb opens"))
    }

    fn get(&self, key: &Key) -> Option<Value> {
        let transaction = self.0.begin_read().expect("redb reads");
        let table = transaction.open_table(TABLE).expect("a table");
        table.get(key.0).expect("redb reads").map(|value| value.value().into())
    }
}

impl Store for Redb {
    fn put_durably(&mut self, pairs: &[Pair]) {
        let mut transaction = self.0.begin_write().expect("redb writes");
        transaction.set_durability(redb::Durability::Immediate).expect("redb knows it");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for (key, entry) in pairs {
                table.insert(key.0, &*entry.value).expect("redb writes");
            }
        }
        transaction.commit().expect("redb commits");
    }

    /// After a death redb goes back to its last flushed commit, so that surviving one needs the flush too.
    fn put(&mut self, pairs: &[Pair]) {
        self.put_durably(pairs);
    }

    /// A transaction for each: a server that kept one would not see what was put since.
    fn get_each(&self, keys: &[Key], seen: &mut Seen<'_>) {
        time_each(keys, seen, |key| self.get(key));
    }

    fn flush(&mut self) {}

    fn close(self: Box<Self>) {}
}

struct Sqlite(Connection);

impl Sqlite {
    /// With a rowid: in a table without, values of this size leave each page few keys, which takes more space and
    /// thrice the time to fill.
    fn open(dir: &Path) -> Sqlite {
        let connection = Connection::open(dir.join("vectors.sqlite")).expect("SQLite opens");
        let cache_kib = CACHE_BYTES / 1024;
        let set_up = format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA cache_size = -{cache_kib}; PRAGMA mmap_size = {MAPPED_BYTES};
             CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
        );
        connection.execute_batch(&set_up).expect("SQLite knows them");
        Sqlite(connection)
    }
}

impl Store for Sqlite {
    fn put_durably(&mut self, pairs: &[Pair]) {
        let transaction = self.0.transaction().expect("SQLite writes");
        {
            let mut insert = transaction
                .prepare_cached("INSERT OR REPLACE INTO vectors (key, value) VALUES (?1, ?2)")
                .expect("valid SQL");
            for (key, entry) in pairs {
                insert.execute(params![key.0, &*entry.value]).expect("SQLite writes");
            }
        }
        transaction.commit().expect("SQLite commits");
    }

    /// With a write-ahead log and `synchronous = NORMAL` a commit is given to the system and not flushed.
    fn put(&mut self, pairs: &[Pair]) {
        self.0.execute_batch("PRAGMA synchronous = NORMAL").expect("SQLite knows it");
        self.put_durably(pairs);
        self.0.execute_batch("PRAGMA synchronous = FULL").expect("SQLite knows it");
    }

    fn get_each(&self, keys: &[Key], seen: &mut Seen<'_>) {
        let mut select = self.0.prepare("SELECT value FROM vectors WHERE key = ?1").expect("valid SQL");
        let value = |row: &Row<'_>| row.get_ref(0).map(|value| value.as_blob().expect("a blob").into());
        time_each(keys, seen, |key| match select.query_row([&key.0], value) {
            Ok(value) => Some(value),
            Err(rusqlite::Error::QueryReturnedNoRows) => None,
            Err(error) => panic!("SQLite reads: {error}"),
        });
    }

    fn flush(&mut self) {
        let done = self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        done.expect("SQLite checkpoints");
    }

    fn close(self: Box<Self>) {}
}

/// Times nothing but the get: the look at what it found comes after.
fn time_each(keys: &[Key], seen: &mut Seen<'_>, mut get: impl FnMut(&Key) -> Option<Value>) {
    for key in keys {
        let started = Instant::now();
        let value = get(key);
        let took = started.elapsed();
        seen(took, value);
    }
}

/// By which call a store flushes, for the report.
pub(crate) fn flush_call(kind: Kind) -> &'static str {
    match kind {
        Kind::Likewise | Kind::LikewisePread | Kind::Redb => "fdatasync",
        // Its build needs a flag that the system has the cheaper call.
        Kind::Sqlite if option_env!("LIBSQLITE3_FLAGS") == Some("-DHAVE_FDATASYNC=1") => "fdatasync",
        Kind::Sqlite => "fsync",
    }
}

pub(crate) fn key(n: u32) -> Key {
    KeyHasher::new("bench").field(&n.to_le_bytes()).finish()
}

/// The value of key `n`; no two are equal.
pub(crate) fn value(n: u32) -> Vec<u8> {
    (0..DIM as u32).flat_map(|i| (n.wrapping_mul(31).wrapping_add(i) as f32).to_le_bytes()).collect()
}

pub(crate) fn pair(n: u32) -> Pair {
    let meta = EntryMeta { tokens: 7, ..EntryMeta::ending(Codec::F32, UnixSeconds(0), UnixSeconds::NEVER) };
    (key(n), Arc::new(Entry { meta, value: value(n).into() }))
}
