//! The board of flights: each is the making of one missing answer, for all who may join it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::reason::Reason;
use super::telling::{Listener, Phase, Telling, lock};
use crate::byte_budget::ByteBudget;
use crate::cache::Stamp;
use crate::domain::{ByPrefix, Credential, Key, Subject};
use crate::service::objects::TAGS_MAX;

const SHARDS: usize = 64;

/// The flights in the air. Shared by `Arc`.
#[derive(Debug)]
pub(super) struct Board {
    budget: Arc<ByteBudget>,
    shards: Box<[Mutex<Shard>]>,
    /// Flights of each shard that have left it.
    departures: Box<[AtomicU64]>,
    /// Flights that have begun.
    begun: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    /// Those that others may join.
    open: HashMap<Key, Arc<Shared>, ByPrefix>,
    /// Those that nobody else can, any more or from the beginning.
    alone: Vec<(Key, Arc<Shared>)>,
}

/// What somebody wants to be made, or is making.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) key: Key,
    /// When the making begins, in the order of invalidations.
    pub(super) stamp: Stamp,
    pub(super) terms: Terms,
    pub(super) asker: Asker,
}

/// Who asks, as far as it decides what he is told of a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asker {
    /// The credential that he is known by at the upstream.
    pub(super) credential: Option<Credential>,
    /// Whether he has the upstream asked for a stream.
    pub(super) streams: bool,
    /// Whether he has it asked what was used.
    pub(super) asks_usage: bool,
    /// Whether an attempt that fails is made again after a while.
    pub(super) may_wait: bool,
}

/// What those who join a flight must agree on.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// What the answer will depend on. Whoever joins may add to it, until the answer is kept.
    pub(super) tags: Vec<Subject>,
    /// Whether the answer will say what it used.
    pub(super) tells_usage: bool,
    /// How long the answer may be kept. Whoever joins may shorten it, until the answer is kept.
    pub(super) ttl_seconds: u32,
    /// Whether that is what somebody has asked for.
    pub(super) is_ttl_asked: bool,
    /// Whether that is how long the answer before it lived, to the second, because nobody has said otherwise.
    pub(super) inherits_ttl: bool,
}

#[derive(Debug)]
struct State {
    terms: Terms,
    /// Whether those who join may still change the terms.
    is_open: bool,
    /// Why the answer may not be kept.
    forbidden: Option<Reason>,
}

#[derive(Debug)]
struct Shared {
    /// Its place in the order in which flights begin.
    began: u64,
    stamp: Stamp,
    leader: Arc<Asker>,
    state: Mutex<State>,
    telling: Arc<Telling>,
}

/// The duty to make an answer: exactly one task has it. Dropping it before its end tells the others that it died.
#[derive(Debug)]
pub(super) struct Flight {
    shared: Arc<Shared>,
    board: Arc<Board>,
    key: Key,
}

/// A place among those who wait. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Whoever the answer is made for.
    pub(super) leader: Arc<Asker>,
    /// What is heard of it.
    pub(super) listener: Listener,
}

impl Asker {
    /// Whether what `leader` was told is what this one would be told: a refusal may be due to the credential, that of a
    /// request to its form, and any failure to having tried too seldom.
    pub(super) fn fails_like(&self, leader: &Asker, status: Option<u16>) -> bool {
        let is_refusal = status.is_some_and(|status| (400..500).contains(&status));
        let is_of_form = matches!(status, Some(400 | 422));
        let asks_alike = (self.streams, self.asks_usage) == (leader.streams, leader.asks_usage);
        (self.credential == leader.credential || !is_refusal)
            && (asks_alike || !is_of_form)
            && (leader.may_wait || !self.may_wait)
    }
}

impl Terms {
    /// Adds what else the answer depends on, as far as there is room.
    pub(super) fn depend_on(&mut self, tags: impl IntoIterator<Item = Subject>) {
        for tag in tags {
            if self.tags.len() < TAGS_MAX && !self.tags.contains(&tag) {
                self.tags.push(tag);
            }
        }
    }
}

impl Shared {
    fn is_current(&self, asked: &Terms, is_current: impl Fn(Stamp, &[Subject]) -> bool) -> bool {
        let state = lock(&self.state);
        // What a joiner depends on may have been invalidated since too.
        let tags: Vec<Subject> = state.terms.tags.iter().chain(&asked.tags).copied().collect();
        is_current(self.stamp, &tags)
    }

    /// A place in the flight, if its terms can be what is asked.
    fn joined(&self, asked: &Terms) -> Option<Waiter> {
        let mut state = lock(&self.state);
        let missing = asked.tags.iter().filter(|tag| !state.terms.tags.contains(tag)).count();
        let fits = state.is_open && state.terms.tags.len() + missing <= TAGS_MAX;
        let changes = missing > 0 || asked.ttl_seconds < state.terms.ttl_seconds;
        if (changes && !fits) || (asked.tells_usage && !state.terms.tells_usage) {
            return None;
        }
        state.terms.depend_on(asked.tags.iter().copied());
        state.terms.ttl_seconds = state.terms.ttl_seconds.min(asked.ttl_seconds);
        state.terms.is_ttl_asked |= asked.is_ttl_asked;
        Some(Waiter { leader: Arc::clone(&self.leader), listener: self.telling.listener() })
    }
}

impl Board {
    /// No flights. What they hold for readers is reserved of `budget`.
    pub(super) fn new(budget: Arc<ByteBudget>) -> Arc<Board> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let departures = (0..SHARDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Board { budget, shards, departures, begun: AtomicU64::new(0) })
    }

    /// How many flights have left whose keys may be `key`. Whoever looked for an answer after asking, and finds the number
    /// unchanged once he has joined a flight, has missed none that landed.
    pub(super) fn departures(&self, key: &Key) -> u64 {
        self.departures[shard_of(key)].load(Ordering::Acquire)
    }

    /// Joins the flight that makes what is planned; the first to join also gets the duty to make it, and so does the first
    /// after an invalidation: `is_current` says whether an answer whose making began then, and depends on these, is still
    /// what it was. None if a flight is in the air whose answer will not be what is asked.
    pub(super) fn join(
        self: &Arc<Self>,
        plan: Plan,
        is_current: impl Fn(Stamp, &[Subject]) -> bool,
    ) -> Option<(Waiter, Option<Flight>)> {
        let mut shard = self.shard(&plan.key);
        if let Some(flight) = shard.current(&plan, is_current) {
            return Some((flight.joined(&plan.terms)?, None));
        }
        let (waiter, flight) = self.open(&mut shard, plan);
        Some((waiter, Some(flight)))
    }

    /// As [`Board::join`], for whoever does not wait for the answer: nothing if it is being made already.
    pub(super) fn lead(
        self: &Arc<Self>,
        plan: Plan,
        is_current: impl Fn(Stamp, &[Subject]) -> bool,
    ) -> Option<(Waiter, Flight)> {
        let mut shard = self.shard(&plan.key);
        let is_made = shard.current(&plan, is_current).is_some();
        (!is_made).then(|| self.open(&mut shard, plan))
    }

    /// A flight that nobody else can join.
    pub(super) fn alone(self: &Arc<Self>, plan: Plan) -> (Waiter, Flight) {
        let (waiter, flight) = self.begin(plan);
        self.shard(&flight.key).alone.push((flight.key, Arc::clone(&flight.shared)));
        (waiter, flight)
    }

    fn open(self: &Arc<Self>, shard: &mut Shard, plan: Plan) -> (Waiter, Flight) {
        let (waiter, flight) = self.begin(plan);
        let before = shard.open.insert(flight.key, Arc::clone(&flight.shared));
        shard.alone.extend(before.map(|before| (flight.key, before)));
        (waiter, flight)
    }

    fn begin(self: &Arc<Self>, plan: Plan) -> (Waiter, Flight) {
        let (telling, listener) = Telling::new(&self.budget);
        let leader = Arc::new(plan.asker);
        let shared = Arc::new(Shared {
            began: self.begun.fetch_add(1, Ordering::Relaxed),
            stamp: plan.stamp,
            leader: Arc::clone(&leader),
            state: Mutex::new(State { terms: plan.terms, is_open: true, forbidden: None }),
            telling,
        });
        (Waiter { leader, listener }, Flight { shared, board: Arc::clone(self), key: plan.key })
    }

    /// Sees to it that no flight of `key` keeps anything, and that nobody joins one any more.
    pub(super) fn forbid(&self, key: &Key) {
        let mut shard = self.shard(key);
        let open = shard.open.remove(key);
        shard.alone.extend(open.map(|open| (*key, open)));
        shard.all(key).for_each(|flight| lock(&flight.state).forbidden = Some(Reason::Deleted));
    }

    /// Flights in the air.
    pub(super) fn len(&self) -> usize {
        let flights = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            shard.open.len() + shard.alone.len()
        };
        self.shards.iter().map(flights).sum()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(key)])
    }
}

fn shard_of(key: &Key) -> usize {
    usize::from(key.0[31]) % SHARDS
}

impl Shard {
    /// The flight that makes what is planned, unless something that it depends on was invalidated since it began.
    fn current(&self, plan: &Plan, is_current: impl Fn(Stamp, &[Subject]) -> bool) -> Option<&Arc<Shared>> {
        self.open.get(&plan.key).filter(|flight| flight.is_current(&plan.terms, is_current))
    }

    /// All flights of `key`.
    fn all<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Arc<Shared>> {
        let alone = self.alone.iter().filter(move |(known, _)| known == key).map(|(_, flight)| flight);
        self.open.get(key).into_iter().chain(alone)
    }
}

impl Flight {
    /// Where those who wait are told.
    pub(super) fn telling(&self) -> &Telling {
        &self.shared.telling
    }

    /// Ends with something that nobody else shall get: whoever comes from now on flies anew.
    pub(super) fn end(&self, phase: Phase) {
        self.leave();
        self.telling().settle(phase);
    }

    /// On what terms the answer is kept, or why it is not. From here on whoever joins cannot change them.
    pub(super) fn close_terms(&self) -> Result<Terms, Reason> {
        let mut state = lock(&self.shared.state);
        state.is_open = false;
        match state.forbidden {
            Some(why) => Err(why),
            None => Ok(state.terms.clone()),
        }
    }

    /// The answer is kept, and depends on all these. No flight that began before this one keeps its older answer, and what
    /// takes the place of this one depends on the same.
    ///
    /// Whoever calls it has held the stripe of the key since before [`Flight::close_terms`], so no other flight of the key is
    /// between the two.
    pub(super) fn kept_with(&self, tags: &[Subject]) {
        let shard = self.board.shard(&self.key);
        for flight in shard.all(&self.key) {
            let mut state = lock(&flight.state);
            if flight.began < self.shared.began {
                state.forbidden.get_or_insert(Reason::Outrun);
            } else {
                state.terms.depend_on(tags.iter().copied());
            }
        }
    }

    /// Nobody joins it from here on.
    pub(super) fn close(&self) {
        let mut shard = self.board.shard(&self.key);
        if shard.open.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.shared)) {
            let closed = shard.open.remove(&self.key);
            shard.alone.extend(closed.map(|closed| (self.key, closed)));
        }
    }

    /// Takes the flight off the board.
    pub(super) fn leave(&self) {
        self.leave_if(|_| true);
    }

    /// Takes the flight off the board if `is_time`, which is asked under the lock that those who join take too.
    fn leave_if(&self, is_time: impl Fn(&Shared) -> bool) -> bool {
        let mut shard = self.board.shard(&self.key);
        let leaves = is_time(&self.shared);
        if leaves {
            let is_own = |known: &Arc<Shared>| Arc::ptr_eq(known, &self.shared);
            shard.alone.retain(|(_, known)| !is_own(known));
            if shard.open.get(&self.key).is_some_and(is_own) {
                shard.open.remove(&self.key);
            }
            self.board.departures[shard_of(&self.key)].fetch_add(1, Ordering::Release);
        }
        leaves
    }

    /// Returns once nobody waits any more; from then on the flight is off the board.
    ///
    /// Cancel safety: may be dropped and called again.
    pub(super) async fn abandoned(&self) {
        loop {
            self.telling().unheard().await;
            if self.leave_if(|shared| !shared.telling.is_heard()) {
                return;
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.leave();
        self.telling().die();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};
    use futures_util::poll;
    use std::pin::pin;

    const KEY: Key = Key([1; 32]);

    fn board() -> Arc<Board> {
        Board::new(ByteBudget::new(usize::MAX, crate::metrics::unexported()))
    }

    fn usage() -> Terms {
        Terms { tells_usage: true, ..Terms::default() }
    }

    fn plan(terms: Terms) -> Plan {
        Plan { key: KEY, stamp: Stamp::default(), terms, asker: Asker::default() }
    }

    fn join_if(board: &Arc<Board>, terms: Terms, is_current: bool) -> Option<(Waiter, Option<Flight>)> {
        board.join(plan(terms), |_, _| is_current)
    }

    fn join(board: &Arc<Board>, terms: Terms) -> (Waiter, Option<Flight>) {
        join_if(board, terms, true).expect("it can be joined")
    }

    #[tokio::test]
    async fn a_dead_leader_is_noticed() {
        let board = board();
        let (mut waiter, flight) = join(&board, usage());
        drop(flight);
        assert!(matches!(waiter.listener.begun().await, Phase::Died));
        assert!(join(&board, usage()).1.is_some());
    }

    #[tokio::test]
    async fn a_flight_is_abandoned_when_the_last_one_leaves() {
        let board = board();
        let (first, flight) = join(&board, usage());
        let (second, _) = join(&board, usage());
        let flight = flight.unwrap();
        drop(first);
        assert!(poll!(pin!(flight.abandoned())).is_pending(), "one still waits");
        drop(second);
        flight.abandoned().await;
        assert_eq!(board.len(), 0);
    }

    #[tokio::test]
    async fn whoever_comes_after_an_invalidation_flies_anew() {
        let board = board();
        let (mut first, flight) = join(&board, usage());
        let (second, other) = join_if(&board, usage(), false).unwrap();
        let (flight, other) = (flight.unwrap(), other.unwrap());
        assert!(join(&board, usage()).1.is_none(), "the second is joined");
        flight.end(Phase::Failed(Error::new(Kind::Upstream, "down")));
        assert!(matches!(first.listener.ended().await, Phase::Failed(_)));
        assert_eq!(board.len(), 1, "the first leaves the second in the air");
        drop((second, other));
        assert_eq!(board.len(), 0);
    }

    #[tokio::test]
    async fn those_who_join_agree_on_terms() {
        let board = board();
        let tagged =
            |tags: &[u64]| Terms { tags: tags.iter().map(|&n| Subject(n)).collect(), ..Terms::default() };
        let (_first, flight) = join(&board, tagged(&[1]));
        let flight = flight.unwrap();
        assert!(join_if(&board, usage(), true).is_none(), "it will not tell what it used");
        let _second = join(&board, tagged(&[2, 1]));
        let terms = flight.close_terms().unwrap();
        assert_eq!(terms.tags, [Subject(1), Subject(2)]);
        assert!(join_if(&board, tagged(&[3]), true).is_none(), "too late for a tag");
        assert!(join_if(&board, tagged(&[2]), true).is_some());
    }

    #[tokio::test]
    async fn whoever_only_wants_it_made_anew_does_not_join() {
        let board = board();
        let lead = |is_current| board.lead(plan(usage()), move |_, _| is_current);
        let (_waiter, flight) = lead(true).unwrap();
        assert!(lead(true).is_none());
        assert!(flight.telling().is_heard(), "by itself");
        assert!(lead(false).is_some(), "it was invalidated since");
    }

    #[tokio::test]
    async fn the_shortest_lifetime_holds() {
        let board = board();
        let living = |ttl_seconds| Terms { ttl_seconds, ..Terms::default() };
        let (_first, flight) = join(&board, living(500));
        let flight = flight.unwrap();
        let _others = [join(&board, living(5)), join(&board, living(900))];
        assert_eq!(flight.close_terms().unwrap().ttl_seconds, 5);
        assert!(join_if(&board, living(4), true).is_none(), "too late to shorten it");
    }

    #[tokio::test]
    async fn a_flight_that_is_closed_is_still_in_the_air() {
        let board = board();
        let (_one, closed) = join(&board, usage());
        let closed = closed.unwrap();
        closed.close();
        let (_two, open) = join(&board, usage());
        assert!(open.is_some(), "whoever comes now flies himself");
        assert_eq!(board.len(), 2);
        closed.close();
        drop((closed, open));
        assert_eq!(board.len(), 0);
    }

    #[tokio::test]
    async fn departures_are_counted_before_whoever_comes_next() {
        let board = board();
        let before = board.departures(&KEY);
        let (_one, flight) = join(&board, usage());
        assert_eq!(board.departures(&KEY), before, "it is in the air, and can be joined");
        drop(flight);
        assert!(join(&board, usage()).1.is_some());
        assert_ne!(board.departures(&KEY), before, "it may have landed");
    }

    #[tokio::test]
    async fn what_is_deleted_is_kept_by_nobody() {
        let board = board();
        let (_one, open) = join(&board, usage());
        let (_two, alone) = board.alone(plan(usage()));
        let (_three, other) = board.alone(Plan { key: Key([2; 32]), ..plan(usage()) });
        board.forbid(&KEY);
        assert_eq!(open.unwrap().close_terms().unwrap_err(), Reason::Deleted);
        assert_eq!(alone.close_terms().unwrap_err(), Reason::Deleted);
        assert!(other.close_terms().is_ok());
        drop((alone, other));
        assert_eq!(board.len(), 0);
    }

    #[tokio::test]
    async fn an_older_answer_does_not_replace_a_newer_one_that_is_kept() {
        let board = board();
        let (_one, oldest) = join(&board, usage());
        let (_two, older) = board.alone(plan(usage()));
        let (_three, newer) = board.alone(plan(usage()));
        assert!(older.close_terms().is_ok());
        older.kept_with(&[Subject(7)]);
        assert_eq!(oldest.unwrap().close_terms().unwrap_err(), Reason::Outrun);
        let terms = newer.close_terms().unwrap();
        assert_eq!(terms.tags, [Subject(7)], "what takes its place depends on the same");
    }

    #[tokio::test]
    async fn a_newer_answer_that_is_not_kept_stands_in_nobodys_way() {
        let board = board();
        let (_one, older) = join(&board, usage());
        let (_two, newer) = board.alone(plan(usage()));
        assert!(newer.close_terms().is_ok());
        drop(newer);
        assert!(older.unwrap().close_terms().is_ok());
    }

    #[test]
    fn a_failure_is_told_to_those_who_asked_in_the_same_way() {
        let one = Asker { may_wait: true, ..Asker::default() };
        let credential = Credential::of([("api-key", &b"key"[..])].into_iter());
        let other = Asker { credential, ..one.clone() };
        let stream = Asker { streams: true, asks_usage: true, ..one.clone() };
        let hasty = Asker { may_wait: false, ..one.clone() };
        for status in [Some(400), Some(429)] {
            assert!(one.fails_like(&one, status) && !one.fails_like(&other, status));
        }
        assert!(one.fails_like(&stream, Some(429)) && !one.fails_like(&stream, Some(400)));
        for status in [None, Some(200), Some(503)] {
            assert!(one.fails_like(&other, status) && one.fails_like(&stream, status));
            assert!(hasty.fails_like(&one, status) && !one.fails_like(&hasty, status));
        }
    }
}
