//! The table of generations that are in flight: each generates one missing answer for all requests that may join it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::broadcast::{Broadcast, GenerationState, Subscriber};
use super::reason::Reason;
use crate::byte_budget::ByteBudget;
use crate::cache::Stamp;
use crate::domain::{ByPrefix, Credential, InvalidationId, Key};
use crate::service::objects::TAGS_MAX;
use crate::sync::lock;

const SHARDS: usize = 64;

/// The generations in flight. Shared by `Arc`.
#[derive(Debug)]
pub(super) struct InflightTable {
    budget: Arc<ByteBudget>,
    shards: Box<[Mutex<Shard>]>,
    /// Generations that have left each shard.
    completed: Box<[AtomicU64]>,
    /// Generations that have begun.
    begun: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    /// Generations that other requests may join.
    open: HashMap<Key, Arc<InflightEntry>, ByPrefix>,
    /// Generations that no request can join: unshared ones, and ones that were closed.
    closed: Vec<(Key, Arc<InflightEntry>)>,
}

/// A request for a generation.
#[derive(Debug, Clone)]
pub(super) struct GenerationRequest {
    pub(super) key: Key,
    /// The tenant whose answer it generates, as in [`crate::domain::NamespaceId::tenant`].
    pub(super) tenant: Option<InvalidationId>,
    /// When the generation begins, in the order of invalidations.
    pub(super) stamp: Stamp,
    /// The last event of other nodes that is applied.
    pub(super) applied_event: u64,
    pub(super) store_policy: StorePolicy,
    pub(super) caller: Caller,
}

/// The properties of a caller that decide whether it may share another caller's failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// The credential that the upstream knows it by.
    pub(super) credential: Option<Credential>,
    /// Whether it requests a stream of the upstream.
    pub(super) streams: bool,
    /// Whether it requests token usage of the upstream.
    pub(super) requests_usage: bool,
    /// Whether a failed attempt is retried after a wait.
    pub(super) may_wait: bool,
}

/// How an answer is to be stored. All requests that join a generation agree on it.
#[derive(Debug, Clone, Default)]
pub(super) struct StorePolicy {
    /// The tags of the answer. A follower may add tags until the answer is stored.
    pub(super) tags: Vec<InvalidationId>,
    /// Whether the answer will report its token usage.
    pub(super) reports_usage: bool,
    /// The TTL. A follower may shorten it until the answer is stored.
    pub(super) ttl_seconds: u32,
    /// Whether a request has set the TTL.
    pub(super) is_ttl_requested: bool,
    /// Whether the TTL is that of the previous answer, because no request has set another.
    pub(super) inherits_ttl: bool,
}

#[derive(Debug)]
struct Agreement {
    store_policy: StorePolicy,
    /// Whether followers may still change the policy.
    is_open: bool,
    /// Why the answer may not be stored.
    forbidden: Option<Reason>,
}

#[derive(Debug)]
struct InflightEntry {
    /// Its place in the order in which generations begin.
    began: u64,
    tenant: Option<InvalidationId>,
    stamp: Stamp,
    /// The last event of other nodes before it began.
    last_event: AtomicU64,
    leader: Arc<Caller>,
    agreement: Mutex<Agreement>,
    broadcast: Arc<Broadcast>,
}

/// The leader's side of a generation: exactly one task owns it. Dropping it before its end notifies the waiters that their leader
/// died.
#[derive(Debug)]
pub(super) struct Generation {
    entry: Arc<InflightEntry>,
    inflight: Arc<InflightTable>,
    key: Key,
}

/// A request that waits for a generation. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Waiter {
    /// The caller that the generation was begun for.
    pub(super) leader: Arc<Caller>,
    /// The receiving half of the generation.
    pub(super) subscriber: Subscriber,
}

impl Caller {
    /// Whether a failure of `leader` is one of this caller too: a refusal may be due to the credential or to the form of the
    /// request, and any failure to a lack of retries.
    pub(super) fn shares_failure_of(&self, leader: &Caller, status: Option<u16>) -> bool {
        let is_refusal = status.is_some_and(|status| (400..500).contains(&status));
        let is_of_form = matches!(status, Some(400 | 422));
        let asks_alike = (self.streams, self.requests_usage) == (leader.streams, leader.requests_usage);
        (self.credential == leader.credential || !is_refusal)
            && (asks_alike || !is_of_form)
            && (leader.may_wait || !self.may_wait)
    }
}

impl StorePolicy {
    /// Adds tags, up to their limit.
    pub(super) fn depend_on(&mut self, tags: impl IntoIterator<Item = InvalidationId>) {
        for tag in tags {
            if self.tags.len() < TAGS_MAX && !self.tags.contains(&tag) {
                self.tags.push(tag);
            }
        }
    }
}

impl InflightEntry {
    fn is_current(
        &self,
        requested: &StorePolicy,
        is_current: impl Fn(Stamp, &[InvalidationId]) -> bool,
    ) -> bool {
        let agreement = lock(&self.agreement);
        // A tag of the follower may have been invalidated since too.
        let tags: Vec<InvalidationId> =
            agreement.store_policy.tags.iter().chain(&requested.tags).copied().collect();
        is_current(self.stamp, &tags)
    }

    /// A follower of the generation. `None` if its policy cannot be made to fit.
    fn joined(&self, requested: &StorePolicy) -> Option<Waiter> {
        let mut agreement = lock(&self.agreement);
        let missing = requested.tags.iter().filter(|tag| !agreement.store_policy.tags.contains(tag)).count();
        let fits = agreement.is_open && agreement.store_policy.tags.len() + missing <= TAGS_MAX;
        let changes = missing > 0 || requested.ttl_seconds < agreement.store_policy.ttl_seconds;
        if (changes && !fits) || (requested.reports_usage && !agreement.store_policy.reports_usage) {
            return None;
        }
        agreement.store_policy.depend_on(requested.tags.iter().copied());
        agreement.store_policy.ttl_seconds = agreement.store_policy.ttl_seconds.min(requested.ttl_seconds);
        agreement.store_policy.is_ttl_requested |= requested.is_ttl_requested;
        Some(Waiter { leader: Arc::clone(&self.leader), subscriber: self.broadcast.subscribe() })
    }
}

impl InflightTable {
    /// An empty table. What generations hold for readers is reserved of `budget`.
    pub(super) fn new(budget: Arc<ByteBudget>) -> Arc<InflightTable> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let completed = (0..SHARDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(InflightTable { budget, shards, completed, begun: AtomicU64::new(0) })
    }

    /// How many generations have left the shard of `key`. If the number is unchanged between a lookup that misses and a join,
    /// no answer of the key was stored between the two.
    pub(super) fn completed(&self, key: &Key) -> u64 {
        self.completed[shard_of(key)].load(Ordering::Acquire)
    }

    /// Joins the generation of a key. The first request becomes its leader and gets the [`Generation`]; so does the first after
    /// an invalidation: `is_current` returns whether an answer that was begun at a stamp, and has these tags, is still valid.
    /// `None` if a generation is in flight whose answer will not fit the request.
    pub(super) fn join(
        self: &Arc<Self>,
        request: GenerationRequest,
        is_current: impl Fn(Stamp, &[InvalidationId]) -> bool,
    ) -> Option<(Waiter, Option<Generation>)> {
        let mut shard = self.shard(&request.key);
        if let Some(generation) = shard.current(&request, is_current) {
            return Some((generation.joined(&request.store_policy)?, None));
        }
        let (waiter, generation) = self.open(&mut shard, request);
        Some((waiter, Some(generation)))
    }

    /// As [`InflightTable::join`], for a refresh. `None` if the answer is being generated already.
    pub(super) fn lead(
        self: &Arc<Self>,
        request: GenerationRequest,
        is_current: impl Fn(Stamp, &[InvalidationId]) -> bool,
    ) -> Option<(Waiter, Generation)> {
        let mut shard = self.shard(&request.key);
        let is_in_flight = shard.current(&request, is_current).is_some();
        (!is_in_flight).then(|| self.open(&mut shard, request))
    }

    /// A generation that no other request can join.
    pub(super) fn lead_unshared(self: &Arc<Self>, request: GenerationRequest) -> (Waiter, Generation) {
        let (waiter, generation) = self.begin(request);
        self.shard(&generation.key).closed.push((generation.key, Arc::clone(&generation.entry)));
        (waiter, generation)
    }

    fn open(self: &Arc<Self>, shard: &mut Shard, request: GenerationRequest) -> (Waiter, Generation) {
        let (waiter, generation) = self.begin(request);
        let before = shard.open.insert(generation.key, Arc::clone(&generation.entry));
        shard.closed.extend(before.map(|before| (generation.key, before)));
        (waiter, generation)
    }

    fn begin(self: &Arc<Self>, request: GenerationRequest) -> (Waiter, Generation) {
        let (broadcast, subscriber) = Broadcast::new(&self.budget);
        let leader = Arc::new(request.caller);
        let entry = Arc::new(InflightEntry {
            began: self.begun.fetch_add(1, Ordering::Relaxed),
            tenant: request.tenant,
            stamp: request.stamp,
            last_event: AtomicU64::new(request.applied_event),
            leader: Arc::clone(&leader),
            agreement: Mutex::new(Agreement {
                store_policy: request.store_policy,
                is_open: true,
                forbidden: None,
            }),
            broadcast,
        });
        (Waiter { leader, subscriber }, Generation { entry, inflight: Arc::clone(self), key: request.key })
    }

    /// Prevents the generations of `key` from storing their answers, and further requests from joining them. Generations of
    /// another tenant than `tenant` are left alone.
    pub(super) fn forbid_store(&self, key: &Key, tenant: Option<InvalidationId>) {
        let mut shard = self.shard(key);
        if shard.all(key).any(|generation| generation.tenant != tenant) {
            return;
        }
        let open = shard.open.remove(key);
        shard.closed.extend(open.map(|open| (*key, open)));
        shard.all(key).for_each(|generation| lock(&generation.agreement).forbidden = Some(Reason::Deleted));
    }

    /// Another node has replaced or removed the answer: generations that began before do not store theirs, and no further request joins
    /// them.
    pub(super) fn supersede(&self, key: &Key, event: u64) {
        let mut shard = self.shard(key);
        let is_before = |generation: &InflightEntry| generation.last_event.load(Ordering::Relaxed) < event;
        if shard.open.get(key).is_some_and(|open| is_before(open)) {
            let open = shard.open.remove(key);
            shard.closed.extend(open.map(|open| (*key, open)));
        }
        for generation in shard.all(key).filter(|generation| is_before(generation)) {
            lock(&generation.agreement).forbidden.get_or_insert(Reason::Superseded);
        }
    }

    /// Generations in flight.
    pub(super) fn len(&self) -> usize {
        let generations = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            shard.open.len() + shard.closed.len()
        };
        self.shards.iter().map(generations).sum()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(key)])
    }
}

fn shard_of(key: &Key) -> usize {
    usize::from(key.0[31]) % SHARDS
}

impl Shard {
    /// The generation that the request can join, unless one of its tags was invalidated since it began.
    fn current(
        &self,
        request: &GenerationRequest,
        is_current: impl Fn(Stamp, &[InvalidationId]) -> bool,
    ) -> Option<&Arc<InflightEntry>> {
        self.open
            .get(&request.key)
            .filter(|generation| generation.is_current(&request.store_policy, is_current))
    }

    /// All generations of `key`.
    fn all<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Arc<InflightEntry>> {
        let unshared =
            self.closed.iter().filter(move |(known, _)| known == key).map(|(_, generation)| generation);
        self.open.get(key).into_iter().chain(unshared)
    }
}

impl Generation {
    /// The sending half.
    pub(super) fn broadcast(&self) -> &Broadcast {
        &self.entry.broadcast
    }

    /// It begins after this event of other nodes.
    pub(super) fn note_event(&self, number: u64) {
        self.entry.last_event.fetch_max(number, Ordering::Relaxed);
    }

    /// Ends with a result that is not stored: the next request starts a new generation.
    pub(super) fn end(&self, state: GenerationState) {
        self.remove();
        self.broadcast().set_state(state);
    }

    /// The policy by which the answer is stored, or why it may not be. From here on followers cannot change it.
    pub(super) fn close_store_policy(&self) -> Result<StorePolicy, Reason> {
        let mut state = lock(&self.entry.agreement);
        state.is_open = false;
        match state.forbidden {
            Some(why) => Err(why),
            None => Ok(state.store_policy.clone()),
        }
    }

    /// Records that the answer was stored with `tags`. No generation that began before this one stores its older answer, and
    /// a later answer has those which are `inherited`.
    ///
    /// The caller holds the stripe of the key since before [`Generation::close_store_policy`], so that no other generation of
    /// the key comes between the two.
    pub(super) fn mark_stored(&self, tags: &[InvalidationId], inherited: &[InvalidationId]) {
        let shard = self.inflight.shard(&self.key);
        for generation in shard.all(&self.key) {
            let mut state = lock(&generation.agreement);
            if generation.began < self.entry.began {
                state.forbidden.get_or_insert(Reason::Superseded);
            } else if Arc::ptr_eq(generation, &self.entry) {
                state.store_policy.tags = tags.to_vec();
            } else {
                state.store_policy.depend_on(inherited.iter().copied());
            }
        }
    }

    /// Prevents further requests from joining.
    pub(super) fn close(&self) {
        let mut shard = self.inflight.shard(&self.key);
        if shard.open.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.entry)) {
            let closed = shard.open.remove(&self.key);
            shard.closed.extend(closed.map(|closed| (self.key, closed)));
        }
    }

    /// Removes the generation from the table.
    pub(super) fn remove(&self) {
        self.remove_if(|_| true);
    }

    /// Removes the generation from the table if `condition` holds, which is checked under the lock that joining takes too.
    fn remove_if(&self, condition: impl Fn(&InflightEntry) -> bool) -> bool {
        let mut shard = self.inflight.shard(&self.key);
        let is_removed = condition(&self.entry);
        if is_removed {
            let is_own = |known: &Arc<InflightEntry>| Arc::ptr_eq(known, &self.entry);
            shard.closed.retain(|(_, known)| !is_own(known));
            if shard.open.get(&self.key).is_some_and(is_own) {
                shard.open.remove(&self.key);
            }
            self.inflight.completed[shard_of(&self.key)].fetch_add(1, Ordering::Release);
        }
        is_removed
    }

    /// Returns once no request waits any more; from then on the generation is not in the table.
    ///
    /// Cancel safety: may be dropped and called again.
    pub(super) async fn abandoned(&self) {
        loop {
            self.broadcast().without_subscribers().await;
            if self.remove_if(|entry| !entry.broadcast.has_subscribers()) {
                return;
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.remove();
        self.broadcast().end_without_leader();
    }
}

#[cfg(test)]
mod tests;
