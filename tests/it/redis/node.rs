//! The Redis of one node: a client with its tiers.

use std::sync::Arc;
use std::time::Duration;

use likewise::cache::redis::{
    BreakerState, Envelope, RedisClient, RedisEntries, RedisMetrics, RedisOptions, RedisTier, RedisTierParts,
    RedisUrl,
};
use likewise::cache::{CacheMetrics, Namespace, Namespaces, PolicyOptions, Tier as _};
use likewise::domain::{Clock as _, Codec, Entry, EntryMeta, Key, SystemClock, TenantId, UnixSeconds};
use likewise::metrics::{ModuleMetrics as _, Registry};

use super::servers::PATIENCE;
use crate::program;

/// A second entry of the same key differs from the first.
pub(crate) const VALUE: &str = "a value of a node, which is long enough to be compressed where it is text. ";

pub(crate) struct Node {
    pub(crate) client: RedisClient,
    pub(crate) embeddings: RedisTier,
    pub(crate) objects: RedisTier,
    registry: Registry,
    namespaces: Namespaces,
}

impl Node {
    pub(crate) fn new(options: &RedisOptions) -> Node {
        Node::sealing(options, Envelope::unauthenticated())
    }

    pub(crate) fn sealing(options: &RedisOptions, envelope: Envelope) -> Node {
        options.validate().unwrap();
        let mut registry = Registry::new();
        let redis_metrics = Arc::new(RedisMetrics::register(&mut registry));
        let metrics = CacheMetrics::register(&mut registry);
        let client = RedisClient::start(options, Arc::clone(&redis_metrics)).unwrap().unwrap();
        let tier = |entries| {
            let parts = RedisTierParts {
                envelope: envelope.clone(),
                value_bytes_max: options.value_bytes_max,
                clock: Arc::new(SystemClock),
                metrics: &metrics,
                redis_metrics: Arc::clone(&redis_metrics),
            };
            RedisTier::new(client.clone(), entries, parts).unwrap()
        };
        Node {
            embeddings: tier(RedisEntries::Embeddings),
            objects: tier(RedisEntries::Objects),
            client,
            registry,
            namespaces: Namespaces::new(&PolicyOptions::built_in(), true).unwrap(),
        }
    }

    /// Returns once there is a connection.
    pub(crate) async fn connected(self) -> Node {
        self.until("the node is connected", async |node| node.client.is_connected()).await;
        self
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFn(&Node) -> bool) {
        program::until(what, async || is_so(self).await).await;
    }

    pub(crate) async fn until_state(&self, state: BreakerState) {
        self.until(state.as_str(), async |node| {
            // Calls change the state, not time.
            node.read(1).await;
            node.client.breaker_state() == state
        })
        .await;
    }

    pub(crate) fn namespace(&self, name: &str) -> Namespace {
        self.namespaces.resolve(&TenantId::default(), name).unwrap()
    }

    /// Stores the objects of numbers.
    pub(crate) async fn write(&self, numbers: impl IntoIterator<Item = u8>) {
        let entries = numbers.into_iter().map(|n| (key(n), object(n))).collect();
        self.objects.put_many(&self.namespace("products"), entries).await.unwrap();
    }

    /// The object of a number, in Redis.
    pub(crate) async fn read(&self, number: u8) -> Option<Arc<Entry>> {
        self.objects.get_many(&self.namespace("products"), vec![key(number)]).await.remove(0)
    }

    /// Whether the object of a number is in Redis as it was written.
    pub(crate) async fn has(&self, number: u8) -> bool {
        self.read(number).await.is_some_and(|entry| entry.value == object(number).value)
    }

    /// Waits until reads and writes work again.
    pub(crate) async fn until_it_works(&self, number: u8) {
        self.until("Redis works", async |node| {
            node.write([number]).await;
            node.has(number).await
        })
        .await;
    }

    /// The value of a metric without its prefix.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("likewise_{name} ")));
        line.map_or(0, |number| number.parse().unwrap())
    }
}

pub(crate) fn key(number: u8) -> Key {
    let mut key = Key([number; 32]);
    key.0[0] = 7;
    key
}

/// An object that ends in an hour.
pub(crate) fn object(number: u8) -> Arc<Entry> {
    let now = SystemClock.now();
    let meta =
        EntryMeta { content_type: "text/plain".into(), ..EntryMeta::ending(Codec::Raw, now, now.plus(3600)) };
    Arc::new(Entry { meta, value: Arc::from(format!("{number} {}", VALUE.repeat(50)).as_bytes()) })
}

/// An embedding that ends in an hour.
pub(crate) fn embedding(number: u8, now: UnixSeconds) -> Arc<Entry> {
    let vector: Vec<u8> =
        (0..384).flat_map(|n: u16| (f32::from(n) + f32::from(number)).to_le_bytes()).collect();
    Arc::new(Entry { meta: EntryMeta::ending(Codec::F32, now, now.plus(3600)), value: vector.into() })
}

/// One server.
pub(crate) fn at(url: &str) -> RedisOptions {
    RedisOptions {
        url: Some(RedisUrl::from(url.to_owned())),
        // Servers share two processors with all tests.
        connect_ms_max: 2000,
        response_ms_max: 1000,
        ..RedisOptions::default()
    }
}

/// The first address, and the others.
pub(crate) fn at_all(urls: Vec<String>) -> RedisOptions {
    let mut urls = urls.into_iter().map(RedisUrl::from);
    RedisOptions { url: urls.next(), urls: urls.collect(), ..at("redis://unused") }
}

/// A limit for calls of the tests themselves.
pub(crate) const LIMIT: Duration = PATIENCE;
