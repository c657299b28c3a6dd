//! The making of one missing answer, for all who wait for it: they get its bytes as these come, from the first one on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::Form;
use crate::cache::Stamp;
use crate::domain::{ByPrefix, Key, Subject};
use crate::error::{Error, Kind, Result};
use crate::service::objects::TAGS_MAX;
use crate::upstream::{Answer, Headers, Usage};

const SHARDS: usize = 64;

/// What an event costs beside its bytes.
pub(super) const EVENT_BYTES: usize = size_of::<Frame>();

/// The flights in the air. Shared by `Arc`.
#[derive(Debug)]
pub(super) struct Board {
    shards: Box<[Mutex<Shard>]>,
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

/// How far a flight has come.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The upstream has said nothing.
    Waiting,
    /// Events are coming; these were the headers.
    Streaming(Arc<Headers>),
    /// The last event has come.
    Streamed(Streamed),
    /// The whole answer came at once.
    Whole(Arc<Reply>),
    /// Something came that is no answer, and is passed on.
    Passed(Arc<Reply>),
    /// Nothing came, or not all.
    Failed(Error),
    /// The answer is in the cache: another flight has landed before this one began.
    Landed,
    /// Whoever made the answer is gone.
    Died,
}

/// What a stream has become.
#[derive(Debug, Clone)]
pub(super) enum Streamed {
    /// A whole answer.
    Answer(Arc<Answer>),
    /// A stream that can be read only as such; with what it used, if it says so.
    Uncertain(Option<Usage>),
    /// A stream that is no answer.
    Faulty(Error),
}

/// A reply with its whole body.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) answer: Option<Answer>,
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
    pub(super) credential: Option<Bytes>,
    /// The form in which he has the upstream asked.
    pub(super) form: Form,
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
}

#[derive(Debug)]
struct State {
    terms: Terms,
    /// Whether the terms may still change.
    is_open: bool,
    /// Why the answer may not be kept.
    forbidden: Option<&'static str>,
    /// Whether those who wait have been counted.
    is_counted: bool,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    frames: usize,
}

#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    /// The same for those who have not asked what was used, if it is not the same.
    without_usage: Option<Bytes>,
}

#[derive(Debug)]
struct Shared {
    /// Its place in the order in which flights begin.
    began: u64,
    stamp: Stamp,
    leader: Asker,
    progress: watch::Sender<Progress>,
    frames: Mutex<Vec<Frame>>,
    state: Mutex<State>,
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
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    /// Whether he came after those who wait had been counted.
    is_late: bool,
}

/// The events of a flight, from the first one on.
#[derive(Debug)]
pub struct Live {
    waiter: Waiter,
    at: usize,
    wants_usage: bool,
}

impl Streamed {
    /// What it used, if it says so.
    pub(super) fn usage(&self) -> Option<Usage> {
        match self {
            Streamed::Answer(answer) => answer.usage,
            Streamed::Uncertain(usage) => *usage,
            Streamed::Faulty(_) => None,
        }
    }
}

impl Phase {
    fn is_over(&self) -> bool {
        match self {
            Phase::Waiting | Phase::Streaming(_) => false,
            Phase::Streamed(_)
            | Phase::Whole(_)
            | Phase::Passed(_)
            | Phase::Failed(_)
            | Phase::Landed
            | Phase::Died => true,
        }
    }
}

impl Asker {
    /// Whether what `leader` was told is what this one would be told: a refusal may be due to the credential, that of a
    /// request to its form, and any failure to having tried too seldom.
    pub(super) fn fails_like(&self, leader: &Asker, status: Option<u16>) -> bool {
        let is_refusal = status.is_some_and(|status| (400..500).contains(&status));
        let is_of_form = matches!(status, Some(400 | 422));
        (self.credential == leader.credential || !is_refusal)
            && (self.form == leader.form || !is_of_form)
            && (leader.may_wait || !self.may_wait)
    }
}

impl Shared {
    fn new(began: u64, plan: Plan) -> (Arc<Shared>, Waiter) {
        let (progress, receiver) = watch::channel(Progress { phase: Phase::Waiting, frames: 0 });
        let state = State { terms: plan.terms, is_open: true, forbidden: None, is_counted: false };
        let shared = Arc::new(Shared {
            began,
            stamp: plan.stamp,
            leader: plan.asker,
            progress,
            frames: Mutex::default(),
            state: Mutex::new(state),
        });
        let waiter = Waiter { shared: Arc::clone(&shared), progress: receiver, is_late: false };
        (shared, waiter)
    }

    fn is_current(&self, asked: &Terms, is_current: impl Fn(Stamp, &[Subject]) -> bool) -> bool {
        let state = lock(&self.state);
        // What a joiner depends on may have been invalidated since too.
        let tags: Vec<Subject> = state.terms.tags.iter().chain(&asked.tags).copied().collect();
        is_current(self.stamp, &tags)
    }

    /// A place in the flight, if its terms can be what is asked.
    fn joined(self: &Arc<Self>, asked: &Terms) -> Option<Waiter> {
        let mut state = lock(&self.state);
        let missing: Vec<Subject> =
            asked.tags.iter().copied().filter(|tag| !state.terms.tags.contains(tag)).collect();
        let fits = state.is_open && state.terms.tags.len() + missing.len() <= TAGS_MAX;
        let changes = !missing.is_empty() || asked.ttl_seconds < state.terms.ttl_seconds;
        if (changes && !fits) || (asked.tells_usage && !state.terms.tells_usage) {
            return None;
        }
        state.terms.tags.extend(missing);
        state.terms.ttl_seconds = state.terms.ttl_seconds.min(asked.ttl_seconds);
        let progress = self.progress.subscribe();
        Some(Waiter { shared: Arc::clone(self), progress, is_late: state.is_counted })
    }
}

impl Board {
    /// No flights.
    pub(super) fn new() -> Arc<Board> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Board { shards, begun: AtomicU64::new(0) })
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

    fn open(self: &Arc<Self>, shard: &mut Shard, plan: Plan) -> (Waiter, Flight) {
        let key = plan.key;
        let (shared, waiter) = Shared::new(self.next(), plan);
        let before = shard.open.insert(key, Arc::clone(&shared));
        shard.alone.extend(before.map(|before| (key, before)));
        (waiter, Flight { shared, board: Arc::clone(self), key })
    }

    /// A flight that nobody else can join.
    pub(super) fn alone(self: &Arc<Self>, plan: Plan) -> (Waiter, Flight) {
        let key = plan.key;
        let (shared, waiter) = Shared::new(self.next(), plan);
        self.shard(&key).alone.push((key, Arc::clone(&shared)));
        (waiter, Flight { shared, board: Arc::clone(self), key })
    }

    /// Sees to it that no flight of `key` keeps anything, and that nobody joins one any more.
    pub(super) fn forbid(&self, key: &Key) {
        let mut shard = self.shard(key);
        let open = shard.open.remove(key);
        shard.alone.extend(open.map(|open| (*key, open)));
        shard.all(key).for_each(|flight| lock(&flight.state).forbidden = Some("deleted"));
    }

    /// Flights in the air.
    pub(super) fn len(&self) -> usize {
        let flights = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            shard.open.len() + shard.alone.len()
        };
        self.shards.iter().map(flights).sum()
    }

    fn next(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(key.0[31]) % SHARDS])
    }
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
    /// Events will come.
    pub(super) fn begin(&self, headers: Headers) {
        let headers = Arc::new(headers);
        self.shared.progress.send_modify(|progress| progress.phase = Phase::Streaming(headers));
    }

    /// An event has come; for those who have not asked what was used it may be another, or nothing.
    pub(super) fn push(&self, bytes: Bytes, without_usage: Option<Bytes>) {
        if bytes.is_empty() {
            return;
        }
        let mut frames = lock(&self.shared.frames);
        frames.push(Frame { bytes, without_usage });
        let count = frames.len();
        drop(frames);
        self.shared.progress.send_modify(|progress| progress.frames = count);
    }

    /// Tells all who wait how it ended. Those who come later may still join, until [`Flight::leave`].
    pub(super) fn settle(&self, phase: Phase) {
        self.shared.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Ends with something that nobody else shall get: whoever comes from now on flies anew.
    pub(super) fn end(&self, phase: Phase) {
        self.leave();
        self.settle(phase);
    }

    /// On what terms the answer is kept, or why it is not. From here on they cannot be changed, and no flight that began
    /// before this one keeps its older answer.
    pub(super) fn close_terms(&self) -> Result<Terms, &'static str> {
        let shard = self.board.shard(&self.key);
        let mut state = lock(&self.shared.state);
        state.is_open = false;
        if let Some(why) = state.forbidden {
            return Err(why);
        }
        let older = shard.all(&self.key).filter(|flight| flight.began < self.shared.began);
        older.for_each(|flight| _ = lock(&flight.state).forbidden.get_or_insert("outrun"));
        Ok(state.terms.clone())
    }

    /// The answer is kept, and depends on all these.
    pub(super) fn kept_with(&self, tags: Vec<Subject>) {
        lock(&self.shared.state).terms.tags = tags;
    }

    /// Counts those who wait, but for one: the answer was made for him. Whoever comes later is told that he is late.
    pub(super) fn count(&self) -> u64 {
        let mut state = lock(&self.shared.state);
        state.is_counted = true;
        self.shared.progress.receiver_count().saturating_sub(1) as u64
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
        }
        leaves
    }

    /// Returns once nobody waits any more; from then on the flight is off the board.
    ///
    /// Cancel safety: may be dropped and called again.
    pub(super) async fn abandoned(&self) {
        loop {
            self.shared.progress.closed().await;
            if self.leave_if(|shared| shared.progress.receiver_count() == 0) {
                return;
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.leave();
        self.shared.progress.send_if_modified(|progress| {
            let is_over = progress.phase.is_over();
            if !is_over {
                progress.phase = Phase::Died;
            }
            !is_over
        });
    }
}

impl Waiter {
    /// Whoever the answer is made for.
    pub(super) fn leader(&self) -> &Asker {
        &self.shared.leader
    }

    /// Whether those who wait were counted without this one.
    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }

    /// Waits until something has come.
    pub(super) async fn begun(&mut self) -> Phase {
        self.until(|phase| !matches!(phase, Phase::Waiting)).await
    }

    /// Waits until all has come.
    pub(super) async fn ended(&mut self) -> Phase {
        self.until(Phase::is_over).await
    }

    /// The events from the first one on.
    pub(super) fn into_live(self, wants_usage: bool) -> Live {
        Live { waiter: self, at: 0, wants_usage }
    }

    async fn until(&mut self, is_it: impl Fn(&Phase) -> bool) -> Phase {
        match self.progress.wait_for(|progress| is_it(&progress.phase)).await {
            Ok(progress) => progress.phase.clone(),
            Err(_) => Phase::Died,
        }
    }
}

impl Live {
    /// The next bytes: all events that have come since the last time; none after the last one.
    ///
    /// Cancel safety: what was not returned comes next time.
    ///
    /// # Errors
    /// What broke the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let (phase, frames) = {
                let progress = self.waiter.progress.borrow_and_update();
                (progress.phase.clone(), progress.frames)
            };
            let bytes = self.take(frames);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            match phase {
                Phase::Waiting | Phase::Streaming(_) => {}
                Phase::Streamed(_) | Phase::Whole(_) | Phase::Passed(_) | Phase::Landed => return Ok(None),
                Phase::Failed(error) => return Err(error),
                Phase::Died => return Err(died()),
            }
            if self.waiter.progress.changed().await.is_err() {
                return Err(died());
            }
        }
    }

    fn take(&mut self, until: usize) -> Bytes {
        let frames = lock(&self.waiter.shared.frames);
        let wants_usage = self.wants_usage;
        let wanted = |frame: &Frame| match &frame.without_usage {
            Some(bytes) if !wants_usage => bytes.clone(),
            Some(_) | None => frame.bytes.clone(),
        };
        let new = frames.get(self.at..until).unwrap_or_default();
        self.at = until.max(self.at);
        let mut wanted = new.iter().map(wanted).filter(|bytes| !bytes.is_empty());
        let Some(first) = wanted.next() else { return Bytes::new() };
        let Some(second) = wanted.next() else { return first };
        let mut joined = BytesMut::from(&first[..]);
        std::iter::once(second).chain(wanted).for_each(|bytes| joined.extend_from_slice(&bytes));
        joined.freeze()
    }
}

/// The error of those whose answer's maker is gone, and who cannot ask again.
pub(super) fn died() -> Error {
    Error::new(Kind::Internal, "the task that made this answer died")
}

/// A poisoned lock is taken all the same: what it guards is whole after any of the single calls made under it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;

    const KEY: Key = Key([1; 32]);

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
    async fn whoever_joins_late_gets_every_event_from_the_first_one() {
        let board = Board::new();
        let (first, flight) = join(&board, usage());
        let flight = flight.unwrap();
        flight.begin(Headers::new());
        flight.push("a".into(), None);
        let mut early = first.into_live(false);
        assert_eq!(early.next().await.unwrap().unwrap(), "a");
        flight.push("b".into(), Some("p".into()));
        flight.push("u".into(), Some(Bytes::new()));
        let (late, none) = join(&board, usage());
        assert!(none.is_none());
        let (mut late, mut plain) = (late.into_live(true), join(&board, usage()).0.into_live(false));
        assert_eq!(late.next().await.unwrap().unwrap(), "abu");
        assert_eq!(plain.next().await.unwrap().unwrap(), "ap", "usage is for those who want it");
        assert!(poll!(pin!(plain.next())).is_pending());
        flight.settle(Phase::Streamed(Streamed::Uncertain(None)));
        assert!(plain.next().await.unwrap().is_none());
        drop(late);
        assert_eq!((flight.count(), board.len()), (1, 1), "who has left is not counted");
        let (latest, _) = join(&board, usage());
        assert!(latest.is_late() && !plain.waiter.is_late());
        drop(flight);
        assert_eq!(board.len(), 0);
    }

    #[tokio::test]
    async fn a_break_is_told_after_what_came_before_it() {
        let board = Board::new();
        let (waiter, flight) = join(&board, usage());
        let flight = flight.unwrap();
        flight.begin(Headers::new());
        flight.push("a".into(), None);
        flight.end(Phase::Failed(Error::new(Kind::Upstream, "cut")));
        let mut live = waiter.into_live(false);
        assert_eq!(live.next().await.unwrap().unwrap(), "a");
        assert_eq!(live.next().await.unwrap_err().kind(), Kind::Upstream);
        assert_eq!(board.len(), 0, "whoever comes now flies anew");
    }

    #[tokio::test]
    async fn a_dead_leader_is_noticed() {
        let board = Board::new();
        let (mut waiter, flight) = join(&board, usage());
        drop(flight);
        assert!(matches!(waiter.begun().await, Phase::Died));
        assert!(join(&board, usage()).1.is_some());
    }

    #[tokio::test]
    async fn a_flight_is_abandoned_when_the_last_one_leaves() {
        let board = Board::new();
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
        let board = Board::new();
        let (mut first, flight) = join(&board, usage());
        let (second, other) = join_if(&board, usage(), false).unwrap();
        let (flight, other) = (flight.unwrap(), other.unwrap());
        assert!(join(&board, usage()).1.is_none(), "the second is joined");
        flight.end(Phase::Failed(Error::new(Kind::Upstream, "down")));
        assert!(matches!(first.ended().await, Phase::Failed(_)));
        assert_eq!(board.len(), 1, "the first leaves the second in the air");
        drop((second, other));
        assert_eq!(board.len(), 0);
    }

    #[tokio::test]
    async fn those_who_join_agree_on_terms() {
        let board = Board::new();
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
        let board = Board::new();
        let lead = |is_current| board.lead(plan(usage()), move |_, _| is_current);
        let (_waiter, flight) = lead(true).unwrap();
        assert!(lead(true).is_none());
        assert_eq!(flight.count(), 0);
        assert!(lead(false).is_some(), "it was invalidated since");
    }

    #[tokio::test]
    async fn the_shortest_lifetime_holds() {
        let board = Board::new();
        let living = |ttl_seconds| Terms { ttl_seconds, ..Terms::default() };
        let (_first, flight) = join(&board, living(500));
        let flight = flight.unwrap();
        let _others = [join(&board, living(5)), join(&board, living(900))];
        assert_eq!(flight.close_terms().unwrap().ttl_seconds, 5);
        assert!(join_if(&board, living(4), true).is_none(), "too late to shorten it");
    }

    #[tokio::test]
    async fn what_is_deleted_is_kept_by_nobody() {
        let board = Board::new();
        let (_one, open) = join(&board, usage());
        let (_two, alone) = board.alone(plan(usage()));
        let (_three, other) = board.alone(Plan { key: Key([2; 32]), ..plan(usage()) });
        board.forbid(&KEY);
        assert_eq!(open.unwrap().close_terms().unwrap_err(), "deleted");
        assert_eq!(alone.close_terms().unwrap_err(), "deleted");
        assert!(other.close_terms().is_ok());
        drop((alone, other));
        assert_eq!(board.len(), 0);
    }

    #[tokio::test]
    async fn an_older_answer_does_not_replace_a_newer_one() {
        let board = Board::new();
        let (_one, oldest) = join(&board, usage());
        let (_two, older) = board.alone(plan(usage()));
        let (_three, newer) = board.alone(plan(usage()));
        assert!(older.close_terms().is_ok());
        assert_eq!(oldest.unwrap().close_terms().unwrap_err(), "outrun");
        assert!(newer.close_terms().is_ok(), "the newest replaces both");
    }

    #[test]
    fn a_failure_is_told_to_those_who_asked_in_the_same_way() {
        let one = Asker { may_wait: true, ..Asker::default() };
        let other = Asker { credential: Some("key".into()), ..one.clone() };
        let stream = Asker { form: Form { streams: true, wants_usage: true }, ..one.clone() };
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
