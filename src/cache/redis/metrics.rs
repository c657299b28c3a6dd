//! What is counted of calls to Redis.

use super::breaker::BreakerState;
use crate::labels::label_enum;
use crate::metrics::{ByLabel, Counter, Gauge, ModuleMetrics, Registry};

label_enum! {
    /// What came of a call to Redis.
    pub enum CallOutcome {
        /// A server answered.
        Answered = "answered",
        /// A server answered with an error.
        Refused = "refused",
        /// The connection broke, or the server could not serve.
        Failed = "failed",
        /// No answer came in time.
        TimedOut = "timed_out",
        /// There was no connection.
        NotConnected = "not_connected",
        /// The breaker was open.
        BreakerOpen = "breaker_open",
        /// Too many calls were under way.
        TooMany = "too_many",
    }
}

/// The metrics of Redis.
#[derive(Debug)]
pub struct RedisMetrics {
    calls: ByLabel<CallOutcome, Counter>,
    /// Of the commonest outcome, held because looking it up takes a lock.
    pub(super) answered: Counter,
    transitions: ByLabel<BreakerState, Counter>,
    breaker_state: Gauge,
    pub(super) is_connected: Gauge,
    pub(super) connections: Counter,
    pub(super) entries_rejected: Counter,
    pub(super) values_too_long: Counter,
}

impl ModuleMetrics for RedisMetrics {
    fn register(registry: &mut Registry) -> RedisMetrics {
        let calls: ByLabel<CallOutcome, Counter> =
            registry.by_label("redis_calls", "Calls to Redis, each one or several commands", "outcome");
        RedisMetrics {
            answered: calls.with(CallOutcome::Answered),
            calls,
            transitions: registry.by_label(
                "redis_breaker_transitions",
                "Changes of the breaker of Redis to a state",
                "state",
            ),
            breaker_state: registry.gauge(
                "redis_breaker_state",
                "The breaker of Redis: 0 closed, 1 half open, 2 open; calls are made unless it is open",
            ),
            is_connected: registry.gauge("redis_is_connected", "1 while there is a connection to Redis"),
            connections: registry
                .counter("redis_connections", "Connections to Redis that were opened for requests"),
            entries_rejected: registry.counter(
                "redis_entries_rejected",
                "Entries in Redis that were damaged, forged, moved, or sealed with another key; answered as misses",
            ),
            values_too_long: registry.counter(
                "redis_values_too_long",
                "Values that stayed on this node because they are longer than redis.value_bytes_max",
            ),
        }
    }
}

impl RedisMetrics {
    pub(super) fn count(&self, outcome: CallOutcome) {
        match outcome {
            CallOutcome::Answered => _ = self.answered.inc(),
            CallOutcome::Refused
            | CallOutcome::Failed
            | CallOutcome::TimedOut
            | CallOutcome::NotConnected
            | CallOutcome::BreakerOpen
            | CallOutcome::TooMany => _ = self.calls.with(outcome).inc(),
        }
    }

    pub(super) fn breaker_is(&self, state: BreakerState) {
        let number = match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        self.breaker_state.set(number);
        self.transitions.with(state).inc();
    }
}
