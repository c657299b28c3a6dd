//! Two tenants with the same names of collections, keys and tags reach their own data only: the catalogue, objects and
//! invalidations are called with principals of either, over one data directory.

use std::sync::Arc;

use bytes::Bytes;
use likewise::cache::{
    Cache, CacheMetrics, Freshness, InvalidationTokens, LocalTokenLog, MemoryOptions, MemoryTier, Mode,
    Namespaces, ObjectTier, Tier, Tiers,
};
use likewise::domain::{ContentCoding, Principal, SystemClock, Tag, TenantId};
use likewise::error::Kind;
use likewise::metrics::unexported;
use likewise::search::{Catalog, Indexed, Metric, Options, Program, Settings};
use likewise::service::invalidation::Target;
use likewise::service::objects::{Answer, Condition, Draft, Lookup};
use likewise::service::{Invalidation, Objects};
use likewise::storage::collections::Place;
use likewise::storage::{ObjectStore, OsFiles, ReadMode, Records};
use tempfile::TempDir;

fn principals() -> [Principal; 2] {
    let acme = TenantId::named("acme").unwrap();
    [Principal::default(), Principal { tenant: acme, ..Principal::default() }]
}

fn catalog(dir: &TempDir) -> Catalog {
    let place = Place { files: Arc::new(OsFiles), dir: dir.path().join("c"), read: ReadMode::Mmap };
    let program = Program::at(env!("CARGO_BIN_EXE_likewise"));
    Catalog::open(place, Options { threads: 1, ..Options::default() }, program, unexported()).unwrap()
}

#[tokio::test]
async fn two_tenants_have_collections_of_one_name() {
    let dir = TempDir::new().unwrap();
    let [own, acme] = principals().map(|principal| principal.tenant);
    let settings = |dim| Settings { metric: Metric::L2, dim, model: None, index: Indexed::Exact };
    let open = catalog(&dir);
    open.create(&own, "points", settings(2)).await.unwrap();
    let (_, is_new) = open.create(&acme, "points", settings(3)).await.unwrap();
    assert!(is_new, "the name is free for each tenant");
    open.close();
    drop(open);

    assert!(dir.path().join("c/points.manifest").exists(), "the default tenant's files have no prefix");
    let reopened = catalog(&dir);
    let dim = |tenant| reopened.get(tenant, "points").map(|collection| collection.settings().dim);
    assert_eq!((dim(&own).unwrap(), dim(&acme).unwrap()), (2, 3));
    assert_eq!((reopened.list(&own).len(), reopened.list(&acme).len()), (1, 1));

    reopened.drop_collection(&acme, "points").await.unwrap();
    assert_eq!(dim(&acme).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(dim(&own).unwrap(), 2);
    reopened.close();
}

fn season() -> Tag {
    Tag::named("season:winter").unwrap()
}

struct World {
    objects: Arc<Objects>,
    invalidation: Invalidation,
}

impl World {
    async fn open(dir: &TempDir) -> World {
        let (records, clock) = (Arc::new(Records::open(dir.path()).unwrap()), Arc::new(SystemClock));
        let tokens =
            InvalidationTokens::open(Arc::new(LocalTokenLog::new(Arc::clone(&records))), 100).await.unwrap();
        let freshness = Freshness::new(clock.clone(), Arc::new(tokens));
        let metrics: Arc<CacheMetrics> = unexported();
        let memory = Arc::new(MemoryTier::new(&MemoryOptions::default(), &metrics).unwrap());
        let options = likewise::storage::objects::Options::default();
        let store = ObjectStore::open(records, &options, clock, unexported()).unwrap();
        let disk = ObjectTier::new(Arc::new(store), options.bytes_max, &metrics).unwrap();
        let disk: Arc<dyn Tier> = Arc::new(disk);
        let cache = Arc::new(Cache::new(Arc::clone(&memory), vec![disk], freshness.clone()));
        let namespaces = Arc::new(Namespaces::new(&Default::default(), true).unwrap());
        let tiers = Arc::new(Tiers::new(memory, vec![Arc::clone(&cache)]));
        let objects =
            Arc::new(Objects::new(cache, Arc::clone(&namespaces), Default::default(), unexported()));
        let invalidation =
            Invalidation::new(Arc::clone(&objects), namespaces, tiers, freshness, unexported());
        World { objects, invalidation }
    }

    async fn put(&self, principal: &Principal, value: &'static str) {
        let address = self.objects.address(principal, "shop", "price").unwrap();
        let draft = Draft {
            stamp: self.objects.stamp(),
            value: Bytes::from_static(value.as_bytes()),
            content_type: "text/plain".into(),
            content_coding: ContentCoding::Identity,
            tags: vec![season()],
            ttl_seconds: None,
            lease: None,
            condition: Condition::default(),
        };
        self.objects.put(&address, draft).await.unwrap();
    }

    /// Entries of a tenant in memory and on disk.
    async fn count(&self, principal: &Principal) -> (u64, u64) {
        let counts = self.invalidation.count(principal, &Target::Everything).await.unwrap();
        (counts.memory, counts.disk)
    }

    async fn get(&self, principal: &Principal) -> Option<Bytes> {
        let address = self.objects.address(principal, "shop", "price").unwrap();
        match self.objects.get(&address, &Lookup::default()).await.unwrap() {
            Answer::Hit(object) => Some(object.value),
            Answer::Miss { .. } => None,
        }
    }
}

#[tokio::test]
async fn objects_and_invalidations_reach_one_tenant_only() {
    let dir = TempDir::new().unwrap();
    let world = World::open(&dir).await;
    let [own, acme] = principals();
    world.put(&own, "ours").await;
    assert_eq!(world.get(&acme).await, None, "a key of another tenant is another object");

    let keys = Target::Keys { namespace: "shop".into(), keys: vec!["price".into()] };
    for target in [Target::Tags(vec![season()]), keys, Target::Namespace("shop".into())] {
        world.put(&acme, "theirs").await;
        assert_eq!(world.get(&acme).await.unwrap(), "theirs");
        world.invalidation.invalidate(&acme, &target, Mode::Hard).await.unwrap();
        assert_eq!(world.get(&acme).await, None, "{target:?}");
        assert_eq!(world.get(&own).await.unwrap(), "ours", "{target:?}");
    }

    for mode in [Mode::Soft, Mode::Hard] {
        world.put(&acme, "theirs").await;
        assert_eq!((world.count(&own).await, world.count(&acme).await), ((1, 1), (1, 1)));
        world.invalidation.invalidate(&acme, &Target::Everything, mode).await.unwrap();
        let expected = (mode == Mode::Soft).then_some("theirs".into());
        assert_eq!((world.get(&acme).await, world.get(&own).await.unwrap()), (expected, "ours".into()));
    }
    assert_eq!((world.count(&own).await, world.count(&acme).await), ((1, 1), (0, 0)));

    world.put(&acme, "theirs").await;
    let address = world.objects.address(&own, "shop", "price").unwrap();
    assert!(world.objects.delete(&address, Condition::default()).await.unwrap());
    assert_eq!((world.get(&own).await, world.get(&acme).await.unwrap()), (None, Bytes::from("theirs")));

    world.put(&own, "ours").await;
    world.invalidation.invalidate(&own, &Target::Everything, Mode::Hard).await.unwrap();
    drop(world);
    let reopened = World::open(&dir).await;
    assert_eq!(reopened.get(&own).await, None);
    assert_eq!(reopened.count(&acme).await, (0, 1), "on disk it is known as the tenant's");
    assert_eq!(reopened.get(&acme).await.unwrap(), "theirs");
}
