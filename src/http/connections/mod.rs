//! The open connections: their limit, their timeouts, and which one is evicted for a new one.
//!
//! The one idea: each connection has a word with its phase and the begin of that phase. Its own task writes it, without a
//! lock; the accept loop reads all words when it needs a slot, and marks the word of the connection that it evicts.

mod buffers;
mod connection;
mod keyless_budget;
pub(super) mod min_rate;
pub(super) mod request_body;
pub(super) mod response_body;
mod slot;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub(super) use self::buffers::Buffers;
pub(super) use self::connection::Connection;
use self::keyless_budget::KeylessBudget;
use self::slot::{ConnectionPhase, ConnectionSlot, PackedState};
use self::table::Occupancy;
pub(super) use self::table::{Connections, HeadTimeouts};
use crate::byte_budget::ByteBudget;
use crate::http::metrics::HttpMetrics;
use crate::sync::lock;

/// Places beyond the limit, from which probes are answered when all others are taken by connections that stay, and in
/// which a client may show its key.
pub(super) const RESERVE: usize = 64;
/// How long a connection of the reserve may take for its first head.
const RESERVE_HEAD: Duration = Duration::from_secs(2);
/// How long the accept loop waits for an evicted connection to end before it looks again.
const EVICTION: Duration = Duration::from_millis(50);

impl Connections {
    /// `limit` places and the reserve.
    pub(super) fn new(
        limit: usize,
        has_keys: bool,
        timeouts: HeadTimeouts,
        budget: Arc<ByteBudget>,
        metrics: Arc<HttpMetrics>,
    ) -> Connections {
        // As many again as the reserve, for evicted connections whose tasks have not ended yet.
        let slots: Box<[ConnectionSlot]> =
            (0..limit + 2 * RESERVE).map(|_| ConnectionSlot::default()).collect();
        metrics.connections_max.set(i64::try_from(limit).unwrap_or(i64::MAX));
        let occupancy = Occupancy { free: (0..slots.len()).rev().collect(), regular: 0, reserve: 0 };
        Connections {
            slots,
            occupancy: Mutex::new(occupancy),
            limit,
            flags: if has_keys { 0 } else { PackedState::HAS_KEY },
            timeouts,
            started: Instant::now(),
            freed: Notify::new(),
            is_stopping: AtomicBool::new(false),
            keyless: KeylessBudget::of(budget.limit()),
            budget,
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
                return Connection::new(Arc::clone(self), slot, peer);
            }
            let _ = tokio::time::timeout(EVICTION, freed).await;
        }
    }

    fn take_slot(&self) -> Option<usize> {
        let mut occupancy = self.occupancy();
        if occupancy.regular >= self.limit {
            // A newcomer has shown no key yet, so it takes no place from those who have.
            self.evict_longest(&mut occupancy, self.flags == 0);
        }
        let mut flags = self.flags;
        if occupancy.regular >= self.limit {
            flags |= PackedState::IS_RESERVE;
            if occupancy.reserve >= RESERVE {
                self.evict_in_reserve(&mut occupancy);
            }
        }
        let slot = occupancy.free.pop()?;
        let word = PackedState::new(ConnectionPhase::New, flags, self.milliseconds(Instant::now()));
        *occupancy.count(word) += 1;
        self.slots[slot].word.store(word.0, Ordering::Release);
        self.metrics.connections.set(self.taken(&occupancy));
        Some(slot)
    }

    /// Evicts the connection that has waited longest; whether there was one.
    fn evict_longest(&self, occupancy: &mut Occupancy, spares_keys: bool) -> bool {
        let rank = |slot: &ConnectionSlot| {
            let word = slot.word();
            word.rank(spares_keys).map(|rank| (rank, word))
        };
        // One that is no longer as it was seen is looked for again, a few times.
        for _ in 0..4 {
            let longest = self.slots.iter().filter_map(|slot| rank(slot).map(|found| (found, slot)));
            let Some(((_, word), slot)) = longest.min_by_key(|((rank, _), _)| *rank) else { return false };
            if self.evict(occupancy, slot, word) {
                return true;
            }
        }
        false
    }

    fn evict_in_reserve(&self, occupancy: &mut Occupancy) {
        let longest = self.slots.iter().map(|slot| (slot.word(), slot));
        let longest =
            longest.filter(|(word, _)| word.is_reserve() && word.phase() != ConnectionPhase::Evicted);
        if let Some((word, slot)) = longest.min_by_key(|(word, _)| word.since()) {
            self.evict(occupancy, slot, word);
        }
    }

    fn evict(&self, occupancy: &mut Occupancy, slot: &ConnectionSlot, word: PackedState) -> bool {
        let is_evicted = slot.evict(word);
        if is_evicted {
            *occupancy.count(word) -= 1;
            self.metrics.connections_evicted.inc();
        }
        is_evicted
    }

    /// Ends the connections that have waited for too long, and counts the busy ones. To be called about every second.
    pub(super) fn expire(&self) {
        let now = self.milliseconds(Instant::now());
        let mut busy = 0;
        let mut occupancy = self.occupancy();
        for slot in &self.slots {
            let word = slot.word();
            let timeouts = match word.phase() {
                ConnectionPhase::New if word.is_reserve() => RESERVE_HEAD,
                ConnectionPhase::New => self.timeouts.first_head,
                ConnectionPhase::Idle => self.timeouts.next_head,
                ConnectionPhase::Busy => {
                    busy += i64::from(!word.is_reserve());
                    continue;
                }
                ConnectionPhase::Free | ConnectionPhase::Evicted | ConnectionPhase::Lingering => continue,
            };
            if u128::from(now.saturating_sub(word.since())) >= timeouts.as_millis() && slot.evict(word) {
                *occupancy.count(word) -= 1;
            }
        }
        self.metrics.connections_busy.set(busy);
    }

    /// Lets each connection end with its present request.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        for slot in &self.slots {
            slot.waker.wake();
        }
    }

    /// Ends the connections on which no request has begun, though a part of its head may have come.
    pub(super) fn end_waiting(&self) {
        let mut occupancy = self.occupancy();
        for slot in &self.slots {
            let word = slot.word();
            if matches!(word.phase(), ConnectionPhase::New | ConnectionPhase::Idle) && slot.evict(word) {
                *occupancy.count(word) -= 1;
            }
        }
    }

    /// Waits until every connection has ended.
    pub(super) async fn ended(&self) {
        loop {
            let freed = self.freed.notified();
            if self.occupancy().free.len() == self.slots.len() {
                return;
            }
            freed.await;
        }
    }

    /// Evicts a connection that waits, if there is one: file descriptors have run out.
    pub(super) fn relieve(&self) {
        self.evict_longest(&mut self.occupancy(), false);
    }

    fn taken(&self, occupancy: &Occupancy) -> i64 {
        i64::try_from(self.slots.len() - occupancy.free.len()).unwrap_or(i64::MAX)
    }

    fn occupancy(&self) -> MutexGuard<'_, Occupancy> {
        lock(&self.occupancy)
    }

    /// Milliseconds since the start.
    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
