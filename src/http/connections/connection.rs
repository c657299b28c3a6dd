//! One connection, as its task and its requests share it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Instant;

use hyper::body::Incoming;

use super::Connections;
use super::buffers::Buffers;
use super::slot::{ConnectionPhase, ConnectionSlot, PackedState};
use crate::error::{Error, Kind, Result};
use crate::sync::lock;

/// What a connection may hold that waits amid a body, or amid an answer that has reserved nothing: what it reads into, a piece
/// that its handler has not taken, and as much of a body or an answer as is not counted.
const BUFFERS_BYTES: usize = 64 * 1024;
/// So few bytes leave most of that unused.
const FEW_BYTES: usize = 4 * 1024;
const FEW_BYTES_COST: usize = 16 * 1024;

/// One connection, as its task and its requests share it. Dropping it frees its place.
pub(in crate::http) struct Connection {
    pub(super) connections: Arc<Connections>,
    pub(super) slot: usize,
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
    /// Whether the present answer has reserved what it needs until it is sent.
    is_held: AtomicBool,
    /// Whether a request was begun in the present turn.
    has_answered: AtomicBool,
    /// Whether a part of a head has come, and the rest is waited for.
    has_begun_head: AtomicBool,
}

impl Connection {
    pub(super) fn new(connections: Arc<Connections>, slot: usize, peer: IpAddr) -> Connection {
        Connection {
            connections,
            slot,
            peer,
            has_rest: AtomicBool::new(false),
            rest: Mutex::default(),
            is_answered: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            may_be_continued: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            has_answered: AtomicBool::new(false),
            has_begun_head: AtomicBool::new(false),
        }
    }

    /// Whom the connection is with.
    pub(in crate::http) fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(super) fn slot(&self) -> &ConnectionSlot {
        &self.connections.slots[self.slot]
    }

    pub(super) fn begin_phase(&self, phase: ConnectionPhase, now: Instant) -> bool {
        let now = self.connections.milliseconds(now);
        self.slot().change(|word| PackedState::new(phase, word.flags(), now))
    }

    /// Notes that the runtime has begun to serve the connection again.
    pub(in crate::http) fn begin_turn(&self) {
        self.has_answered.store(false, Ordering::Relaxed);
    }

    /// Waits for a turn in which no request was answered yet: of many requests that come at once, one is answered in each turn, so
    /// that other connections do not wait for all of them. Cost for the first one: a load and a store.
    pub(in crate::http) async fn await_turn(&self) {
        if self.has_answered.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        self.has_answered.store(true, Ordering::Relaxed);
    }

    /// Begins a request. False if the connection has been evicted, so that nothing may be done for it.
    pub(in crate::http) fn begin(&self, now: Instant, may_be_continued: bool) -> bool {
        self.is_answered.store(false, Ordering::Relaxed);
        self.has_ended.store(false, Ordering::Relaxed);
        self.may_be_continued.store(may_be_continued, Ordering::Relaxed);
        self.begin_phase(ConnectionPhase::Busy, now)
    }

    /// Notes that the head of the answer is known, and whether the answer has reserved what it needs until it is sent.
    pub(in crate::http) fn answer(&self, is_held: bool) {
        self.is_answered.store(true, Ordering::Relaxed);
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Whether the answer has reserved what it needs until it is sent.
    pub(in crate::http) fn is_held(&self) -> bool {
        self.is_answered() && self.is_held.load(Ordering::Relaxed)
    }

    /// Reserves what the connection holds beyond an idle one while it waits for its client amid a head, a body or an answer, of
    /// which so many bytes are here. Those that have shown no key share a part of the budget.
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`.
    pub(in crate::http) fn hold_buffers(&self, held: &mut Option<Buffers>, bytes: usize) -> Result<()> {
        let needed = match bytes {
            0 => return Ok(()),
            1..=FEW_BYTES => FEW_BYTES_COST,
            _ => BUFFERS_BYTES,
        };
        let held = held.get_or_insert_with(|| Buffers::new(&self.connections));
        held.cover(needed, self.has_shown_key())
    }

    /// Notes, while the client is waited for, whether a part of a head has come.
    pub(in crate::http) fn note_head(&self, has_begun: bool) {
        self.has_begun_head.store(has_begun, Ordering::Relaxed);
    }

    /// Whether the rest of a head was waited for at the last read.
    pub(in crate::http) fn has_begun_head(&self) -> bool {
        self.has_begun_head.load(Ordering::Relaxed)
    }

    /// Notes that all of the answer has been handed over. It has been sent once the socket is flushed.
    pub(in crate::http) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Called when everything that was handed over has been sent.
    pub(in crate::http) fn flushed(&self) {
        if self.has_ended.swap(false, Ordering::Relaxed) {
            self.begin_phase(ConnectionPhase::Idle, Instant::now());
        }
    }

    /// Notes that only the end of what the client sends is still waited for.
    pub(in crate::http) fn linger(&self) {
        self.begin_phase(ConnectionPhase::Lingering, Instant::now());
    }

    /// Whether a request is being answered.
    pub(in crate::http) fn is_busy(&self) -> bool {
        self.slot().word().phase() == ConnectionPhase::Busy
    }

    /// Whether a request is awaited.
    pub(in crate::http) fn awaits_request(&self) -> bool {
        matches!(self.slot().word().phase(), ConnectionPhase::New | ConnectionPhase::Idle)
    }

    /// Whether the head of the answer is known.
    pub(in crate::http) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// Whether an interim answer may be sent now.
    pub(in crate::http) fn may_be_continued(&self) -> bool {
        !self.is_answered() && self.may_be_continued.load(Ordering::Relaxed)
    }

    /// Notes that the connection has shown a key.
    pub(in crate::http) fn show_key(&self) {
        if !self.slot().word().has_key() {
            self.slot().change(|word| {
                PackedState::new(word.phase(), word.flags() | PackedState::HAS_KEY, word.since())
            });
        }
    }

    /// Whether the connection has shown a key, or needs none.
    pub(in crate::http) fn has_shown_key(&self) -> bool {
        self.slot().word().has_key()
    }

    /// Whether it is one of those beyond the limit.
    pub(in crate::http) fn is_reserve(&self) -> bool {
        self.slot().word().is_reserve()
    }

    /// Takes a regular place for a connection of the reserve, for a request that is no probe.
    ///
    /// # Errors
    /// `Unavailable` if all are taken by connections that stay.
    pub(in crate::http) fn settle(&self) -> Result<()> {
        if !self.is_reserve() {
            return Ok(());
        }
        let mut occupancy = self.connections.occupancy();
        let is_full = occupancy.regular >= self.connections.limit;
        if is_full && !self.connections.evict_longest(&mut occupancy, !self.has_shown_key()) {
            return Err(Error::new(Kind::Unavailable, "all connections of http.connections_max are in use"));
        }
        if self.slot().change(|word| PackedState(word.0 & !PackedState::IS_RESERVE)) {
            occupancy.reserve -= 1;
            occupancy.regular += 1;
        }
        Ok(())
    }

    /// Whether the server stops: the present request is the last one.
    pub(in crate::http) fn is_stopping(&self) -> bool {
        self.connections.is_stopping.load(Ordering::Acquire)
    }

    pub(in crate::http) fn is_evicted(&self) -> bool {
        self.slot().word().phase() == ConnectionPhase::Evicted
    }

    /// The task to wake when the connection is evicted and when the server stops. Check [`Connection::is_evicted`] and
    /// [`Connection::is_stopping`] behind it.
    pub(in crate::http) fn register(&self, waker: &Waker) {
        self.slot().waker.register(waker);
    }

    /// Takes back a body that was not read to its end.
    pub(in crate::http) fn hand_back(&self, body: Incoming) {
        *lock(&self.rest) = Some(body);
        self.has_rest.store(true, Ordering::Release);
    }

    /// What was handed back.
    pub(in crate::http) fn take_rest(&self) -> Option<Incoming> {
        if !self.has_rest.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.rest).take()
    }

    /// Whether a body was handed back, and the connection did not go on: its client may still be sending.
    pub(in crate::http) fn has_rest(&self) -> bool {
        self.has_rest.load(Ordering::Acquire)
    }

    /// Notes that what was handed back has been read to its end.
    pub(in crate::http) fn forget_rest(&self) {
        self.has_rest.store(false, Ordering::Release);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let slot = self.slot();
        let mut occupancy = self.connections.occupancy();
        let word = PackedState(slot.word.swap(ConnectionPhase::Free as u64, Ordering::AcqRel));
        if word.phase() != ConnectionPhase::Evicted {
            *occupancy.count(word) -= 1;
        }
        drop(slot.waker.take());
        occupancy.free.push(self.slot);
        self.connections.metrics.connections.set(self.connections.taken(&occupancy));
        drop(occupancy);
        self.connections.freed.notify_one();
    }
}
