//! The disk tiers: the stores of this node behind the interface of a tier, read on threads of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::blocking_readers::BlockingReaders;
use super::metrics::{CacheMetrics, TierMetrics};
use super::policy::Namespace;
use super::tier::{Choice, EntryScan, ScanRequest, ScannedEntry, Tier, TierStats};
use super::{compression, entry_codec};
use crate::domain::{Codec, Entry, EntryMeta, EntryNames, Key, NamespaceId, TierName};
use crate::error::{Error, Kind, Result};
use crate::storage::objects::{NamespaceCount, Record, ScannedObject};
use crate::storage::{ObjectStore, VectorStore};

/// How long a part of a scan or a count waits for parts of others.
const TURN_WAIT: Duration = Duration::from_secs(10);

impl TierMetrics {
    /// A read as tiers answer it: a fault is a miss.
    fn count_read(&self, read: Result<Option<Entry>>) -> Option<Arc<Entry>> {
        match read {
            Ok(Some(entry)) => {
                self.hits.inc();
                Some(Arc::new(entry))
            }
            Ok(None) => {
                self.misses.inc();
                None
            }
            Err(error) => {
                self.errors.inc();
                tracing::warn!(%error, "a read of the disk tier failed; answered as a miss");
                None
            }
        }
    }
}

/// Vectors on disk. Only entries with [`Codec::F32`] are kept here. They can be made again, so a write that fails is
/// counted and costs no client its answer.
pub struct VectorTier {
    store: Arc<VectorStore>,
    bytes_max: u64,
    readers: BlockingReaders,
    metrics: TierMetrics,
    has_warned: AtomicBool,
}

impl VectorTier {
    /// A tier over `store`, whose budget is `bytes_max`.
    ///
    /// # Errors
    /// `Io` if its threads cannot be started.
    pub fn new(store: Arc<VectorStore>, bytes_max: u64, metrics: &CacheMetrics) -> Result<VectorTier> {
        Ok(VectorTier {
            store,
            bytes_max,
            readers: BlockingReaders::start("vector")?,
            metrics: metrics.tier(TierName::Disk),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Logs the first failure of a kind that repeats with every request.
    fn warn_once(&self, error: &Error) {
        self.metrics.errors.inc();
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the disk tier cannot store vectors; they are served from memory only");
        }
    }
}

impl Tier for VectorTier {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn get_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        keys: Vec<Key>,
    ) -> BoxFuture<'a, Vec<Option<Arc<Entry>>>> {
        Box::pin(async move {
            let count = keys.len();
            // The table of keys is in memory: a cold text costs no trip to another thread.
            if !keys.iter().any(|key| self.store.contains(key)) {
                self.metrics.misses.inc_by(count as u64);
                return vec![None; count];
            }
            let (store, metrics) = (Arc::clone(&self.store), self.metrics.clone());
            // A slot does not name its namespace; the caller that looks up a key knows it.
            let id = namespace.id;
            let within = move |mut entry: Entry| {
                entry.meta.namespace = id;
                entry
            };
            let read = move || {
                let read_one = |key| metrics.count_read(store.get(key).map(|found| found.map(&within)));
                keys.iter().map(read_one).collect()
            };
            self.readers.run(read).await.unwrap_or_else(|| vec![None; count])
        })
    }

    fn put_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        entries: Vec<(Key, Arc<Entry>)>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let vectors: Vec<_> =
                entries.into_iter().filter(|(_, entry)| entry.meta.codec == Codec::F32).collect();
            if !vectors.is_empty()
                && self.store.is_on()
                && let Err(error) = self.store.put_many(vectors, namespace.policy.durability).await
            {
                self.warn_once(&error);
            }
            Ok(())
        })
    }

    fn put_named<'a>(
        &'a self,
        namespace: &'a Namespace,
        key: Key,
        entry: Arc<Entry>,
        _: &'a EntryNames,
    ) -> BoxFuture<'a, Result<()>> {
        self.put_many(namespace, vec![(key, entry)])
    }

    fn remove_many(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            keys.iter().for_each(|key| _ = self.store.remove(key));
            Ok(())
        })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match self.store.flush().await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Unavailable => {}
                Err(error) => self.warn_once(&error),
            }
        })
    }

    fn stats(&self) -> TierStats {
        let stats = self.store.stats();
        TierStats {
            entries: stats.entries,
            bytes: stats.bytes_on_disk,
            bytes_max: self.bytes_max,
            is_on: stats.is_on,
        }
    }
}

/// Objects on disk. Clients were promised that they are kept, so a write that fails is an error.
pub struct ObjectTier {
    store: Arc<ObjectStore>,
    bytes_max: u64,
    readers: BlockingReaders,
    /// One part of one scan or count is read at a time: of the two readers, one stays free for lookups.
    turn: Semaphore,
    metrics: TierMetrics,
    /// Combined with the epoch of each entry that is stored; see [`ObjectTier::set_salt`].
    salt: AtomicU64,
}

impl ObjectTier {
    /// A tier over `store`, whose budget is `bytes_max`.
    ///
    /// # Errors
    /// `Io` if its threads cannot be started.
    pub fn new(store: Arc<ObjectStore>, bytes_max: u64, metrics: &CacheMetrics) -> Result<ObjectTier> {
        let metrics = metrics.tier(TierName::Disk);
        let readers = BlockingReaders::start("object")?;
        let (turn, salt) = (Semaphore::new(1), AtomicU64::new(0));
        Ok(ObjectTier { store, bytes_max, readers, turn, metrics, salt })
    }

    /// Changes what is combined with the epoch of each entry. The judge hides every entry that was stored with another salt, so all
    /// entries are hidden at once by a new random one. 0 until then.
    pub fn set_salt(&self, salt: u64) {
        self.salt.store(salt, Ordering::Release);
    }

    fn salt(&self) -> u64 {
        self.salt.load(Ordering::Acquire)
    }

    /// The entry of a key as it is stored, compressed or not.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub async fn stored(&self, key: Key) -> Result<Option<Entry>> {
        let (store, salt) = (Arc::clone(&self.store), self.salt());
        let read = move || match store.get(&key)? {
            Some(record) => decoded(&key, &record, salt).map(Some),
            None => Ok(None),
        };
        self.readers.run(read).await.unwrap_or_else(|| Err(reader_stopped()))
    }

    /// Everything but the values of entries, as they are stored; `None` also for what cannot be read. Costs a read of each that is there.
    ///
    /// # Errors
    /// `Unavailable` once the readers are stopped.
    pub async fn metas(&self, keys: Vec<Key>) -> Result<Vec<Option<EntryMeta>>> {
        let (store, salt) = (Arc::clone(&self.store), self.salt());
        let read_one = move |key: &Key| {
            let head = store.head(key).ok().flatten()?;
            entry_codec::decode_head(&head).map(|meta| with_salt(meta, salt))
        };
        let read = move || Ok(keys.iter().map(read_one).collect());
        self.readers.run(read).await.unwrap_or_else(|| Err(reader_stopped()))
    }

    /// Whether there is an entry of the key, of any age.
    pub fn contains(&self, key: &Key) -> bool {
        self.store.contains(key)
    }

    /// Reads a part of a scan or of a count in its turn. `Overloaded` if the turn does not come.
    async fn read_part<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN_WAIT, self.turn.acquire()).await else {
            return Err(Error::new(
                Kind::Overloaded,
                "too many listings and counts read the disk; try again later",
            ));
        };
        self.readers.run(read).await.unwrap_or_else(|| Err(reader_stopped()))
    }
}

fn encoded(key: &Key, entry: &Entry, salt: u64) -> Result<Record> {
    let salted = (salt != 0)
        .then(|| Entry { meta: with_salt(entry.meta.clone(), salt), value: Arc::clone(&entry.value) });
    entry_codec::encode(key, salted.as_ref().unwrap_or(entry)).ok_or_else(|| {
        let message =
            "cannot store an object with more tags or a longer content type than a record has room for";
        Error::new(Kind::TooLarge, message).with("bytes", entry.value.len())
    })
}

/// Combines the epoch with the salt, or takes it out again.
fn with_salt(meta: EntryMeta, salt: u64) -> EntryMeta {
    EntryMeta { epoch: meta.epoch ^ salt, ..meta }
}

/// `None` if a newer program has encoded the head.
fn scanned(object: ScannedObject, salt: u64) -> Option<ScannedEntry> {
    let ScannedObject { position, names, head, value_bytes } = object;
    Some(ScannedEntry {
        position,
        names,
        meta: with_salt(entry_codec::decode_head(&head)?, salt),
        value_bytes,
    })
}

/// A reader whose thread has ended.
fn reader_stopped() -> Error {
    Error::new(Kind::Unavailable, "cannot read the disk: its readers have stopped")
}

fn decoded(key: &Key, record: &Record, salt: u64) -> Result<Entry> {
    let Entry { meta, value } = entry_codec::decode(record).ok_or_else(|| {
        Error::new(Kind::Corrupt, "cannot decode the record of an object").with("key", format!("{key:?}"))
    })?;
    Ok(Entry { meta: with_salt(meta, salt), value })
}

impl Tier for ObjectTier {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn get_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        keys: Vec<Key>,
    ) -> BoxFuture<'a, Vec<Option<Arc<Entry>>>> {
        Box::pin(async move {
            let count = keys.len();
            if !keys.iter().any(|key| self.store.contains(key)) {
                self.metrics.misses.inc_by(count as u64);
                return vec![None; count];
            }
            let (store, metrics) = (Arc::clone(&self.store), self.metrics.clone());
            let (value_bytes_max, salt) = (namespace.policy.value_bytes_max, self.salt());
            let read_one = move |key: &Key| match store.get(key)? {
                Some(record) => {
                    compression::decompress(value_bytes_max, decoded(key, &record, salt)?).map(Some)
                }
                None => Ok(None),
            };
            let read = move || keys.iter().map(|key| metrics.count_read(read_one(key))).collect();
            self.readers.run(read).await.unwrap_or_else(|| vec![None; count])
        })
    }

    fn put_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        entries: Vec<(Key, Arc<Entry>)>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let salt = self.salt();
            let encode = |(key, entry)| {
                Ok((key, encoded(&key, &compression::compress(&namespace.policy, &entry), salt)?))
            };
            let put = async {
                let records = entries.into_iter().map(encode).collect::<Result<Vec<_>>>()?;
                self.store.put_many(records).await
            };
            put.await.inspect_err(|_| _ = self.metrics.errors.inc())
        })
    }

    fn put_named<'a>(
        &'a self,
        namespace: &'a Namespace,
        key: Key,
        entry: Arc<Entry>,
        names: &'a EntryNames,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let put = async {
                let record = encoded(&key, &compression::compress(&namespace.policy, &entry), self.salt())?;
                self.store.put_named(key, record, names).await
            };
            put.await.inspect_err(|_| _ = self.metrics.errors.inc())
        })
    }

    fn scan(&self, request: ScanRequest) -> BoxFuture<'_, Result<Option<EntryScan>>> {
        Box::pin(async move {
            let (store, salt) = (Arc::clone(&self.store), self.salt());
            let read = move || {
                let part = store.scan(&request.scope, request.after, request.records)?;
                let entries = part.objects.into_iter().filter_map(|object| scanned(object, salt)).collect();
                Ok(Some(EntryScan { entries, records: part.records, last: part.last }))
            };
            self.read_part(read).await
        })
    }

    fn named(&self, key: Key) -> BoxFuture<'_, Result<Option<ScannedEntry>>> {
        Box::pin(async move {
            let (store, salt) = (Arc::clone(&self.store), self.salt());
            let read = move || Ok(store.named(&key)?.and_then(|object| scanned(object, salt)));
            self.readers.run(read).await.unwrap_or_else(|| Err(reader_stopped()))
        })
    }

    fn namespaces(&self) -> Vec<NamespaceCount> {
        self.store.namespaces()
    }

    fn remove_many(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<()>> {
        Box::pin(
            async move { self.store.remove_many(&keys).await.inspect_err(|_| _ = self.metrics.errors.inc()) },
        )
    }

    fn namespace_of(&self, key: Key) -> BoxFuture<'_, Result<Option<NamespaceId>>> {
        Box::pin(async move {
            let store = Arc::clone(&self.store);
            let read = self.readers.run(move || store.head(&key)).await;
            let namespace = |head: Vec<u8>| entry_codec::decode_head(&head).map(|meta| meta.namespace);
            Ok(read.unwrap_or(Ok(None))?.and_then(namespace))
        })
    }

    fn count(&self, choice: Choice) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(async move {
            let (mut count, mut after) = (0, None);
            loop {
                // A part at a time, so that lookups come in between.
                let (store, choice, salt) = (Arc::clone(&self.store), Arc::clone(&choice), self.salt());
                let read = move || {
                    let mut chosen = 0;
                    let is_chosen = |meta| choice(&with_salt(meta, salt));
                    let last = store.visit_heads(after, &mut |head| {
                        chosen += u64::from(entry_codec::decode_head(head).is_some_and(is_chosen));
                    })?;
                    Ok((chosen, last))
                };
                let part = self.read_part(read).await?;
                count += part.0;
                after = part.1;
                if after.is_none() {
                    return Ok(Some(count));
                }
            }
        })
    }

    fn stats(&self) -> TierStats {
        let stats = self.store.stats();
        TierStats {
            entries: stats.entries,
            bytes: stats.bytes,
            bytes_max: self.bytes_max,
            is_on: stats.is_on,
        }
    }
}
