//! Reads entries into memory before they are asked for, and lists those that are worth it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::{Cache, HotKey, Namespace, Namespaces, Tiers};
use crate::domain::{Key, NamespaceId, TierName};
use crate::metrics::Counter;

/// The share of the memory tier's budget that is filled: what clients use from the start on finds room.
const FILLED_SHARE: f64 = 0.8;
/// Other entries than embeddings whose keys are locked together while they are read.
const LOCKED_AT_ONCE: usize = 16;

/// How fast entries are read: clients' requests come first.
#[derive(Debug, Clone, Copy)]
pub struct ReadPace {
    /// Keys that are looked up in one step. Each step waits twice for a thread: where processors are busy, these waits are most of the
    /// time, so there must be few of them.
    keys_per_step: usize,
    steps_at_once: usize,
    /// The time after a step.
    pause: Duration,
}

impl ReadPace {
    /// From this server's disk: as fast as its two readers read. A lookup that comes meanwhile waits for one step.
    pub const DISK: ReadPace = ReadPace { keys_per_step: 512, steps_at_once: 2, pause: Duration::ZERO };
    /// From Redis, which other nodes use too: at most 100 keys in 20 ms.
    pub const REDIS: ReadPace =
        ReadPace { keys_per_step: 100, steps_at_once: 1, pause: Duration::from_millis(20) };
}

/// Where hot entries are, and where they are looked for.
#[derive(Clone)]
pub struct WarmUp {
    /// Whose uses are counted.
    pub tiers: Arc<Tiers>,
    /// The cache of embeddings.
    pub embeddings: Arc<Cache>,
    /// The cache of objects and answers.
    pub objects: Arc<Cache>,
    /// The policies of entries.
    pub namespaces: Arc<Namespaces>,
}

impl WarmUp {
    /// The keys of what is in memory and can be found in the tier `stored_in` again, as [`MemoryTier::hottest`](super::MemoryTier::hottest)
    /// orders them. Runs on a thread for blocking work.
    pub async fn hottest(&self, keys_max: usize, stored_in: TierName, uses_min: u8) -> Vec<HotKey> {
        let warm_up = self.clone();
        let list = move || {
            let mut is_stored = warm_up.by_namespace(|hot| {
                warm_up.namespace_of(hot).is_some_and(|found| found.policy.uses(stored_in))
            });
            warm_up.tiers.hottest(keys_max, uses_min, &mut is_stored)
        };
        tokio::task::spawn_blocking(list).await.unwrap_or_default()
    }

    /// Looks entries up in the tiers below memory, in the order of `keys`. Those that are found and may be served are in memory then.
    /// Ends when the memory tier is filled but for a fifth. Counts the entries that were found in `warmed`, and returns their number.
    pub async fn fetch(&self, keys: &[HotKey], pace: ReadPace, warmed: &Counter) -> u64 {
        // Each holds but its place in the list until it is begun.
        let steps: Vec<_> =
            keys.chunks(pace.keys_per_step).map(|step| self.paced_step(step, pace, warmed)).collect();
        let mut steps = stream::iter(steps).buffered(pace.steps_at_once);
        let mut found = 0;
        while let Some(Some(count)) = steps.next().await {
            found += count;
        }
        found
    }

    /// The keys whose entries are looked for on the disk first, and those whose entries are looked for in Redis first.
    pub fn by_first_tier(&self, keys: Vec<HotKey>) -> (Vec<HotKey>, Vec<HotKey>) {
        let first_tier = |hot: &HotKey| self.cache_of(hot).first_below(&self.namespace_of(hot)?);
        let mut is_in_redis = self.by_namespace(|hot| first_tier(hot) == Some(TierName::Redis));
        keys.into_iter().partition(|hot| !is_in_redis(hot))
    }

    /// As [`WarmUp::fetch_step`], with the pause after it.
    async fn paced_step(&self, step: &[HotKey], pace: ReadPace, warmed: &Counter) -> Option<u64> {
        let found = self.fetch_step(step, warmed).await;
        // A sleep of no time lasts until the next tick of the timer.
        if !pace.pause.is_zero() {
            tokio::time::sleep(pace.pause).await;
        }
        found
    }

    /// Reads the entries of some keys. `None` once memory is filled.
    async fn fetch_step(&self, step: &[HotKey], warmed: &Counter) -> Option<u64> {
        let mut groups: BTreeMap<_, Vec<HotKey>> = BTreeMap::new();
        for hot in step {
            groups.entry((hot.is_embedding, hot.namespace)).or_default().push(*hot);
        }
        let mut found = 0;
        for group in groups.into_values() {
            found += self.fetch_group(&group, warmed).await?;
        }
        Some(found)
    }

    /// Reads the entries of keys of one kind and one namespace. `None` once memory is filled.
    async fn fetch_group(&self, group: &[HotKey], warmed: &Counter) -> Option<u64> {
        let Some(first) = group.first() else { return Some(0) };
        let Some(namespace) = self.namespace_of(first) else { return Some(0) };
        let cache = self.cache_of(first);
        // What a client has asked for meanwhile is in memory already.
        let keys: Vec<Key> =
            group.iter().map(|hot| hot.key).filter(|key| !self.tiers.is_in_memory(key)).collect();
        let mut found = 0;
        for keys in keys.chunks(if first.is_embedding { group.len() } else { LOCKED_AT_ONCE }) {
            if self.tiers.is_memory_filled(FILLED_SHARE) {
                return None;
            }
            // Unlike an embedding, another entry may be replaced or removed while it is read.
            let _held = if first.is_embedding { None } else { Some(cache.lock(keys).await) };
            let count = cache.fetch(&namespace, keys).await.iter().flatten().count() as u64;
            warmed.inc_by(count);
            found += count;
        }
        Some(found)
    }

    /// What `answer` is for a key, which is that for all keys of its kind and namespace. To find the policy of a namespace costs a few
    /// hashes, too many for each of 100,000 keys.
    fn by_namespace(&self, answer: impl Fn(&HotKey) -> bool) -> impl FnMut(&HotKey) -> bool {
        let mut known: HashMap<(NamespaceId, bool), bool> = HashMap::new();
        move |hot| *known.entry((hot.namespace, hot.is_embedding)).or_insert_with(|| answer(hot))
    }

    fn cache_of(&self, hot: &HotKey) -> &Cache {
        if hot.is_embedding { &self.embeddings } else { &self.objects }
    }

    fn namespace_of(&self, hot: &HotKey) -> Option<Namespace> {
        self.namespaces.of_id(hot.namespace, hot.is_embedding)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::cache::{
        Freshness, InvalidationTokens, LocalTokenLog, MemoryOptions, MemoryTier, Tier, TierStats,
    };
    use crate::domain::{Codec, Entry, EntryMeta, EntryNames, ManualClock, TenantId, UnixSeconds};
    use crate::error::Result;
    use crate::metrics::{Registry, unexported};
    use crate::storage::Records;

    /// A disk that has every entry, and reads it when it may.
    struct SlowDisk {
        turns: Arc<Semaphore>,
        epoch: u64,
    }

    impl Tier for SlowDisk {
        fn name(&self) -> TierName {
            TierName::Disk
        }

        fn get_many<'a>(
            &'a self,
            namespace: &'a Namespace,
            keys: Vec<Key>,
        ) -> BoxFuture<'a, Vec<Option<Arc<Entry>>>> {
            Box::pin(async move {
                let _turn = self.turns.acquire().await.unwrap();
                let end = UnixSeconds(2_000);
                let meta = EntryMeta {
                    namespace: namespace.id,
                    epoch: self.epoch,
                    soft_expires: end,
                    ..EntryMeta::ending(Codec::Raw, UnixSeconds(1_000), end)
                };
                let entry = Arc::new(Entry { meta, value: vec![0; 100].into() });
                keys.iter().map(|_| Some(Arc::clone(&entry))).collect()
            })
        }

        fn put_many<'a>(&'a self, _: &'a Namespace, _: Vec<(Key, Arc<Entry>)>) -> BoxFuture<'a, Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn put_named<'a>(
            &'a self,
            _: &'a Namespace,
            _: Key,
            _: Arc<Entry>,
            _: &'a EntryNames,
        ) -> BoxFuture<'a, Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn remove_many(&self, _: Vec<Key>) -> BoxFuture<'_, Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn stats(&self) -> TierStats {
            TierStats { entries: 0, bytes: 0, bytes_max: 0, is_on: true }
        }
    }

    async fn warm_up(dir: &tempfile::TempDir, turns: &Arc<Semaphore>) -> WarmUp {
        let records = Arc::new(Records::open(dir.path()).unwrap());
        let tokens = InvalidationTokens::open(Arc::new(LocalTokenLog::new(records)), 100).await.unwrap();
        let epoch = tokens.admit(tokens.stamp(), NamespaceId::default(), &[]).unwrap().epoch;
        let freshness = Freshness::new(Arc::new(ManualClock::at(UnixSeconds(1_000))), Arc::new(tokens));
        let memory = Arc::new(MemoryTier::new(&MemoryOptions::default(), &unexported()).unwrap());
        let disk = Arc::new(SlowDisk { turns: Arc::clone(turns), epoch }) as Arc<dyn Tier>;
        let cache = Arc::new(Cache::new(Arc::clone(&memory), vec![disk], freshness));
        WarmUp {
            tiers: Arc::new(Tiers::new(memory, vec![Arc::clone(&cache)])),
            embeddings: Arc::clone(&cache),
            objects: cache,
            namespaces: Arc::new(Namespaces::new(&BTreeMap::new(), true).unwrap()),
        }
    }

    fn product(warm_up: &WarmUp, n: u8) -> HotKey {
        let namespace = warm_up.namespaces.resolve(&TenantId::default(), "products").unwrap().id;
        HotKey { key: Key([n; 32]), namespace, is_embedding: false }
    }

    #[tokio::test]
    async fn no_entry_changes_between_its_reading_and_its_promotion() {
        let (dir, turns) = (tempfile::tempdir().unwrap(), Arc::new(Semaphore::new(0)));
        let warm_up = warm_up(&dir, &turns).await;
        let (hot, warmed) = (product(&warm_up, 7), unexported_counter());
        let keys = [hot];
        let mut reading = Box::pin(warm_up.fetch(&keys, ReadPace::DISK, &warmed));
        assert!(reading.as_mut().now_or_never().is_none(), "the disk is slow");
        assert!(warm_up.objects.lock(&[hot.key]).now_or_never().is_none(), "a writer waits");
        turns.add_permits(1);
        assert_eq!((reading.await, warmed.get()), (1, 1));
        assert!(warm_up.tiers.is_in_memory(&hot.key));
        assert!(warm_up.objects.lock(&[hot.key]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_is_listed_was_used_most_and_can_be_found_again() {
        let (dir, turns) = (tempfile::tempdir().unwrap(), Arc::new(Semaphore::new(1)));
        let warm_up = warm_up(&dir, &turns).await;
        warm_up.tiers.count_uses();
        let keys = [1, 2, 3].map(|n| product(&warm_up, n));
        assert_eq!(warm_up.fetch(&keys, ReadPace::DISK, &unexported_counter()).await, 3);
        for (n, uses) in [(0, 1), (1, 3)] {
            (0..uses).for_each(|_| assert!(warm_up.objects.peek(&keys[n].key).is_some()));
        }
        assert_eq!(warm_up.hottest(9, TierName::Disk, 0).await, [keys[1], keys[0], keys[2]]);
        assert_eq!(warm_up.hottest(9, TierName::Disk, 1).await, [keys[1], keys[0]]);
        assert_eq!(warm_up.hottest(1, TierName::Disk, 0).await, [keys[1]]);
        // Results of searches are in memory only.
        let results = warm_up.namespaces.resolve(&TenantId::default(), "search_results").unwrap().id;
        let meta = EntryMeta {
            namespace: results,
            ..EntryMeta::ending(Codec::Raw, UnixSeconds(1_000), UnixSeconds(2_000))
        };
        warm_up.objects.keep(Key([9; 32]), Arc::new(Entry { meta, value: vec![0].into() }));
        assert_eq!(warm_up.hottest(9, TierName::Disk, 0).await.len(), 3);
        assert_eq!(warm_up.hottest(9, TierName::Memory, 0).await.len(), 4);
    }

    fn unexported_counter() -> Counter {
        Registry::new().counter("warmed", "Entries")
    }
}
