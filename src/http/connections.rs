//! The places of connections: which are taken, since when, and which connection makes room for a new one.
//!
//! The one idea: each connection has a word that says what it does and since when. Its own task writes it, without a
//! lock; the accept loop reads all of them when it needs a place, and marks the word of the one that goes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;

/// Places beyond the limit, from which probes are answered when all others are taken by connections that stay, and in
/// which a client may show its key.
pub(super) const RESERVE: usize = 64;
/// How long a connection of the reserve may take for its first head.
const RESERVE_HEAD: Duration = Duration::from_secs(2);
/// How long the accept loop waits for an evicted connection to end before it looks again.
const EVICTION: Duration = Duration::from_millis(50);

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Free = 0,
    /// No request has come yet.
    New = 1,
    /// It waits for its next request.
    Idle = 2,
    /// A request is being answered.
    Busy = 3,
    /// It has lost its place, and ends.
    Evicted = 4,
}

/// What is known of a connection, in one word: the phase, whether it has shown a key, whether it is one of the
/// reserve, and the milliseconds from the start of the server to the begin of the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const HAS_KEY: u64 = 8;
    const IS_RESERVE: u64 = 16;
    const SINCE: u32 = 8;

    fn new(phase: Phase, flags: u64, since: u64) -> Word {
        Word(phase as u64 | flags | since << Word::SINCE)
    }

    fn phase(self) -> Phase {
        match self.0 & 7 {
            0 => Phase::Free,
            1 => Phase::New,
            2 => Phase::Idle,
            3 => Phase::Busy,
            _ => Phase::Evicted,
        }
    }

    fn flags(self) -> u64 {
        self.0 & (Word::HAS_KEY | Word::IS_RESERVE)
    }

    fn has_key(self) -> bool {
        self.0 & Word::HAS_KEY != 0
    }

    fn is_reserve(self) -> bool {
        self.0 & Word::IS_RESERVE != 0
    }

    fn since(self) -> u64 {
        self.0 >> Word::SINCE
    }

    fn is_waiting(self) -> bool {
        matches!(self.phase(), Phase::New | Phase::Idle)
    }

    /// How soon the connection makes room: the smaller first. None if it stays.
    fn rank(self, spares_keys: bool) -> Option<(u8, u64)> {
        if self.is_reserve() || matches!(self.phase(), Phase::Free | Phase::Evicted) {
            return None;
        }
        let class = match (self.has_key(), self.is_waiting()) {
            (false, true) => 0,
            // It has shown no key, so what it is being sent is a refusal or a public page.
            (false, false) => 1,
            (true, true) if !spares_keys => 2,
            (true, _) => return None,
        };
        Some((class, self.since()))
    }
}

/// A place. On a cache line of its own: its word is written for each request.
#[derive(Default)]
#[repr(align(64))]
struct Slot {
    word: AtomicU64,
    /// The task of the connection.
    waker: AtomicWaker,
}

impl Slot {
    fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Changes the word, unless the connection has been evicted.
    fn change(&self, next: impl Fn(Word) -> Word) -> bool {
        let change = |word| (Word(word).phase() != Phase::Evicted).then(|| next(Word(word)).0);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// Evicts the connection, if its word is still this one: a request that has begun meanwhile is answered.
    fn evict(&self, word: Word) -> bool {
        let evicted = Word::new(Phase::Evicted, word.flags(), word.since());
        let is_evicted =
            self.word.compare_exchange(word.0, evicted.0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if is_evicted {
            self.waker.wake();
        }
        is_evicted
    }
}

/// Which places are taken. An evicted connection counts no more, though its slot is taken until its task has ended.
struct Room {
    free: Vec<usize>,
    regular: usize,
    reserve: usize,
}

impl Room {
    fn count(&mut self, word: Word) -> &mut usize {
        if word.is_reserve() { &mut self.reserve } else { &mut self.regular }
    }
}

/// How long connections may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the first head of a connection.
    pub(super) first_head: Duration,
    /// For each further one, the idle time before it included.
    pub(super) next_head: Duration,
}

/// All places. Shared by `Arc`.
pub(super) struct Connections {
    slots: Box<[Slot]>,
    room: Mutex<Room>,
    limit: usize,
    /// Where there are no keys, every connection counts as one that has shown one.
    flags: u64,
    patience: Patience,
    started: Instant,
    freed: Notify,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// `limit` places and the reserve.
    pub(super) fn new(
        limit: usize,
        has_keys: bool,
        patience: Patience,
        metrics: Arc<Metrics>,
    ) -> Connections {
        // As many again as the reserve, for evicted connections whose tasks have not ended yet.
        let slots: Box<[Slot]> = (0..limit + 2 * RESERVE).map(|_| Slot::default()).collect();
        let room = Room { free: (0..slots.len()).rev().collect(), regular: 0, reserve: 0 };
        Connections {
            slots,
            room: Mutex::new(room),
            limit,
            flags: if has_keys { 0 } else { Word::HAS_KEY },
            patience,
            started: Instant::now(),
            freed: Notify::new(),
            metrics,
        }
    }

    /// A place for a new connection: a free one, that of the connection that has waited longest, or one of the reserve.
    ///
    /// Cancel safety: safe. Cost: once all places are taken, a look at each.
    pub(super) async fn enter(self: &Arc<Connections>, peer: IpAddr) -> Connection {
        loop {
            let freed = self.freed.notified();
            if let Some(slot) = self.take_slot() {
                return Connection {
                    slot,
                    peer,
                    has_rest: AtomicBool::new(false),
                    rest: Mutex::default(),
                    is_answered: AtomicBool::new(false),
                    has_ended: AtomicBool::new(false),
                    may_be_continued: AtomicBool::new(false),
                    connections: Arc::clone(self),
                };
            }
            let _ = tokio::time::timeout(EVICTION, freed).await;
        }
    }

    fn take_slot(&self) -> Option<usize> {
        let mut room = self.room();
        if room.regular >= self.limit {
            // A newcomer has shown no key yet, so it takes no place from those who have.
            self.make_room(&mut room, self.flags == 0);
        }
        let mut flags = self.flags;
        if room.regular >= self.limit {
            flags |= Word::IS_RESERVE;
            if room.reserve >= RESERVE {
                self.make_room_in_reserve(&mut room);
            }
        }
        let slot = room.free.pop()?;
        let word = Word::new(Phase::New, flags, self.now());
        *room.count(word) += 1;
        self.slots[slot].word.store(word.0, Ordering::Release);
        self.metrics.connections.set(self.taken(&room));
        Some(slot)
    }

    /// Evicts the connection that has waited longest; whether there was one.
    fn make_room(&self, room: &mut Room, spares_keys: bool) -> bool {
        let rank = |slot: &Slot| {
            let word = slot.word();
            word.rank(spares_keys).map(|rank| (rank, word))
        };
        // One that is no longer as it was seen is looked for again, a few times.
        for _ in 0..4 {
            let longest = self.slots.iter().filter_map(|slot| rank(slot).map(|found| (found, slot)));
            let Some(((_, word), slot)) = longest.min_by_key(|((rank, _), _)| *rank) else { return false };
            if self.evict(room, slot, word) {
                return true;
            }
        }
        false
    }

    fn make_room_in_reserve(&self, room: &mut Room) {
        let longest = self.slots.iter().map(|slot| (slot.word(), slot));
        let longest = longest.filter(|(word, _)| word.is_reserve() && word.phase() != Phase::Evicted);
        if let Some((word, slot)) = longest.min_by_key(|(word, _)| word.since()) {
            self.evict(room, slot, word);
        }
    }

    fn evict(&self, room: &mut Room, slot: &Slot, word: Word) -> bool {
        let is_evicted = slot.evict(word);
        if is_evicted {
            *room.count(word) -= 1;
            self.metrics.connections_evicted.inc();
        }
        is_evicted
    }

    /// Ends the connections that have waited for too long. To be called about every second.
    pub(super) fn expire(&self) {
        let now = self.now();
        let mut room = self.room();
        for slot in &self.slots {
            let word = slot.word();
            let patience = match word.phase() {
                Phase::New if word.is_reserve() => RESERVE_HEAD,
                Phase::New => self.patience.first_head,
                Phase::Idle => self.patience.next_head,
                Phase::Free | Phase::Busy | Phase::Evicted => continue,
            };
            if u128::from(now.saturating_sub(word.since())) >= patience.as_millis() && slot.evict(word) {
                *room.count(word) -= 1;
            }
        }
    }

    /// Evicts a connection that waits, if there is one: file descriptors have run out.
    pub(super) fn relieve(&self) {
        self.make_room(&mut self.room(), false);
    }

    fn taken(&self, room: &Room) -> i64 {
        i64::try_from(self.slots.len() - room.free.len()).unwrap_or(i64::MAX)
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One connection, as its task and its requests share it. Dropping it frees its place.
pub(super) struct Connection {
    connections: Arc<Connections>,
    slot: usize,
    peer: IpAddr,
    has_rest: AtomicBool,
    /// The body of the last request, if its handler left it unread.
    rest: Mutex<Option<Incoming>>,
    /// Whether the head of the answer to the present request is on its way.
    is_answered: AtomicBool,
    /// Whether the present answer has been handed over whole.
    has_ended: AtomicBool,
    /// Whether the client of the present request understands interim answers.
    may_be_continued: AtomicBool,
}

impl Connection {
    /// Whom the connection is with.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    fn slot(&self) -> &Slot {
        &self.connections.slots[self.slot]
    }

    fn begin_phase(&self, phase: Phase) -> bool {
        let now = self.connections.now();
        self.slot().change(|word| Word::new(phase, word.flags(), now))
    }

    /// Begins a request. False if the connection has been evicted, so that nothing may be done for it.
    pub(super) fn begin(&self, may_be_continued: bool) -> bool {
        self.is_answered.store(false, Ordering::Relaxed);
        self.has_ended.store(false, Ordering::Relaxed);
        self.may_be_continued.store(may_be_continued, Ordering::Relaxed);
        self.begin_phase(Phase::Busy)
    }

    /// Notes that the head of the answer is known.
    pub(super) fn answer(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Notes that all of the answer has been handed over. It has been sent once the socket is flushed.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Called when everything that was handed over has been sent.
    pub(super) fn flushed(&self) {
        if self.has_ended.swap(false, Ordering::Relaxed) {
            self.begin_phase(Phase::Idle);
        }
    }

    /// Lets the connection count as idle: only its end is still waited for.
    pub(super) fn linger(&self) {
        self.begin_phase(Phase::Idle);
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.slot().word().phase() == Phase::Busy
    }

    /// Whether the head of the answer is known.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// Whether an interim answer may be sent now.
    pub(super) fn may_be_continued(&self) -> bool {
        !self.is_answered() && self.may_be_continued.load(Ordering::Relaxed)
    }

    /// Notes that the connection has shown a key.
    pub(super) fn show_key(&self) {
        if !self.slot().word().has_key() {
            self.slot().change(|word| Word::new(word.phase(), word.flags() | Word::HAS_KEY, word.since()));
        }
    }

    /// Whether the connection has shown a key, or needs none.
    pub(super) fn has_shown_key(&self) -> bool {
        self.slot().word().has_key()
    }

    /// Whether it is one of those beyond the limit.
    pub(super) fn is_reserve(&self) -> bool {
        self.slot().word().is_reserve()
    }

    /// Takes a regular place for a connection of the reserve, for a request that is no probe.
    ///
    /// # Errors
    /// `Unavailable` if all are taken by connections that stay.
    pub(super) fn settle(&self) -> Result<()> {
        if !self.is_reserve() {
            return Ok(());
        }
        let mut room = self.connections.room();
        let is_full = room.regular >= self.connections.limit;
        if is_full && !self.connections.make_room(&mut room, !self.has_shown_key()) {
            return Err(Error::new(Kind::Unavailable, "all connections of http.connections_max are in use"));
        }
        if self.slot().change(|word| Word(word.0 & !Word::IS_RESERVE)) {
            room.reserve -= 1;
            room.regular += 1;
        }
        Ok(())
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.slot().word().phase() == Phase::Evicted
    }

    /// Whom to wake when the connection is evicted. Check [`Connection::is_evicted`] behind it.
    pub(super) fn register(&self, waker: &Waker) {
        self.slot().waker.register(waker);
    }

    /// Takes back a body that was not read to its end.
    pub(super) fn hand_back(&self, body: Incoming) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        self.has_rest.store(true, Ordering::Release);
    }

    /// What was handed back.
    pub(super) fn take_rest(&self) -> Option<Incoming> {
        if !self.has_rest.load(Ordering::Acquire) {
            return None;
        }
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a body was handed back, and the connection did not go on: its client may still be sending.
    pub(super) fn has_rest(&self) -> bool {
        self.has_rest.load(Ordering::Acquire)
    }

    /// Notes that what was handed back has been read to its end.
    pub(super) fn forget_rest(&self) {
        self.has_rest.store(false, Ordering::Release);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let slot = self.slot();
        let mut room = self.connections.room();
        let word = Word(slot.word.swap(Phase::Free as u64, Ordering::AcqRel));
        if word.phase() != Phase::Evicted {
            *room.count(word) -= 1;
        }
        drop(slot.waker.take());
        room.free.push(self.slot);
        self.connections.metrics.connections.set(self.connections.taken(&room));
        drop(room);
        self.connections.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const PATIENCE: Patience =
        Patience { first_head: Duration::from_secs(10), next_head: Duration::from_secs(75) };

    fn places(limit: usize, has_keys: bool) -> Arc<Connections> {
        Arc::new(Connections::new(limit, has_keys, PATIENCE, crate::metrics::unexported()))
    }

    /// A new connection, which is younger than all before it.
    async fn enter(places: &Arc<Connections>) -> Connection {
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        let connection = places.enter(Ipv4Addr::LOCALHOST.into()).await;
        let since = NEXT.fetch_add(1, Ordering::Relaxed);
        connection.slot().change(|word| Word::new(word.phase(), word.flags(), since));
        connection
    }

    /// As many as there are places, each in use once.
    async fn fill(places: &Arc<Connections>, count: usize) -> Vec<Connection> {
        let mut filled = Vec::new();
        for n in 0..count {
            let connection = enter(places).await;
            connection.slot().word.store(Word::new(Phase::Idle, places.flags, n as u64).0, Ordering::Release);
            filled.push(connection);
        }
        filled
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room() {
        let places = places(4, false);
        let held = fill(&places, 4).await;
        assert!(held[0].begin(true), "the longest, but busy");
        let newcomer = enter(&places).await;
        assert!(!newcomer.is_reserve());
        let evicted: Vec<_> = held.iter().map(Connection::is_evicted).collect();
        assert_eq!(evicted, [false, true, false, false]);
        assert!(!held[1].begin(true), "nothing is begun for a connection that has lost its place");
    }

    #[tokio::test]
    async fn a_request_that_has_begun_is_not_evicted() {
        let places = places(1, false);
        let held = fill(&places, 1).await;
        let seen = held[0].slot().word();
        assert!(held[0].begin(true));
        assert!(!held[0].slot().evict(seen));
        assert!(!held[0].is_evicted());
    }

    #[tokio::test]
    async fn those_without_a_key_take_no_place_from_those_with_one() {
        let places = places(4, true);
        let held = fill(&places, 4).await;
        for connection in &held[..2] {
            connection.show_key();
        }
        let mut newcomers = Vec::new();
        for _ in 0..200 {
            newcomers.push(enter(&places).await);
            // Evicted connections end soon.
            newcomers.retain(|connection| !connection.is_evicted());
        }
        assert!(held[..2].iter().all(|connection| !connection.is_evicted()));
        assert!(held[2..].iter().all(Connection::is_evicted));
        assert_eq!(newcomers.len(), 2);
        newcomers[0].show_key();
        newcomers[0].settle().unwrap();
    }

    #[tokio::test]
    async fn with_every_place_in_use_the_reserve_answers_probes() {
        let places = places(4, true);
        let held = fill(&places, 4).await;
        for connection in &held {
            connection.show_key();
            assert!(connection.begin(true));
        }
        let probe = enter(&places).await;
        assert!(probe.is_reserve() && probe.begin(true));
        probe.show_key();
        assert_eq!(probe.settle().unwrap_err().kind(), Kind::Unavailable);
        held[2].end();
        held[2].flushed();
        probe.settle().unwrap();
        assert!(held[2].is_evicted() && !probe.is_reserve());
        let mut flood = Vec::new();
        for _ in 0..3 * RESERVE {
            flood.push(enter(&places).await);
            flood.retain(|connection| !connection.is_evicted());
        }
        assert_eq!(flood.len(), RESERVE, "newcomers take the places of those that have said nothing");
        assert!(!probe.is_evicted());
    }

    #[tokio::test]
    async fn places_come_back() {
        let places = places(2, true);
        for _ in 0..1000 {
            let pair = [enter(&places).await, enter(&places).await];
            assert!(pair.iter().all(|connection| !connection.is_reserve() && !connection.is_evicted()));
            let third = enter(&places).await;
            assert!(pair[0].is_evicted() && !third.is_reserve());
        }
        let room = places.room();
        assert_eq!((room.regular, room.reserve, room.free.len()), (0, 0, places.slots.len()));
    }

    #[tokio::test]
    async fn waiting_has_an_end() {
        let metrics = crate::metrics::unexported();
        let no_time = Patience { first_head: Duration::ZERO, next_head: Duration::ZERO };
        for (patience, is_over) in [(PATIENCE, false), (no_time, true)] {
            let places = Arc::new(Connections::new(3, true, patience, Arc::clone(&metrics)));
            let [new, idle, busy] = [enter(&places).await, enter(&places).await, enter(&places).await];
            idle.begin_phase(Phase::Idle);
            busy.begin(true);
            places.expire();
            let evicted = [new, idle, busy].map(|connection| connection.is_evicted());
            assert_eq!(evicted, [is_over, is_over, false]);
        }
    }
}
