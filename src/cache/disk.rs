//! The disk tier: the vector store of this node, read on threads of its own because a page fault blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::tier::{Tier, TierName, TierStats};
use crate::domain::{Codec, Entry, Key};
use crate::error::{Error, Kind, Result};
use crate::metrics::{Metrics, TierLabels};
use crate::storage::VectorStore;

/// Threads that read the store. Two are enough to overlap a page fault with a copy.
const READER_THREADS: usize = 2;

/// Reads waiting for a thread; a caller beyond that waits for room.
const READS_QUEUED_MAX: usize = 1024;

struct Read {
    keys: Vec<Key>,
    reply: oneshot::Sender<Vec<Option<Arc<Entry>>>>,
}

/// Vectors on disk. Only entries with [`Codec::F32`] are kept here.
pub struct DiskTier {
    store: Arc<VectorStore>,
    bytes_max: u64,
    reads: Option<mpsc::Sender<Read>>,
    readers: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
    has_warned: AtomicBool,
}

struct Counters {
    hits: Counter,
    misses: Counter,
    errors: Counter,
}

impl DiskTier {
    /// A tier over `store`, whose budget is `bytes_max`. Fails if its threads cannot be started.
    pub fn new(store: Arc<VectorStore>, bytes_max: u64, metrics: &Metrics) -> Result<DiskTier> {
        let labels = TierLabels { tier: TierName::Disk.as_str() };
        let counters = Arc::new(Counters {
            hits: metrics.tier_hits.get_or_create(&labels).clone(),
            misses: metrics.tier_misses.get_or_create(&labels).clone(),
            errors: metrics.tier_errors.get_or_create(&labels).clone(),
        });
        let (reads, queue) = mpsc::channel(READS_QUEUED_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let readers = (0..READER_THREADS)
            .map(|n| {
                let (store, queue, counters) =
                    (Arc::clone(&store), Arc::clone(&queue), Arc::clone(&counters));
                std::thread::Builder::new()
                    .name(format!("disk-reader-{n}"))
                    .spawn(move || serve_reads(&store, &queue, &counters))
                    .map_err(|error| Error::io("start a disk reader", error))
            })
            .collect::<Result<_>>()?;
        Ok(DiskTier {
            store,
            bytes_max,
            reads: Some(reads),
            readers,
            counters,
            has_warned: AtomicBool::new(false),
        })
    }

    /// Logs the first failure of a kind that repeats with every request.
    fn warn_once(&self, error: &Error) {
        self.counters.errors.inc();
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the disk tier cannot store entries; they are served from memory only");
        }
    }

    async fn read(&self, keys: Vec<Key>) -> Option<Vec<Option<Arc<Entry>>>> {
        let (reply, answer) = oneshot::channel();
        self.reads.as_ref()?.send(Read { keys, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// Ends when the tier is dropped.
fn serve_reads(store: &VectorStore, queue: &Mutex<mpsc::Receiver<Read>>, counters: &Counters) {
    loop {
        let next = queue.blocking_lock().blocking_recv();
        let Some(Read { keys, reply }) = next else { return };
        if reply.is_closed() {
            continue;
        }
        let entries = keys.iter().map(|key| read_one(store, key, counters)).collect();
        // The asker may have left meanwhile.
        let _ = reply.send(entries);
    }
}

fn read_one(store: &VectorStore, key: &Key, counters: &Counters) -> Option<Arc<Entry>> {
    match store.get(key) {
        Ok(Some(entry)) => {
            counters.hits.inc();
            Some(Arc::new(entry))
        }
        Ok(None) => {
            counters.misses.inc();
            None
        }
        Err(error) => {
            counters.errors.inc();
            tracing::warn!(%error, "a read of the disk tier failed; answered as a miss");
            None
        }
    }
}

impl Tier for DiskTier {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn get_many(&self, keys: Vec<Key>) -> BoxFuture<'_, Vec<Option<Arc<Entry>>>> {
        Box::pin(async move {
            let count = keys.len();
            // The table of keys is in memory: a cold text costs no trip to another thread.
            if !keys.iter().any(|key| self.store.contains(key)) {
                self.counters.misses.inc_by(count as u64);
                return vec![None; count];
            }
            self.read(keys).await.unwrap_or_else(|| vec![None; count])
        })
    }

    fn put_many(&self, entries: Vec<(Key, Arc<Entry>)>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let vectors: Vec<_> =
                entries.into_iter().filter(|(_, entry)| entry.meta.codec == Codec::F32).collect();
            if vectors.is_empty() || !self.store.is_on() {
                return;
            }
            if let Err(error) = self.store.put_many(vectors, None).await {
                self.warn_once(&error);
            }
        })
    }

    fn remove_many(&self, keys: Vec<Key>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for key in &keys {
                self.store.remove(key);
            }
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

impl Drop for DiskTier {
    fn drop(&mut self) {
        self.reads = None;
        for reader in self.readers.drain(..) {
            // A reader that panicked has been reported by the panic itself.
            let _ = reader.join();
        }
    }
}
