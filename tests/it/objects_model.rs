//! Tiers, tags, leases and lifetimes against an oracle, with a clock turned by hand: 10,000 random histories of four keys
//! and three tags, with evictions from memory and restarts in between. Whatever is served must be what the oracle holds,
//! with the same verdict, and what the oracle holds must be served.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use likewise::cache::{
    Cache, CacheMetrics, Freshness, InvalidationTokens, Lease, LocalTokenLog, MemoryOptions, MemoryTier,
    Mode, Namespaces, ObjectTier, PolicyOptions, Tier, Tiers, Verdict,
};
use likewise::domain::{Clock, ContentCoding, ManualClock, Principal, Tag, UnixSeconds};
use likewise::error::Kind;
use likewise::metrics::unexported;
use likewise::service::invalidation::Target;
use likewise::service::objects::{Condition, GetOptions, GetOutcome, ObjectDraft};
use likewise::service::{Directives, Invalidation, Objects};
use likewise::storage::{ObjectStore, Records};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

const CASES: u32 = 10_000;
const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const TAGS: [&str; 3] = ["x", "y", "z"];
const TTL: u32 = 20;
const STALE_IF_ERROR: u32 = 10;
const LEASE_SECONDS: u32 = 5;
/// Soft invalidations that an entry survives as stale.
const OUTDATED_MAX: u32 = 4;

#[derive(Debug, Clone)]
enum Step {
    Put { key: usize, tags: u8, ttl: u32 },
    PutLeased { key: usize, tags: u8 },
    Get { key: usize, wants_lease: bool, takes_expired: bool },
    Release { key: usize },
    Delete { key: usize },
    Invalidate { what: What, mode: Mode },
    Advance { seconds: u32 },
    Evict { key: usize },
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Tag(usize),
    Key(usize),
    Namespace,
    Everything,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..KEYS.len();
    let what = prop_oneof![
        4 => (0..TAGS.len()).prop_map(What::Tag),
        2 => key().prop_map(What::Key),
        1 => Just(What::Namespace),
        1 => Just(What::Everything),
    ];
    let mode = prop_oneof![Just(Mode::Hard), Just(Mode::Soft)];
    let step = prop_oneof![
        60 => (key(), 0..8_u8, 1..=TTL).prop_map(|(key, tags, ttl)| Step::Put { key, tags, ttl }),
        40 => (key(), 0..8_u8).prop_map(|(key, tags)| Step::PutLeased { key, tags }),
        120 => (key(), any::<bool>(), any::<bool>())
            .prop_map(|(key, wants_lease, takes_expired)| Step::Get { key, wants_lease, takes_expired }),
        10 => key().prop_map(|key| Step::Release { key }),
        10 => key().prop_map(|key| Step::Delete { key }),
        40 => (what, mode).prop_map(|(what, mode)| Step::Invalidate { what, mode }),
        40 => (1..8_u32).prop_map(|seconds| Step::Advance { seconds }),
        40 => key().prop_map(|key| Step::Evict { key }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What the oracle holds under a key.
#[derive(Debug, Clone)]
struct Held {
    value: u64,
    soft: u32,
    expires: u32,
    stale_until: u32,
    tags: BTreeSet<usize>,
    is_revoked: bool,
    /// Soft invalidations of each subject since; the subjects are the tags, the namespace and everything.
    outdated: BTreeMap<usize, u32>,
}

const NAMESPACE: usize = TAGS.len();
const EVERYTHING: usize = TAGS.len() + 1;

#[derive(Debug, Clone)]
struct HeldLease {
    lease: Lease,
    until: u32,
    /// Subjects that were invalidated since it was given.
    doomed: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Oracle {
    now: u32,
    held: BTreeMap<usize, Held>,
    leases: BTreeMap<usize, HeldLease>,
}

impl Oracle {
    fn verdict(&self, key: usize) -> Verdict {
        let Some(held) = self.held.get(&key) else { return Verdict::Gone };
        if held.is_revoked || held.outdated.values().any(|&count| count > OUTDATED_MAX) {
            return Verdict::Gone;
        }
        let by_time = match self.now {
            now if now < held.soft => Verdict::Fresh,
            now if now < held.expires => Verdict::Stale,
            now if now < held.stale_until => Verdict::Expired,
            _ => Verdict::Gone,
        };
        if held.outdated.is_empty() { by_time } else { by_time.max(Verdict::Stale) }
    }

    fn lease(&self, key: usize) -> Option<&HeldLease> {
        self.leases.get(&key).filter(|lease| self.now < lease.until)
    }

    fn put(&mut self, key: usize, value: u64, tags: u8, ttl: u32) {
        let expires = self.now + ttl;
        let held = Held {
            value,
            soft: self.now + ttl / 2,
            expires,
            stale_until: expires + STALE_IF_ERROR,
            tags: (0..TAGS.len()).filter(|tag| tags & (1 << tag) != 0).collect(),
            is_revoked: false,
            outdated: BTreeMap::new(),
        };
        self.held.insert(key, held);
        self.leases.remove(&key);
    }

    fn invalidate(&mut self, what: What, mode: Mode) {
        let invalidation_id = match what {
            What::Key(key) => return self.invalidate_key(key, mode),
            What::Tag(tag) => tag,
            What::Namespace => NAMESPACE,
            What::Everything => EVERYTHING,
        };
        for held in self
            .held
            .values_mut()
            .filter(|held| invalidation_id >= NAMESPACE || held.tags.contains(&invalidation_id))
        {
            match mode {
                Mode::Hard => held.is_revoked = true,
                Mode::Soft => *held.outdated.entry(invalidation_id).or_default() += 1,
            }
        }
        self.leases.values_mut().for_each(|lease| _ = lease.doomed.insert(invalidation_id));
    }

    fn invalidate_key(&mut self, key: usize, mode: Mode) {
        self.leases.remove(&key);
        match mode {
            Mode::Hard => _ = self.held.remove(&key),
            Mode::Soft => {
                let now = self.now;
                self.held.entry(key).and_modify(|held| held.soft = held.soft.min(now));
            }
        }
    }
}

/// The parts under test, on a directory that outlives them.
struct World {
    objects: Arc<Objects>,
    invalidation: Invalidation,
    memory: Arc<MemoryTier>,
    clock: Arc<ManualClock>,
    records: Arc<Records>,
}

impl World {
    async fn open(dir: &TempDir, clock: Arc<ManualClock>) -> World {
        let metrics: Arc<CacheMetrics> = unexported();
        let records = Arc::new(Records::open(dir.path()).unwrap());
        let as_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let options = likewise::storage::objects::Options::default();
        let store = ObjectStore::open(Arc::clone(&records), &options, Arc::clone(&as_clock), unexported());
        let tokens = InvalidationTokens::open(Arc::new(LocalTokenLog::new(Arc::clone(&records))), 1_000_000)
            .await
            .unwrap();
        let freshness = Freshness::new(as_clock, Arc::new(tokens));
        let memory = Arc::new(MemoryTier::new(&MemoryOptions::default(), &metrics).unwrap());
        let disk = ObjectTier::new(Arc::new(store.unwrap()), options.bytes_max, &metrics).unwrap();
        let disk: Arc<dyn Tier> = Arc::new(disk);
        let cache = Arc::new(Cache::new(Arc::clone(&memory), vec![disk], freshness.clone()));
        let policy = PolicyOptions {
            soft_share: Some(0.5),
            jitter_share: Some(0.0),
            stale_if_error_seconds: Some(STALE_IF_ERROR),
            ..PolicyOptions::default()
        };
        let namespaces = Namespaces::new(&BTreeMap::from([("default".to_owned(), policy)]), true).unwrap();
        let namespaces = Arc::new(namespaces);
        let tiers = Arc::new(Tiers::new(Arc::clone(&memory), vec![Arc::clone(&cache)]));
        let options = likewise::service::objects::Options::default();
        let objects = Arc::new(Objects::new(cache, Arc::clone(&namespaces), options, unexported()));
        let invalidation =
            Invalidation::new(Arc::clone(&objects), namespaces, tiers, freshness, unexported());
        World { objects, invalidation, memory, clock, records }
    }
}

/// One history, in a namespace of its own.
struct History<'a> {
    /// None only while it restarts.
    world: Option<Arc<World>>,
    dir: &'a TempDir,
    namespace: String,
    oracle: Oracle,
    next_value: u64,
    /// The lease given last for each key, whether or not it still holds.
    given: BTreeMap<usize, Lease>,
}

impl History<'_> {
    async fn walk(&mut self, steps: &[Step]) {
        for step in steps {
            if matches!(step, Step::Restart) {
                self.restart().await;
            } else {
                self.take(&self.world(), step).await;
            }
        }
        for key in 0..KEYS.len() {
            self.get(&self.world(), key, false, true).await;
        }
    }

    fn world(&self) -> Arc<World> {
        Arc::clone(self.world.as_ref().unwrap())
    }

    async fn restart(&mut self) {
        let world = self.world.take().unwrap();
        let clock = Arc::clone(&world.clock);
        world.records.shutdown();
        drop(world);
        self.world = Some(Arc::new(World::open(self.dir, clock).await));
        self.oracle.leases.clear();
    }

    async fn take(&mut self, world: &World, step: &Step) {
        match *step {
            Step::Put { key, tags, ttl } => {
                let stored = self.put(world, key, tags, Some(ttl), None).await;
                assert_eq!(stored, Ok(()));
                self.oracle.put(key, self.next_value, tags, ttl);
            }
            Step::PutLeased { key, tags } => self.put_leased(world, key, tags).await,
            Step::Get { key, wants_lease, takes_expired } => {
                self.get(world, key, wants_lease, takes_expired).await;
            }
            Step::Release { key } => {
                let Some(&lease) = self.given.get(&key) else { return };
                let address = self.address(world, key);
                let is_held = self.oracle.lease(key).is_some_and(|held| held.lease == lease);
                assert_eq!(world.objects.release(&address, lease).await.is_ok(), is_held);
                if is_held {
                    self.oracle.leases.remove(&key);
                }
            }
            Step::Delete { key } => {
                let address = self.address(world, key);
                let was_there = world.objects.delete(&address, Condition::default()).await.unwrap().was_there;
                assert_eq!(was_there, matches!(self.oracle.verdict(key), Verdict::Fresh | Verdict::Stale));
                self.oracle.invalidate_key(key, Mode::Hard);
            }
            Step::Invalidate { what, mode } => {
                let namespace = self.namespace.clone();
                let target = match what {
                    What::Tag(tag) => Target::Tags(vec![self.tag(tag)]),
                    What::Key(key) => Target::Keys { namespace, keys: vec![KEYS[key].to_owned()] },
                    What::Namespace => Target::Namespace(namespace),
                    What::Everything => Target::Everything,
                };
                world.invalidation.invalidate(&Principal::default(), &target, mode).await.unwrap();
                self.oracle.invalidate(what, mode);
            }
            Step::Advance { seconds } => {
                world.clock.advance(seconds);
                tokio::time::advance(Duration::from_secs(seconds.into())).await;
                self.oracle.now += seconds;
            }
            Step::Evict { key } => world.memory.remove(&self.address(world, key).key()),
            Step::Restart => unreachable!("handled where the world may be replaced"),
        }
    }

    async fn put_leased(&mut self, world: &World, key: usize, tags: u8) {
        let Some(&lease) = self.given.get(&key) else { return };
        let stored = self.put(world, key, tags, None, Some(lease)).await;
        let held = self.oracle.lease(key).filter(|held| held.lease == lease).cloned();
        let is_doomed = |doomed: &BTreeSet<usize>| {
            doomed
                .iter()
                .any(|&invalidation_id| invalidation_id >= NAMESPACE || tags & (1 << invalidation_id) != 0)
        };
        match held {
            None => assert_eq!(stored, Err(Kind::Conflict), "the lease has ended"),
            Some(held) if is_doomed(&held.doomed) => {
                assert_eq!(stored, Err(Kind::Conflict), "{held:?} {tags:b}");
                self.oracle.leases.remove(&key);
            }
            Some(_) => {
                assert_eq!(stored, Ok(()));
                self.oracle.put(key, self.next_value, tags, TTL);
            }
        }
    }

    async fn put(
        &mut self,
        world: &World,
        key: usize,
        tags: u8,
        ttl_seconds: Option<u32>,
        lease: Option<Lease>,
    ) -> Result<(), Kind> {
        self.next_value += 1;
        let draft = ObjectDraft {
            key: key.to_string(),
            stamp: world.objects.stamp(),
            value: self.next_value.to_string().into(),
            content_type: "text/plain".into(),
            content_coding: ContentCoding::Identity,
            tags: (0..TAGS.len()).filter(|tag| tags & (1 << tag) != 0).map(|tag| self.tag(tag)).collect(),
            ttl_seconds: ttl_seconds.or(Some(TTL)),
            lease,
            condition: Condition::default(),
        };
        world.objects.put(&self.address(world, key), draft).await.map(|_| ()).map_err(|error| error.kind())
    }

    async fn get(&mut self, world: &World, key: usize, wants_lease: bool, takes_expired: bool) {
        let lookup = GetOptions {
            directives: Directives {
                stale_seconds_max: takes_expired.then_some(u32::MAX),
                ..Directives::default()
            },
            lease_seconds: wants_lease.then_some(LEASE_SECONDS),
            wait: Duration::ZERO,
        };
        let answer = world.objects.get(&self.address(world, key), &lookup).await.unwrap();
        let verdict = self.oracle.verdict(key);
        let is_served = verdict < Verdict::Expired || (verdict == Verdict::Expired && takes_expired);
        let is_leased = wants_lease && verdict != Verdict::Fresh && self.oracle.lease(key).is_none();
        let lease = match &answer {
            GetOutcome::Hit(object) => {
                assert!(is_served, "{key}: served {object:?}, the oracle says {verdict:?}");
                assert_eq!(object.found.verdict, verdict);
                assert_eq!(object.value, self.oracle.held[&key].value.to_string());
                object.lease
            }
            GetOutcome::Miss { lease, is_held } => {
                assert!(!is_served, "{key}: a miss, the oracle has {:?}", self.oracle.held.get(&key));
                assert_eq!(*is_held, wants_lease && !is_leased);
                *lease
            }
        };
        assert_eq!(lease.is_some(), is_leased);
        if let Some(granted) = lease {
            let until = self.oracle.now + LEASE_SECONDS;
            let held = HeldLease { lease: granted.lease, until, doomed: BTreeSet::new() };
            self.oracle.leases.insert(key, held);
            self.given.insert(key, granted.lease);
        }
    }

    fn address(&self, world: &World, key: usize) -> likewise::service::objects::Address {
        world.objects.address(&Principal::default(), &self.namespace, KEYS[key]).unwrap()
    }

    /// Tags of other histories are other tags.
    fn tag(&self, tag: usize) -> Tag {
        Tag::entity(TAGS[tag], &self.namespace).unwrap()
    }
}

#[test]
fn objects_agree_with_an_oracle() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.unwrap();
    // What a flush costs is not the question here.
    let shared_memory = std::path::Path::new("/dev/shm");
    let dir = if shared_memory.is_dir() { TempDir::new_in(shared_memory) } else { TempDir::new() }.unwrap();
    let clock = Arc::new(ManualClock::at(UnixSeconds(1_000)));
    let (world, next) = (RefCell::new(None), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        // None before the first history, and after one that failed.
        let world: &RefCell<Option<Arc<World>>> = &world;
        let taken = world.take();
        let open = || Arc::new(runtime.block_on(World::open(&dir, Arc::clone(&clock))));
        next.set(next.get() + 1);
        let mut history = History {
            world: Some(taken.unwrap_or_else(open)),
            dir: &dir,
            namespace: format!("history-{}", next.get()),
            oracle: Oracle::default(),
            next_value: 0,
            given: BTreeMap::new(),
        };
        runtime.block_on(history.walk(&steps));
        world.replace(history.world);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
