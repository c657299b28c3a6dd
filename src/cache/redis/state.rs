//! What calls, dedicated connections and the connector share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use redis::RedisError;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::breaker::{Breaker, BreakerState, CallEnd, Permission};
use super::call_error::CallError;
use super::clock_offset::ClockOffset;
use super::keys::KeySpace;
use super::link::Link;
use super::metrics::RedisMetrics;
use super::options::{RedisMode, RedisOptions};
use super::server_identity::{ConnectedServer, ServerIdentity};
use super::servers::Servers;
use crate::pacing;
use crate::sync::{Mutex, ignore_poison};

/// What calls, dedicated connections and the connector share.
pub(super) struct ClientState {
    pub(super) servers: Servers,
    pub(super) keys: KeySpace,
    pub(super) response_max: Duration,
    link: ArcSwapOption<Link>,
    /// Number of the connection. A dedicated connection of an earlier number is opened again, perhaps to another server.
    generation: AtomicU64,
    server: Mutex<ConnectedServer>,
    /// Rung by calls that failed.
    doubt: Notify,
    /// Whether a call has shown that the connection cannot serve.
    is_broken: AtomicBool,
    has_warned: AtomicBool,
    calls: Semaphore,
    breaker: Mutex<Breaker>,
    started: Instant,
    /// In microseconds, as last measured.
    clock_offset: AtomicI64,
    metrics: Arc<RedisMetrics>,
}

impl ClientState {
    pub(super) fn new(servers: Servers, options: &RedisOptions, metrics: Arc<RedisMetrics>) -> ClientState {
        ClientState {
            servers,
            keys: KeySpace::new(&options.prefix, options.mode == RedisMode::Cluster),
            response_max: Duration::from_millis(options.response_ms_max),
            link: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            server: Mutex::default(),
            doubt: Notify::new(),
            is_broken: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
            calls: Semaphore::new(options.calls_max),
            breaker: Mutex::new(Breaker::new(options.breaker.clone(), pacing::random)),
            started: Instant::now(),
            clock_offset: AtomicI64::new(0),
            metrics,
        }
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.load_full()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn breaker_state(&self) -> BreakerState {
        ignore_poison(self.breaker.lock()).state()
    }

    pub(super) fn clock_offset(&self) -> ClockOffset {
        ClockOffset::from_micros(self.clock_offset.load(Ordering::Relaxed))
    }

    pub(super) fn set_clock_offset(&self, offset: ClockOffset) {
        self.clock_offset.store(offset.as_micros(), Ordering::Relaxed);
    }

    /// The right to make a call, counted against their limit.
    pub(super) fn admit(&self) -> Result<Ticket<'_>, CallError> {
        let place = self.calls.try_acquire().map_err(|_| CallError::TooMany)?;
        match self.with_breaker(None, |breaker, now| breaker.admit(now)) {
            Permission::Refused => Err(CallError::BreakerOpen),
            permission @ (Permission::Call | Permission::Probe(_)) => Ok(Ticket {
                state: self,
                permission: Some(permission),
                generation: self.generation(),
                _place: place,
            }),
        }
    }

    /// Counts a call in the metrics.
    pub(super) fn count(&self, error: Option<&CallError>) {
        match error {
            None => _ = self.metrics.answered.inc(),
            Some(error) => self.metrics.count(error.label()),
        }
    }

    /// Makes the connector check the connection, or replace it where the error shows that it cannot serve.
    fn doubt(&self, generation: u64, error: &CallError) {
        let is_of_this = generation == self.generation() && !matches!(error, CallError::NotConnected);
        if !is_of_this {
            // Of a connection that was replaced meanwhile, or of none.
            return;
        }
        if error.breaks_connection() {
            self.is_broken.store(true, Ordering::Release);
        }
        self.doubt.notify_one();
    }

    /// Waits until a call has failed.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// The number of the server that is connected to; 0 before the first one. Another connection to the same one has the same number, if the
    /// server says that it is the same.
    pub(super) fn server_number(&self) -> u64 {
        ignore_poison(self.server.lock()).number
    }

    /// Takes a connection for the calls that follow; a server has answered on it.
    pub(super) fn connected(&self, link: Link, identity: Option<ServerIdentity>) {
        ignore_poison(self.server.lock()).connected(identity);
        self.is_broken.store(false, Ordering::Release);
        // What was said of the one before.
        _ = self.doubt.notified().now_or_never();
        self.link.store(Some(Arc::new(link)));
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.metrics.connections.inc();
        self.metrics.is_connected.set(1);
        if self.has_warned.swap(false, Ordering::AcqRel) {
            tracing::info!("connected to Redis again");
        }
        self.with_breaker(None, |breaker, _| breaker.probe_now());
    }

    /// Gives up the connection. That of a cluster is used until there is another: it may serve for the servers that are left.
    pub(super) fn disconnected(&self) {
        if self.servers.mode() != RedisMode::Cluster {
            self.link.store(None);
            self.metrics.is_connected.set(0);
        }
    }

    /// Logs that no connection can be opened, once until there is one.
    pub(super) fn warn_once(&self, error: &RedisError) {
        if !self.has_warned.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, "cannot connect to Redis; entries are served from this node, and it is tried again");
        }
    }

    /// Changes the breaker; a change of its state is counted and logged, with its cause.
    fn with_breaker<T>(
        &self,
        cause: Option<&CallError>,
        change: impl FnOnce(&mut Breaker, Duration) -> T,
    ) -> T {
        let now = self.started.elapsed();
        let mut breaker = ignore_poison(self.breaker.lock());
        let before = breaker.state();
        let result = change(&mut breaker, now);
        let after = breaker.state();
        if before != after {
            // Under the lock, so that states are counted in their order.
            self.metrics.breaker_is(after);
            drop(breaker);
            log_transition(before, after, cause);
        }
        result
    }
}

fn log_transition(before: BreakerState, after: BreakerState, cause: Option<&CallError>) {
    match (before, after, cause) {
        (BreakerState::Closed, BreakerState::Open, Some(error)) => {
            tracing::warn!(%error, "Redis fails; it is not asked until a probe succeeds");
        }
        (_, BreakerState::Closed, _) => tracing::info!("Redis answers again"),
        // Probes that fail repeat with each wait.
        (_, BreakerState::Open | BreakerState::HalfOpen, _) => {}
    }
}

/// The right to make a call. Dropped without an outcome, it counts for nothing.
pub(super) struct Ticket<'a> {
    state: &'a ClientState,
    permission: Option<Permission>,
    /// That of the connection when the call began.
    generation: u64,
    _place: SemaphorePermit<'a>,
}

impl Ticket<'_> {
    /// Counts the outcome of the call.
    pub(super) fn record(mut self, error: Option<&CallError>) {
        let Some(permission) = self.permission.take() else { return };
        let outcome = error.map_or(CallEnd::Answered, CallError::outcome);
        self.state.with_breaker(error, |breaker, now| breaker.record(permission, outcome, now));
        if let Some(error) = error
            && outcome != CallEnd::Answered
        {
            self.state.doubt(self.generation, error);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(permission) = self.permission {
            self.state.with_breaker(None, |breaker, _| breaker.abandon(permission));
        }
    }
}
