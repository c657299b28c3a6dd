//! The table of the connections, and which of its places are taken.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::keyless_budget::KeylessBudget;
use super::slot::{ConnectionSlot, PackedState};
use crate::byte_budget::ByteBudget;
use crate::http::metrics::HttpMetrics;

/// Which places are taken. An evicted connection counts no more, though its slot is taken until its task has ended.
pub(super) struct Occupancy {
    pub(super) free: Vec<usize>,
    pub(super) regular: usize,
    pub(super) reserve: usize,
}

impl Occupancy {
    pub(super) fn count(&mut self, word: PackedState) -> &mut usize {
        if word.is_reserve() { &mut self.reserve } else { &mut self.regular }
    }
}

/// How long connections may wait.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct HeadTimeouts {
    /// For the first head of a connection.
    pub(in crate::http) first_head: Duration,
    /// For each further one, the idle time before it included.
    pub(in crate::http) next_head: Duration,
}

/// All places. Shared by `Arc`.
pub(in crate::http) struct Connections {
    pub(super) slots: Box<[ConnectionSlot]>,
    pub(super) occupancy: Mutex<Occupancy>,
    pub(super) limit: usize,
    /// Where there are no keys, every connection counts as one that has shown one.
    pub(super) flags: u64,
    pub(super) timeouts: HeadTimeouts,
    pub(super) started: Instant,
    pub(super) freed: Notify,
    pub(super) is_stopping: AtomicBool,
    /// What all requests in flight may hold, and connections that wait amid one.
    pub(super) budget: Arc<ByteBudget>,
    pub(super) keyless: KeylessBudget,
    pub(super) metrics: Arc<HttpMetrics>,
}
