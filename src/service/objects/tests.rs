//! Objects near the end of their freshness, on a clock that the tests set.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::cache::{Cache, PolicyOptions, Verdict};
use crate::domain::{Clock, ContentCoding, ManualClock, UnixSeconds};
use crate::service::Directives;

/// A use case whose fresh objects are refreshed by this rule.
struct Bench {
    objects: Arc<Objects>,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new(rule: EarlyRefresh, leases_max: usize) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000_000)));
        let cache = Arc::new(Cache::in_memory(Arc::clone(&clock) as Arc<dyn Clock>, dir.path()).await);
        let policy = PolicyOptions { jitter_share: Some(0.0), ..PolicyOptions::default() };
        let namespaces = Namespaces::new(&BTreeMap::from([("products".to_owned(), policy)]), true).unwrap();
        let options = Options { leases_max, ..Options::default() };
        let objects = Objects::new(cache, Arc::new(namespaces), options, crate::metrics::unexported());
        Bench { objects: Arc::new(Objects { early_refresh: rule, ..objects }), clock, _dir: dir }
    }

    fn address(&self, key: &str) -> Address {
        self.objects.address(&Principal::default(), "products", key).unwrap()
    }

    async fn get(&self, key: &str, more: GetOptions) -> Result<GetOutcome> {
        self.objects.get(&self.address(key), &GetOptions { lease_seconds: Some(10), ..more }).await
    }

    /// The lease that a request for a fresh object gets, if any.
    async fn lease_of_fresh(&self, key: &str) -> Option<Lease> {
        let outcome = self.get(key, GetOptions::default()).await.unwrap();
        let GetOutcome::Hit(object) = outcome else { panic!("it is there: {outcome:?}") };
        assert_eq!(object.found.verdict, Verdict::Fresh);
        object.lease.map(|granted| granted.lease)
    }

    async fn put(&self, key: &str, lease: Option<Lease>) {
        let draft = ObjectDraft {
            stamp: self.objects.stamp(),
            key: key.to_owned(),
            value: Bytes::from_static(b"value"),
            content_type: String::new(),
            content_coding: ContentCoding::Identity,
            tags: Vec::new(),
            ttl_seconds: Some(600),
            lease,
            condition: Condition::default(),
        };
        self.objects.put(&self.address(key), draft).await.unwrap();
    }

    /// Stores an object that a client made under a lease.
    async fn make(&self, key: &str) {
        let Ok(GetOutcome::Miss { lease: Some(granted), .. }) = self.get(key, GetOptions::default()).await
        else {
            panic!("the object is missing");
        };
        self.put(key, Some(granted.lease)).await;
    }
}

/// However short the lease was held: so large a factor, and so small a number.
fn always() -> EarlyRefresh {
    EarlyRefresh::drawing(1e15, || f64::MIN_POSITIVE)
}

#[tokio::test]
async fn the_lease_of_a_fresh_object_is_given_to_one_if_chance_says_so() {
    let bench = Bench::new(always(), 100).await;
    bench.make("a").await;
    let lease = bench.lease_of_fresh("a").await;
    assert!(lease.is_some());
    assert_eq!(bench.lease_of_fresh("a").await, None, "one client makes it again");
    let without_wait = GetOptions { wait: Duration::ZERO, ..GetOptions::default() };
    let stored_only = Directives { only_if_cached: true, ..Directives::default() };
    assert!(matches!(bench.get("a", without_wait).await, Ok(GetOutcome::Hit(_))), "the others do not wait");
    bench.put("a", lease).await;
    let options = GetOptions { directives: stored_only, ..GetOptions::default() };
    let Ok(GetOutcome::Hit(object)) = bench.get("a", options).await else { panic!("it is there") };
    assert_eq!(object.lease, None);
    assert!(bench.lease_of_fresh("a").await.is_some(), "its successor has a cost too");
}

#[tokio::test]
async fn an_object_without_a_cost_or_by_chance_is_not_refreshed_early() {
    let bench = Bench::new(always(), 100).await;
    bench.put("given", None).await;
    assert_eq!(bench.lease_of_fresh("given").await, None);
    let bench = Bench::new(EarlyRefresh::drawing(1e15, || 1.0), 100).await;
    bench.make("a").await;
    assert_eq!(bench.lease_of_fresh("a").await, None);
}

#[tokio::test(start_paused = true)]
async fn the_cost_is_the_time_for_which_the_lease_was_held() {
    // `-ln(U)` is 1: an object is refreshed from as long before its end as it took.
    let bench = Bench::new(EarlyRefresh::drawing(1.0, || (-1.0_f64).exp()), 100).await;
    let Ok(GetOutcome::Miss { lease: Some(granted), .. }) = bench.get("a", GetOptions::default()).await
    else {
        panic!("the object is missing");
    };
    tokio::time::advance(Duration::from_secs(4)).await;
    bench.put("a", Some(granted.lease)).await;
    let GetOutcome::Hit(object) = bench.get("a", GetOptions::default()).await.unwrap() else {
        panic!("it is there");
    };
    let meta = &object.found.entry.meta;
    assert_eq!(meta.cost_us / 1_000_000, 4);
    bench.clock.advance(meta.soft_expires.since(UnixSeconds(1_000_000)) - 6);
    assert_eq!(bench.lease_of_fresh("a").await, None);
    bench.clock.advance(3);
    assert!(bench.lease_of_fresh("a").await.is_some());
}

#[tokio::test]
async fn a_fresh_object_is_served_without_a_lease_if_there_is_no_room_for_one() {
    let bench = Bench::new(always(), 1).await;
    bench.make("a").await;
    let other = bench.get("b", GetOptions::default()).await;
    assert!(matches!(other, Ok(GetOutcome::Miss { lease: Some(_), .. })));
    assert_eq!(bench.lease_of_fresh("a").await, None);
    assert_eq!(
        bench.get("c", GetOptions::default()).await.unwrap_err().kind(),
        crate::error::Kind::Overloaded
    );
}
