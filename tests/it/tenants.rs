//! Two tenants with the same names of collections, keys and tags reach their own data only: the catalogue, objects and
//! invalidations are called with principals of either, over one data directory; embeddings and searches too, with a fake model.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use likewise::app::Engine;
use likewise::cache::redis::RedisUrl;
use likewise::cache::{
    Cache, CacheMetrics, Freshness, InvalidationTokens, LocalTokenLog, MemoryOptions, MemoryTier, Mode,
    Namespaces, ObjectTier, Tier, Tiers,
};
use likewise::config::Config;
use likewise::domain::{ContentCoding, Principal, SystemClock, Tag, TenantId};
use likewise::error::{Kind, Result};
use likewise::metrics::unexported;
use likewise::request_identity::Json;
use likewise::search::{Catalog, Change, DocumentPatch, Indexed, Metric, Options, Program, Settings};
use likewise::service::answers::Question;
use likewise::service::collections::{Input, NewDocument, Search, Selection, Spec};
use likewise::service::invalidation::Target;
use likewise::service::listing::{Page, PageRequest};
use likewise::service::objects::{Condition, GetOptions, GetOutcome, ObjectDraft};
use likewise::service::{Directives, Invalidation, Listing, Objects, embeddings};
use likewise::storage::collections::Place;
use likewise::storage::{ObjectStore, OsFiles, ReadMode, Records};
use tempfile::TempDir;

use crate::endpoint::{DIM, Endpoint};
use crate::program::until;
use crate::redis::servers::{Program as RedisProgram, RedisServer};

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
    listing: Listing,
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
        let listing = Listing::new(Arc::clone(&tiers), Arc::clone(&namespaces), freshness.clone());
        let invalidation =
            Invalidation::new(Arc::clone(&objects), namespaces, tiers, freshness, unexported());
        World { objects, invalidation, listing }
    }

    async fn put(&self, principal: &Principal, value: &'static str) {
        let address = self.objects.address(principal, "shop", "price").unwrap();
        let draft = ObjectDraft {
            key: "price".into(),
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
        match self.objects.get(&address, &GetOptions::default()).await.unwrap() {
            GetOutcome::Hit(object) => Some(object.value),
            GetOutcome::Miss { .. } => None,
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
    assert!(world.objects.delete(&address, Condition::default()).await.unwrap().was_there);
    assert_eq!((world.get(&own).await, world.get(&acme).await.unwrap()), (None, Bytes::from("theirs")));

    world.put(&own, "ours").await;
    world.invalidation.invalidate(&own, &Target::Everything, Mode::Hard).await.unwrap();
    drop(world);
    let reopened = World::open(&dir).await;
    assert_eq!(reopened.get(&own).await, None);
    assert_eq!(reopened.count(&acme).await, (0, 1), "on disk it is known as the tenant's");
    assert_eq!(reopened.get(&acme).await.unwrap(), "theirs");
}

#[tokio::test]
async fn a_tenant_lists_its_own_entries_only() {
    let dir = TempDir::new().unwrap();
    let world = World::open(&dir).await;
    let [own, acme] = principals();
    let [globex, all] = [
        Principal { tenant: TenantId::named("globex").unwrap(), ..Principal::default() },
        Principal::default(),
    ];
    let first = PageRequest { limit: 10, after: None };
    let sizes = |page: &Page| {
        assert_eq!(page.next, None);
        page.entries.iter().map(|listed| listed.entry.value_bytes).collect::<Vec<_>>()
    };
    let listed = async |world: &World, principal: &Principal| {
        let keys = world.listing.keys(principal, "shop", "pri", &first).await.unwrap();
        let tagged = world.listing.tagged(principal, &season(), &first).await.unwrap();
        assert_eq!(sizes(&keys), sizes(&tagged));
        let namespaces = world.listing.namespaces(principal).await.unwrap();
        let shop = namespaces.named.iter().find(|namespace| &*namespace.name == "shop");
        assert_eq!(shop.map_or(0, |shop| shop.disk.total()), sizes(&keys).len() as u64);
        assert_eq!(namespaces.others, None);
        sizes(&keys)
    };
    world.put(&own, "ours").await;
    world.put(&acme, "theirs").await;
    for world in [&world] {
        assert_eq!(listed(world, &own).await, [4]);
        assert_eq!(listed(world, &acme).await, [6]);
        assert_eq!(listed(world, &globex).await, [0; 0]);
    }
    let next = world.listing.keys(&own, "shop", "", &PageRequest { limit: 1, after: None }).await.unwrap();
    let after = Some(next.entries[0].entry.position);
    let foreign = world.listing.keys(&acme, "shop", "", &PageRequest { limit: 1, after }).await.unwrap_err();
    assert_eq!((foreign.kind(), foreign.param_name()), (Kind::InvalidInput, Some("after")));
    world.invalidation.invalidate(&all, &Target::Everything, Mode::Hard).await.unwrap();
    assert_eq!(listed(&world, &acme).await, [6]);
    drop(world);
    let reopened = World::open(&dir).await;
    assert_eq!(listed(&reopened, &acme).await, [6]);
    assert!(reopened.listing.keys(&own, "shop", "", &first).await.unwrap().entries.is_empty());
}

/// The use cases over a data directory, with a model behind the endpoint.
async fn engine(dir: &TempDir, endpoint: &Endpoint) -> Engine {
    Engine::build(&config(dir, endpoint)).await.unwrap()
}

fn config(dir: &TempDir, endpoint: &Endpoint) -> Config {
    let mut config = Config::default();
    config.data.dir = dir.path().to_owned();
    config.cache.disk.segment_bytes = 1 << 20;
    config.embed.remote.base_url = Some(endpoint.url.clone());
    config.embed.remote.model = Some("mock".into());
    config.embed.remote.dim = Some(DIM);
    config
}

/// An id is a hash without a secret. A node that does not have the answer asks Redis whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_deletes_nothing_of_another_at_a_node_that_does_not_have_it() {
    let (dirs, endpoint) = ([(); 2].map(|()| TempDir::new().unwrap()), Endpoint::start().await);
    let redis = RedisServer::start(RedisProgram::Redis);
    let mut nodes = Vec::new();
    for dir in &dirs {
        let mut config = config(dir, &endpoint);
        config.redis.url = Some(RedisUrl::from(redis.url().to_owned()));
        config.redis.response_ms_max = 1000;
        nodes.push(Engine::build(&config).await.unwrap());
    }
    let [own, acme] = principals().map(Arc::new);
    let scope = Json::parse(b"null").unwrap();
    let directives = Directives::default();
    let question = Question {
        principal: &acme,
        credential: None,
        prompt: "how late is it?",
        scope: &scope,
        directives: &directives,
        tags: &[],
    };
    let is_there = async |node: usize| nodes[node].answers.lookup(&question).await.unwrap().hit.is_some();
    until("both nodes are connected", async || {
        nodes.iter().all(|node| node.shared_status().is_some_and(|status| status.is_trusted))
    })
    .await;
    let id = nodes[0].answers.store(&question, "late", nodes[0].answers.stamp()).await.unwrap();
    nodes[1].answers.delete(&own, id).await.unwrap();
    assert!(is_there(0).await && is_there(1).await);
    nodes[0].answers.delete(&own, id).await.unwrap();
    assert!(is_there(0).await && is_there(1).await);
    nodes[1].answers.delete(&acme, id).await.unwrap();
    until("it is gone", async || !is_there(0).await && !is_there(1).await).await;
    for node in nodes {
        node.close().await;
    }
}

fn if_cached() -> Directives {
    Directives { only_if_cached: true, ..Directives::default() }
}

async fn embed(engine: &Engine, principal: &Principal, directives: Directives) -> Result<Vec<u8>> {
    let request = embeddings::Request {
        model: Arc::clone(engine.models.default_model().unwrap()),
        texts: vec!["one".into()],
        input_type: None,
        truncate: true,
        principal: Arc::new(principal.clone()),
        directives,
        is_background: false,
    };
    engine.embeddings.embed(&request).await.map(|response| response.entries[0].value.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_those_of_a_tenant_in_memory_and_on_disk() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let [own, acme] = principals();
    let is_cached = async |engine: &Engine| {
        let [ours, theirs] =
            [embed(engine, &own, if_cached()).await, embed(engine, &acme, if_cached()).await];
        for missed in [&ours, &theirs].into_iter().filter_map(|embedded| embedded.as_ref().err()) {
            assert_eq!(missed.kind(), Kind::NotCached);
        }
        (ours.is_ok(), theirs.is_ok())
    };
    let open = engine(&dir, &endpoint).await;
    let both = [&own, &acme].map(|principal| embed(&open, principal, Directives::default()));
    let [ours, theirs] = <[_; 2]>::try_from(join_all(both).await).unwrap().map(Result::unwrap);
    assert_eq!(endpoint.texts(), 2, "neither waits for the vector of the other");
    assert_ne!(ours, theirs, "no two vectors of the endpoint are equal");
    open.invalidation.invalidate(&acme, &Target::Everything, Mode::Hard).await.unwrap();
    assert_eq!(is_cached(&open).await, (true, false));
    open.close().await;

    let open = engine(&dir, &endpoint).await;
    assert_eq!(is_cached(&open).await, (true, false), "on disk too");
    embed(&open, &acme, Directives::default()).await.unwrap();
    open.invalidation.invalidate(&own, &Target::Everything, Mode::Hard).await.unwrap();
    assert_eq!(is_cached(&open).await, (false, true));
    open.close().await;

    let open = engine(&dir, &endpoint).await;
    assert_eq!(is_cached(&open).await, (false, true), "on disk too");
    let namespace = Target::Namespace("embeddings".into());
    open.invalidation.invalidate(&own, &namespace, Mode::Hard).await.unwrap();
    assert_eq!(is_cached(&open).await, (false, true));
    open.close().await;
}

async fn search(engine: &Engine, principal: &Principal) -> (usize, Vec<Option<String>>) {
    let search = Search {
        input: Input::Vectors(vec![vec![1.0, 0.0]]),
        k: 10,
        filter: None,
        score_min: None,
        has_vectors: false,
        is_exact: true,
        ef: None,
        principal: Arc::new(principal.clone()),
        directives: Directives::default(),
    };
    let found = engine.collections.search("points", search).await.unwrap();
    let texts = found.results[0].iter().map(|hit| hit.document.text.map(str::to_owned)).collect();
    (found.hits, texts)
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_and_their_cached_results_are_those_of_a_tenant() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let open = engine(&dir, &endpoint).await;
    let principals = principals();
    let [own, acme] = &principals;
    for (principal, text) in [(own, "ours"), (acme, "theirs")] {
        let spec = Spec { metric: Metric::L2, model: None, dim: Some(2), index: Indexed::Exact };
        open.collections.create(principal, "points", spec).await.unwrap();
        let tags = vec![season()];
        let (id, text, vector) = (Some("a".into()), Some(text.into()), Some(vec![1.0, 0.0]));
        let draft = NewDocument { id, text, vector, tags, ..NewDocument::default() };
        let principal = Arc::new(principal.clone());
        open.collections.upsert(&principal, "points", vec![draft], true).await.unwrap();
    }
    let texts = async || (search(&open, own).await, search(&open, acme).await);
    let found = |hits, text: &str| (hits, vec![Some(text.to_owned())]);
    assert_eq!(texts().await, (found(0, "ours"), found(0, "theirs")));
    assert_eq!(texts().await, (found(1, "ours"), found(1, "theirs")));
    for target in [Target::Tags(vec![season()]), Target::Everything] {
        open.invalidation.invalidate(acme, &target, Mode::Hard).await.unwrap();
        assert_eq!(texts().await, (found(1, "ours"), found(0, "theirs")), "{target:?}");
    }
    let listed = async |principal: &Principal| {
        let selection = Selection::Page { after: None, limit: None, filter: None };
        let page = open.collections.documents(principal, "points", selection, false).await.unwrap();
        let texts: Vec<String> =
            page.documents().filter_map(|(document, _)| Some(document.text?.into())).collect();
        (texts, open.collections.count(principal, "points", None).await.unwrap().documents)
    };
    let patch = DocumentPatch {
        text: Some(Some("patched".into())),
        vector: Some(vec![1.0, 0.0]),
        ..DocumentPatch::default()
    };
    open.collections.patch(&Arc::new(acme.clone()), "points", "a".into(), patch).await.unwrap();
    assert_eq!(texts().await, (found(1, "ours"), found(0, "patched")));
    let ids = Change::Delete(vec!["a".into()]);
    open.collections.delete(own, "points", ids).await.unwrap();
    assert_eq!(texts().await, ((0, vec![]), found(1, "patched")));
    assert_eq!(listed(own).await, (vec![], 0));
    assert_eq!(listed(acme).await, (vec!["patched".to_owned()], 1));
    open.collections.drop_collection(own, "points").await.unwrap();
    assert_eq!(search(&open, acme).await, found(1, "patched"));
    assert_eq!(open.collections.get(own, "points").unwrap_err().kind(), Kind::NotFound);
    open.close().await;
}
