//! Joining, ending and closing of generations.

use super::*;
use crate::error::{Error, Kind};
use futures_util::poll;
use std::pin::pin;

const KEY: Key = Key([1; 32]);

fn inflight() -> Arc<InflightTable> {
    InflightTable::new(ByteBudget::new(usize::MAX, crate::metrics::unexported()))
}

fn usage() -> StorePolicy {
    StorePolicy { reports_usage: true, ..StorePolicy::default() }
}

fn request(store_policy: StorePolicy) -> GenerationRequest {
    GenerationRequest {
        key: KEY,
        tenant: None,
        stamp: Stamp::default(),
        applied_event: 0,
        store_policy,
        caller: Caller::default(),
    }
}

fn join_if(
    inflight: &Arc<InflightTable>,
    store_policy: StorePolicy,
    is_current: bool,
) -> Option<(Waiter, Option<Generation>)> {
    inflight.join(request(store_policy), |_, _| is_current)
}

fn join(inflight: &Arc<InflightTable>, store_policy: StorePolicy) -> (Waiter, Option<Generation>) {
    join_if(inflight, store_policy, true).expect("it can be joined")
}

#[tokio::test]
async fn a_dead_leader_is_noticed() {
    let inflight = inflight();
    let (mut waiter, generation) = join(&inflight, usage());
    drop(generation);
    assert!(matches!(waiter.subscriber.begun().await, GenerationState::LeaderDied));
    assert!(join(&inflight, usage()).1.is_some());
}

#[tokio::test]
async fn a_generation_is_abandoned_when_the_last_waiter_leaves() {
    let inflight = inflight();
    let (first, generation) = join(&inflight, usage());
    let (second, _) = join(&inflight, usage());
    let generation = generation.unwrap();
    drop(first);
    assert!(poll!(pin!(generation.abandoned())).is_pending(), "one still waits");
    drop(second);
    generation.abandoned().await;
    assert_eq!(inflight.len(), 0);
}

#[tokio::test]
async fn a_request_after_an_invalidation_starts_a_new_generation() {
    let inflight = inflight();
    let (mut first, generation) = join(&inflight, usage());
    let (second, other) = join_if(&inflight, usage(), false).unwrap();
    let (generation, other) = (generation.unwrap(), other.unwrap());
    assert!(join(&inflight, usage()).1.is_none(), "the second is joined");
    generation.end(GenerationState::Failed(Error::new(Kind::Upstream, "down")));
    assert!(matches!(first.subscriber.ended().await, GenerationState::Failed(_)));
    assert_eq!(inflight.len(), 1, "the second is still in flight");
    drop((second, other));
    assert_eq!(inflight.len(), 0);
}

#[tokio::test]
async fn followers_add_tags_until_the_policy_is_closed() {
    let inflight = inflight();
    let tagged = |tags: &[u64]| StorePolicy {
        tags: tags.iter().map(|&n| InvalidationId(n)).collect(),
        ..StorePolicy::default()
    };
    let (_first, generation) = join(&inflight, tagged(&[1]));
    let generation = generation.unwrap();
    assert!(join_if(&inflight, usage(), true).is_none(), "it will not report usage");
    let _second = join(&inflight, tagged(&[2, 1]));
    let store_policy = generation.close_store_policy().unwrap();
    assert_eq!(store_policy.tags, [InvalidationId(1), InvalidationId(2)]);
    assert!(join_if(&inflight, tagged(&[3]), true).is_none(), "too late for a tag");
    assert!(join_if(&inflight, tagged(&[2]), true).is_some());
}

#[tokio::test]
async fn a_refresh_does_not_join() {
    let inflight = inflight();
    let lead = |is_current| inflight.lead(request(usage()), move |_, _| is_current);
    let (_waiter, generation) = lead(true).unwrap();
    assert!(lead(true).is_none());
    assert!(generation.broadcast().has_subscribers(), "by itself");
    assert!(lead(false).is_some(), "it was invalidated since");
}

#[tokio::test]
async fn the_shortest_lifetime_holds() {
    let inflight = inflight();
    let living = |ttl_seconds| StorePolicy { ttl_seconds, ..StorePolicy::default() };
    let (_first, generation) = join(&inflight, living(500));
    let generation = generation.unwrap();
    let _others = [join(&inflight, living(5)), join(&inflight, living(900))];
    assert_eq!(generation.close_store_policy().unwrap().ttl_seconds, 5);
    assert!(join_if(&inflight, living(4), true).is_none(), "too late to shorten it");
}

#[tokio::test]
async fn a_closed_generation_is_still_in_flight() {
    let inflight = inflight();
    let (_one, closed) = join(&inflight, usage());
    let closed = closed.unwrap();
    closed.close();
    let (_two, open) = join(&inflight, usage());
    assert!(open.is_some(), "the next request starts its own");
    assert_eq!(inflight.len(), 2);
    closed.close();
    drop((closed, open));
    assert_eq!(inflight.len(), 0);
}

#[tokio::test]
async fn a_generation_counts_as_completed_before_the_next_one_begins() {
    let inflight = inflight();
    let before = inflight.completed(&KEY);
    let (_one, generation) = join(&inflight, usage());
    assert_eq!(inflight.completed(&KEY), before, "it is in flight, and can be joined");
    drop(generation);
    assert!(join(&inflight, usage()).1.is_some());
    assert_ne!(inflight.completed(&KEY), before, "its answer may have been stored");
}

#[tokio::test]
async fn no_generation_of_a_deleted_key_is_stored() {
    let inflight = inflight();
    let (_one, open) = join(&inflight, usage());
    let (_two, unshared) = inflight.lead_unshared(request(usage()));
    let (_three, other) = inflight.lead_unshared(GenerationRequest { key: Key([2; 32]), ..request(usage()) });
    inflight.forbid_store(&KEY, Some(InvalidationId(1)));
    let (_four, is_joined) = join(&inflight, usage());
    assert!(is_joined.is_none(), "another tenant deletes nothing");
    inflight.forbid_store(&KEY, None);
    assert_eq!(open.unwrap().close_store_policy().unwrap_err(), Reason::Deleted);
    assert_eq!(unshared.close_store_policy().unwrap_err(), Reason::Deleted);
    assert!(other.close_store_policy().is_ok());
    drop((unshared, other));
    assert_eq!(inflight.len(), 0);
}

#[tokio::test]
async fn an_older_answer_does_not_replace_a_newer_one() {
    let inflight = inflight();
    let (_one, oldest) = join(&inflight, usage());
    let (_two, older) = inflight.lead_unshared(request(usage()));
    let (_three, newer) = inflight.lead_unshared(request(usage()));
    assert!(older.close_store_policy().is_ok());
    older.mark_stored(&[7, 8].map(InvalidationId), &[InvalidationId(7)]);
    assert_eq!(older.close_store_policy().unwrap().tags, [7, 8].map(InvalidationId), "its own");
    assert_eq!(oldest.unwrap().close_store_policy().unwrap_err(), Reason::Superseded);
    let store_policy = newer.close_store_policy().unwrap();
    assert_eq!(
        store_policy.tags,
        [InvalidationId(7)],
        "a later answer inherits those that are not of the one before alone"
    );
}

#[tokio::test]
async fn a_newer_answer_that_is_not_stored_does_not_block_an_older_one() {
    let inflight = inflight();
    let (_one, older) = join(&inflight, usage());
    let (_two, newer) = inflight.lead_unshared(request(usage()));
    assert!(newer.close_store_policy().is_ok());
    drop(newer);
    assert!(older.unwrap().close_store_policy().is_ok());
}

#[test]
fn a_failure_is_shared_with_callers_that_asked_in_the_same_way() {
    let one = Caller { may_wait: true, ..Caller::default() };
    let credential = Credential::of([("api-key", &b"key"[..])].into_iter());
    let other = Caller { credential, ..one.clone() };
    let stream = Caller { streams: true, requests_usage: true, ..one.clone() };
    let hasty = Caller { may_wait: false, ..one.clone() };
    for status in [Some(400), Some(429)] {
        assert!(one.shares_failure_of(&one, status) && !one.shares_failure_of(&other, status));
    }
    assert!(one.shares_failure_of(&stream, Some(429)) && !one.shares_failure_of(&stream, Some(400)));
    for status in [None, Some(200), Some(503)] {
        assert!(one.shares_failure_of(&other, status) && one.shares_failure_of(&stream, status));
        assert!(hasty.shares_failure_of(&one, status) && !one.shares_failure_of(&hasty, status));
    }
}
