//! What is known of one connection, in a word that its task writes for each request and the accept loop reads.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::task::AtomicWaker;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
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
    /// It was answered, and its client is still sending.
    Lingering = 5,
}

/// What is known of a connection, in one word: the phase, whether it has shown a key, whether it is one of the
/// reserve, and the milliseconds from the start of the server to the begin of the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedState(pub(super) u64);

impl PackedState {
    pub(super) const HAS_KEY: u64 = 8;
    pub(super) const IS_RESERVE: u64 = 16;
    const SINCE: u32 = 8;

    pub(super) fn new(phase: ConnectionPhase, flags: u64, since: u64) -> PackedState {
        PackedState(phase as u64 | flags | since << PackedState::SINCE)
    }

    pub(super) fn phase(self) -> ConnectionPhase {
        match self.0 & 7 {
            0 => ConnectionPhase::Free,
            1 => ConnectionPhase::New,
            2 => ConnectionPhase::Idle,
            3 => ConnectionPhase::Busy,
            5 => ConnectionPhase::Lingering,
            _ => ConnectionPhase::Evicted,
        }
    }

    pub(super) fn flags(self) -> u64 {
        self.0 & (PackedState::HAS_KEY | PackedState::IS_RESERVE)
    }

    pub(super) fn has_key(self) -> bool {
        self.0 & PackedState::HAS_KEY != 0
    }

    pub(super) fn is_reserve(self) -> bool {
        self.0 & PackedState::IS_RESERVE != 0
    }

    pub(super) fn since(self) -> u64 {
        self.0 >> PackedState::SINCE
    }

    pub(super) fn is_waiting(self) -> bool {
        matches!(self.phase(), ConnectionPhase::New | ConnectionPhase::Idle | ConnectionPhase::Lingering)
    }

    /// How soon the connection makes room: the smaller first. None if it stays.
    pub(super) fn rank(self, spares_keys: bool) -> Option<(u8, u64)> {
        if self.is_reserve() || matches!(self.phase(), ConnectionPhase::Free | ConnectionPhase::Evicted) {
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
pub(super) struct ConnectionSlot {
    pub(super) word: AtomicU64,
    /// The task of the connection.
    pub(super) waker: AtomicWaker,
}

impl ConnectionSlot {
    pub(super) fn word(&self) -> PackedState {
        PackedState(self.word.load(Ordering::Acquire))
    }

    /// Changes the word, unless the connection has been evicted.
    pub(super) fn change(&self, next: impl Fn(PackedState) -> PackedState) -> bool {
        let change =
            |word| (PackedState(word).phase() != ConnectionPhase::Evicted).then(|| next(PackedState(word)).0);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// Evicts the connection, if its word is still this one: a request that has begun meanwhile is answered.
    pub(super) fn evict(&self, word: PackedState) -> bool {
        let evicted = PackedState::new(ConnectionPhase::Evicted, word.flags(), word.since());
        let is_evicted =
            self.word.compare_exchange(word.0, evicted.0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if is_evicted {
            self.waker.wake();
        }
        is_evicted
    }
}
