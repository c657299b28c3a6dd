//! Redis behind the interface of a tier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::{Cmd, Value};

use super::breaker::BreakerState;
use super::call_error::CallError;
use super::client::RedisClient;
use super::clock_offset::ClockOffset;
use super::envelope::{Envelope, Enveloped};
use super::metrics::RedisMetrics;
use crate::cache::blocking_readers::BlockingReaders;
use crate::cache::compression;
use crate::cache::metrics::{CacheMetrics, TierMetrics};
use crate::cache::policy::Namespace;
use crate::cache::random::random_id;
use crate::cache::tier::{Tier, TierStats};
use crate::domain::{Clock, Codec, Entry, EntryNames, Key, NamespaceId, TierName, UnixSeconds};
use crate::error::Result;

/// Keys of one command: a server runs no other meanwhile.
const KEYS_PER_COMMAND: usize = 128;
/// Each so many keys, a call may take the time of one more answer.
const KEYS_PER_LIMIT: usize = 512;
/// Values that are longer together are decoded on threads of their own.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Which entries a tier has: those of a kind are named, read and written in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisEntries {
    /// Embeddings, which are immutable under their key.
    Embeddings,
    /// Objects and answers.
    Objects,
}

/// Entries in Redis. A fault is counted, logged once until calls succeed again, and answered as a miss; a write that fails
/// costs no client its answer.
///
/// Redis knows how many entries it has and how long they are, but only of all installations and kinds together, so the
/// numbers of the tier are 0. It takes part while the breaker is not open.
pub struct RedisTier {
    client: RedisClient,
    envelope: Envelope,
    entries: RedisEntries,
    value_bytes_max: usize,
    clock: Arc<dyn Clock>,
    readers: BlockingReaders,
    metrics: TierMetrics,
    redis_metrics: Arc<RedisMetrics>,
    has_warned: AtomicBool,
}

/// What a tier needs besides the connection.
pub struct RedisTierParts<'a> {
    /// How entries are sealed.
    pub envelope: Envelope,
    /// Bytes of the longest value in Redis, as it is stored.
    pub value_bytes_max: usize,
    /// The clock of this node.
    pub clock: Arc<dyn Clock>,
    /// The metrics of tiers.
    pub metrics: &'a CacheMetrics,
    /// The metrics of Redis.
    pub redis_metrics: Arc<RedisMetrics>,
}

impl RedisTier {
    /// A tier of one kind of entries.
    ///
    /// # Errors
    /// `Io` if its threads cannot be started.
    pub fn new(client: RedisClient, entries: RedisEntries, parts: RedisTierParts<'_>) -> Result<RedisTier> {
        Ok(RedisTier {
            client,
            envelope: parts.envelope,
            entries,
            value_bytes_max: parts.value_bytes_max,
            clock: parts.clock,
            readers: BlockingReaders::start("redis")?,
            metrics: parts.metrics.tier(TierName::Redis),
            redis_metrics: parts.redis_metrics,
            has_warned: AtomicBool::new(false),
        })
    }

    fn name_of(&self, key: &Key) -> String {
        match self.entries {
            RedisEntries::Embeddings => self.client.keys().embedding(key),
            RedisEntries::Objects => self.client.keys().object(key),
        }
    }

    /// Which keys one command reads: those of one hash slot.
    fn groups(&self, keys: &[Key]) -> Vec<Vec<usize>> {
        let shards = self.client.keys().shards();
        let all = || (0..keys.len()).collect::<Vec<_>>();
        let slots: Vec<Vec<usize>> = match self.entries {
            _ if shards == 1 => vec![all()],
            RedisEntries::Embeddings => all().into_iter().map(|at| vec![at]).collect(),
            RedisEntries::Objects => {
                let mut of_shards = vec![Vec::new(); usize::from(shards)];
                all()
                    .into_iter()
                    .for_each(|at| of_shards[usize::from(self.client.keys().shard_of(&keys[at]))].push(at));
                of_shards
            }
        };
        slots.iter().flat_map(|slot| slot.chunks(KEYS_PER_COMMAND)).map(<[usize]>::to_vec).collect()
    }

    /// The bytes that Redis has of each key, and then the replies to `checks`.
    async fn read(
        &self,
        keys: &[Key],
        checks: Vec<Cmd>,
    ) -> (Vec<Option<Vec<u8>>>, Vec<Result<Value, CallError>>) {
        let groups = self.groups(keys);
        let mget = |group: &Vec<usize>| {
            let mut command = redis::cmd("MGET");
            group.iter().for_each(|&at| _ = command.arg(self.name_of(&keys[at])));
            command
        };
        let commands: Vec<Cmd> = groups.iter().map(mget).chain(checks).collect();
        let mut replies = self.client.batch(commands, self.limit(keys.len())).await;
        let checked = replies.split_off(groups.len());
        let mut values = vec![None; keys.len()];
        for (group, reply) in groups.iter().zip(replies) {
            match reply {
                Ok(Value::Array(items)) => {
                    for (&at, item) in group.iter().zip(items) {
                        if let Value::BulkString(bytes) = item {
                            values[at] = Some(bytes);
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => self.count_fault(&error),
            }
        }
        (values, checked)
    }

    /// The entries of keys, and the replies to `checks`, which a server is asked after them.
    pub(super) async fn get_checked(
        &self,
        namespace: &Namespace,
        keys: Vec<Key>,
        checks: Vec<Cmd>,
    ) -> (Vec<Option<Arc<Entry>>>, Vec<Result<Value, CallError>>) {
        let count = keys.len();
        let (values, checked) = self.read(&keys, checks).await;
        let decoder = self.decoder(namespace, keys, values);
        let decoded = if decoder.bytes() <= INLINE_BYTES_MAX {
            decoder.decode()
        } else {
            self.readers.run(move || decoder.decode()).await.unwrap_or_default()
        };
        let mut entries: Vec<_> = decoded.into_iter().map(|decoded| self.count_read(decoded)).collect();
        entries.resize(count, None);
        (entries, checked)
    }

    fn limit(&self, keys: usize) -> Duration {
        let times = 1 + keys / KEYS_PER_LIMIT;
        self.client.response_max() * u32::try_from(times).unwrap_or(u32::MAX)
    }

    /// Counts a fault, and logs it unless the one before was logged.
    fn count_fault(&self, error: &CallError) {
        match error {
            // Each is the consequence of faults that were counted, or of a limit that has a counter of its own.
            CallError::BreakerOpen | CallError::NotConnected | CallError::NotPrimary | CallError::TooMany => {
            }
            CallError::TimedOut | CallError::Failed(_) | CallError::Refused(_) => {
                self.metrics.errors.inc();
                if !self.has_warned.swap(true, Ordering::AcqRel) {
                    tracing::warn!(%error, "a call of the Redis tier failed; answered as a miss");
                }
            }
        }
    }

    fn decoder(&self, namespace: &Namespace, keys: Vec<Key>, values: Vec<Option<Vec<u8>>>) -> ValueDecoder {
        ValueDecoder {
            envelope: self.envelope.clone(),
            offset: self.client.clock_offset(),
            of_vectors: (self.entries == RedisEntries::Embeddings).then_some(namespace.id),
            value_bytes_max: namespace.policy.value_bytes_max,
            keys,
            values,
        }
    }

    /// The command that stores an entry for as long as it has left. `None` if it has ended, or is too long for Redis.
    fn set(&self, namespace: &Namespace, key: &Key, entry: &Arc<Entry>, now: UnixSeconds) -> Option<Cmd> {
        let stored = compression::compress(&namespace.policy, entry);
        if stored.value.len() > self.value_bytes_max {
            self.redis_metrics.values_too_long.inc();
            return None;
        }
        let left_seconds = stored.meta.stale_until.since(now);
        if left_seconds == 0 {
            return None;
        }
        let write_id = random_id().ok()?;
        let sealed = self.envelope.seal(key, write_id, &stored, self.client.clock_offset())?;
        let mut command = redis::cmd("SET");
        command.arg(self.name_of(key)).arg(sealed);
        if stored.meta.stale_until != UnixSeconds::NEVER {
            command.arg("PX").arg(u64::from(left_seconds) * 1000);
        }
        Some(command)
    }

    async fn write(&self, commands: Vec<Cmd>) {
        if commands.is_empty() {
            return;
        }
        let limit = self.limit(commands.len());
        for reply in self.client.batch(commands, limit).await {
            match reply {
                Ok(_) => self.has_warned.store(false, Ordering::Release),
                Err(error) => self.count_fault(&error),
            }
        }
    }
}

/// Decodes values, on whatever thread.
struct ValueDecoder {
    envelope: Envelope,
    offset: ClockOffset,
    /// The namespace of embeddings: whichever stored it, the caller that looks up a key knows it.
    of_vectors: Option<NamespaceId>,
    value_bytes_max: usize,
    keys: Vec<Key>,
    values: Vec<Option<Vec<u8>>>,
}

/// What came of a value.
enum Decoded {
    Hit(Arc<Entry>),
    Absent,
    Rejected,
}

impl ValueDecoder {
    fn bytes(&self) -> usize {
        self.values.iter().flatten().map(Vec::len).sum()
    }

    fn decode(self) -> Vec<Decoded> {
        self.keys
            .iter()
            .zip(&self.values)
            .map(|(key, value)| self.decode_one(key, value.as_deref()))
            .collect()
    }

    fn decode_one(&self, key: &Key, value: Option<&[u8]>) -> Decoded {
        let Some(bytes) = value else { return Decoded::Absent };
        let Some(enveloped) = self.envelope.open(key, bytes, self.offset) else { return Decoded::Rejected };
        let mut entry = enveloped.entry;
        match self.of_vectors {
            Some(_) if entry.meta.codec != Codec::F32 => return Decoded::Rejected,
            Some(namespace) => entry.meta.namespace = namespace,
            None => {}
        }
        match compression::decompress(self.value_bytes_max, entry) {
            Ok(entry) => Decoded::Hit(Arc::new(entry)),
            Err(_) => Decoded::Rejected,
        }
    }
}

impl Tier for RedisTier {
    fn name(&self) -> TierName {
        TierName::Redis
    }

    fn get_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        keys: Vec<Key>,
    ) -> BoxFuture<'a, Vec<Option<Arc<Entry>>>> {
        Box::pin(async move { self.get_checked(namespace, keys, Vec::new()).await.0 })
    }

    fn put_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        entries: Vec<(Key, Arc<Entry>)>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let now = self.clock.now();
            let set = |(key, entry): &(Key, Arc<Entry>)| self.set(namespace, key, entry, now);
            let commands: Vec<Cmd> = entries.iter().filter_map(set).collect();
            self.write(commands).await;
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
            let unlink = |key: &Key| redis::cmd("UNLINK").arg(self.name_of(key)).clone();
            let commands: Vec<Cmd> = keys.iter().map(unlink).collect();
            self.write(commands).await;
            Ok(())
        })
    }

    fn stats(&self) -> TierStats {
        let is_on = self.client.breaker_state() != BreakerState::Open;
        TierStats { entries: 0, bytes: 0, bytes_max: 0, is_on }
    }
}

impl RedisTier {
    fn count_read(&self, decoded: Decoded) -> Option<Arc<Entry>> {
        match decoded {
            Decoded::Hit(entry) => {
                self.metrics.hits.inc();
                self.has_warned.store(false, Ordering::Release);
                Some(entry)
            }
            Decoded::Absent => {
                self.metrics.misses.inc();
                None
            }
            Decoded::Rejected => {
                self.metrics.misses.inc();
                self.redis_metrics.entries_rejected.inc();
                None
            }
        }
    }
}

/// The entry that Redis holds now, with the id of the write that stored it.
#[derive(Debug)]
pub(in crate::cache) struct Current {
    pub(in crate::cache) entry: Arc<Entry>,
    pub(in crate::cache) write_id: u64,
}

impl RedisTier {
    /// The bytes of a stored entry, and the milliseconds that it has left. `None` if it has ended, or is too long for Redis.
    pub(in crate::cache) fn sealed(&self, key: &Key, stored: &Entry) -> Option<(Vec<u8>, u64)> {
        if stored.value.len() > self.value_bytes_max {
            self.redis_metrics.values_too_long.inc();
            return None;
        }
        let left_seconds = stored.meta.stale_until.since(self.clock.now());
        let write_id = random_id().ok().filter(|_| left_seconds > 0)?;
        let sealed = self.envelope.seal(key, write_id, stored, self.client.clock_offset())?;
        Some((sealed, u64::from(left_seconds) * 1000))
    }

    /// The namespace of the entry of a key. `None` without an entry, and for one that cannot be read.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn namespace_of(&self, key: &Key) -> Result<Option<NamespaceId>, CallError> {
        let enveloped = self.enveloped(key).await?;
        Ok(enveloped.map(|enveloped| enveloped.entry.meta.namespace))
    }

    async fn enveloped(&self, key: &Key) -> Result<Option<Enveloped>, CallError> {
        let mut get = redis::cmd("GET");
        get.arg(self.name_of(key));
        let Value::BulkString(bytes) = self.client.command(&get, self.client.response_max()).await? else {
            return Ok(None);
        };
        Ok(self.envelope.open(key, &bytes, self.client.clock_offset()))
    }

    /// The entry of a key, and nothing for one that cannot be read.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn current(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<Option<Current>, CallError> {
        let current = self.enveloped(key).await?.and_then(|Enveloped { write_id, entry }| {
            let entry = compression::decompress(namespace.policy.value_bytes_max, entry).ok()?;
            Some(Current { entry: Arc::new(entry), write_id })
        });
        Ok(current)
    }
}
