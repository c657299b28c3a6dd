//! When Redis is not asked, because it has failed too often (Nygard, "Release It!", 2nd edition, section 5.2).
//!
//! A state machine without clock, lock or task: moments are given in, as the time since the machine was made.

use std::time::Duration;

use super::options::BreakerOptions;
use crate::labels::label_enum;

label_enum! {
    /// Whether calls are made.
    pub enum BreakerState {
        /// All are.
        Closed = "closed",
        /// None is.
        Open = "open",
        /// One is, to see whether it succeeds.
        HalfOpen = "half_open",
    }
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallEnd {
    /// A server answered, be it with an error that is the caller's fault.
    Answered,
    /// No server could be reached, or it could not serve.
    Failed,
    /// No answer came in time.
    TimedOut,
}

/// The right to make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// As any other.
    Call,
    /// As the one whose outcome decides, on the connection of this number.
    Probe(u64),
    /// No call.
    Refused,
}

/// Parts of the window that are forgotten one by one.
const BUCKETS: usize = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Number of the bucket since the beginning; another one has the same place later.
    number: u64,
    calls: u32,
    failures: u32,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { is_probing: bool },
}

/// The breaker of all calls.
#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    /// From 0 to 1, at random.
    random: fn() -> f64,
    phase: Phase,
    buckets: [Bucket; BUCKETS],
    timeouts_in_row: u32,
    /// How often it has opened since a probe last succeeded.
    openings: u32,
    /// Connections so far.
    connections: u64,
}

impl Breaker {
    /// Closed.
    pub(super) fn new(options: BreakerOptions, random: fn() -> f64) -> Breaker {
        let buckets = [Bucket::default(); BUCKETS];
        Breaker {
            options,
            random,
            phase: Phase::Closed,
            buckets,
            timeouts_in_row: 0,
            openings: 0,
            connections: 0,
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether a call may be made. Each permission but `Refused` is given to [`Breaker::record`] or to [`Breaker::abandon`].
    pub(super) fn admit(&mut self, now: Duration) -> Permission {
        if matches!(self.phase, Phase::Open { until } if until <= now) {
            self.phase = Phase::HalfOpen { is_probing: false };
        }
        match &mut self.phase {
            Phase::Closed => Permission::Call,
            Phase::Open { .. } => Permission::Refused,
            Phase::HalfOpen { is_probing: true } => Permission::Refused,
            Phase::HalfOpen { is_probing } => {
                *is_probing = true;
                Permission::Probe(self.connections)
            }
        }
    }

    /// Counts the outcome of a call.
    pub(super) fn record(&mut self, permission: Permission, outcome: CallEnd, now: Duration) {
        let is_failure = outcome != CallEnd::Answered;
        match (&self.phase, permission) {
            // Of the connection before, which says nothing of this one.
            (Phase::HalfOpen { .. }, Permission::Probe(connection))
                if is_failure && connection != self.connections => {}
            (Phase::HalfOpen { .. }, Permission::Probe(_)) if is_failure => self.open(now),
            (Phase::HalfOpen { .. }, Permission::Probe(_)) => self.close(),
            (Phase::Closed, Permission::Call) => {
                self.count(outcome, now);
                if self.is_past_limit(now) {
                    self.open(now);
                }
            }
            // Of a call from before the last change, which it says nothing about.
            (Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. }, _) => {}
        }
    }

    /// Forgets a call whose caller has left before its outcome. The next one probes in its place.
    pub(super) fn abandon(&mut self, permission: Permission) {
        if let (Phase::HalfOpen { is_probing }, Permission::Probe(connection)) = (&mut self.phase, permission)
            && connection == self.connections
        {
            *is_probing = false;
        }
    }

    /// Probes with the next call: a server has accepted a connection and answered on it. A probe of the connection before is waited for no
    /// longer.
    pub(super) fn probe_now(&mut self) {
        self.connections += 1;
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::HalfOpen { is_probing: false };
        }
    }

    fn count(&mut self, outcome: CallEnd, now: Duration) {
        let number = self.bucket_number(now);
        let bucket = &mut self.buckets[number as usize % BUCKETS];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket.calls += 1;
        bucket.failures += u32::from(outcome != CallEnd::Answered);
        self.timeouts_in_row = if outcome == CallEnd::TimedOut { self.timeouts_in_row + 1 } else { 0 };
    }

    fn is_past_limit(&self, now: Duration) -> bool {
        if self.timeouts_in_row >= self.options.timeouts_max {
            return true;
        }
        let oldest = (self.bucket_number(now) + 1).saturating_sub(BUCKETS as u64);
        let recent = self.buckets.iter().filter(|bucket| bucket.number >= oldest);
        let (calls, failures) =
            recent.fold((0, 0), |sum, bucket| (sum.0 + bucket.calls, sum.1 + bucket.failures));
        calls >= self.options.calls_min && f64::from(failures) >= f64::from(calls) * self.options.error_share
    }

    fn bucket_number(&self, now: Duration) -> u64 {
        let bucket_ms = u128::from(self.options.window_seconds) * 1000 / BUCKETS as u128;
        u64::try_from(now.as_millis() / bucket_ms).unwrap_or(u64::MAX)
    }

    fn open(&mut self, now: Duration) {
        let doubled = self.options.open_ms.saturating_mul(1 << self.openings.min(20));
        // Less by up to a half, so that nodes that failed together do not probe together.
        let open_ms = doubled.min(self.options.open_ms_max) as f64 * (0.5 + (self.random)() / 2.0);
        self.openings = self.openings.saturating_add(1);
        self.phase = Phase::Open { until: now + Duration::from_secs_f64(open_ms / 1000.0) };
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.buckets = [Bucket::default(); BUCKETS];
        (self.timeouts_in_row, self.openings) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CallEnd::{Answered, Failed, TimedOut};

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions::default(), || 1.0)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn call(breaker: &mut Breaker, outcome: CallEnd, now: Duration) -> Permission {
        let permission = breaker.admit(now);
        if permission != Permission::Refused {
            breaker.record(permission, outcome, now);
        }
        permission
    }

    #[test]
    fn it_opens_when_half_of_enough_calls_have_failed() {
        let mut breaker = breaker();
        for n in 0..19 {
            call(&mut breaker, if n % 2 == 0 { Failed } else { Answered }, ms(n));
            assert_eq!(breaker.state(), BreakerState::Closed, "after {n} calls");
        }
        call(&mut breaker, Failed, ms(20));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(ms(21)), Permission::Refused);
    }

    #[test]
    fn failures_that_are_few_or_long_ago_do_not_open_it() {
        let mut breaker = breaker();
        for n in 0..1000 {
            call(&mut breaker, if n % 5 < 2 { Failed } else { Answered }, ms(n * 50));
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "four of ten");
        let mut breaker = self::breaker();
        for n in 0..200 {
            call(&mut breaker, Failed, ms(n * 1000));
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "ten in a window");
    }

    #[test]
    fn timeouts_in_a_row_open_it_and_an_answer_ends_the_row() {
        let mut breaker = breaker();
        for outcome in
            [TimedOut, TimedOut, TimedOut, TimedOut, Answered, TimedOut, TimedOut, TimedOut, TimedOut]
        {
            call(&mut breaker, outcome, ms(0));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&mut breaker, TimedOut, ms(0));
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    fn opened(at: Duration) -> Breaker {
        let mut breaker = breaker();
        (0..5).for_each(|_| _ = call(&mut breaker, TimedOut, at));
        breaker
    }

    #[test]
    fn one_probe_decides_and_each_failure_doubles_the_time_to_the_next() {
        let mut breaker = opened(ms(0));
        let mut now = ms(0);
        for open_ms in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            assert_eq!(breaker.admit(now + ms(open_ms - 1)), Permission::Refused, "{open_ms}");
            now += ms(open_ms);
            assert_eq!(breaker.admit(now), Permission::Probe(0), "{open_ms}");
            assert_eq!(breaker.admit(now), Permission::Refused, "one at a time");
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            breaker.record(Permission::Probe(0), TimedOut, now);
            assert_eq!(breaker.state(), BreakerState::Open);
        }
        now += ms(30_000);
        assert_eq!(call(&mut breaker, Answered, now), Permission::Probe(0));
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.admit(now), Permission::Call);
        (0..4).for_each(|_| _ = call(&mut breaker, TimedOut, now));
        assert_eq!(breaker.state(), BreakerState::Closed, "what was before is forgotten");
        call(&mut breaker, TimedOut, now);
        assert_eq!(breaker.admit(now + ms(999)), Permission::Refused);
        assert_eq!(breaker.admit(now + ms(1000)), Permission::Probe(0), "as short as at first");
    }

    #[test]
    fn the_time_varies_by_a_half() {
        let mut breaker = Breaker::new(BreakerOptions::default(), || 0.0);
        (0..5).for_each(|_| _ = call(&mut breaker, TimedOut, ms(0)));
        assert_eq!(breaker.admit(ms(499)), Permission::Refused);
        assert_eq!(breaker.admit(ms(500)), Permission::Probe(0));
    }

    #[test]
    fn an_abandoned_probe_is_followed_by_another() {
        let mut breaker = opened(ms(0));
        assert_eq!(breaker.admit(ms(1000)), Permission::Probe(0));
        breaker.abandon(Permission::Probe(0));
        assert_eq!(breaker.admit(ms(1000)), Permission::Probe(0));
    }

    #[test]
    fn calls_from_before_a_change_do_not_count_after_it() {
        let mut breaker = opened(ms(0));
        breaker.record(Permission::Call, Answered, ms(1));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(ms(1000)), Permission::Probe(0));
        breaker.record(Permission::Call, Answered, ms(1000));
        breaker.abandon(Permission::Call);
        assert_eq!(breaker.admit(ms(1000)), Permission::Refused, "the probe is still out");
        breaker.record(Permission::Probe(0), Answered, ms(1001));
        breaker.record(Permission::Probe(0), TimedOut, ms(1001));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_new_connection_is_probed_at_once() {
        let mut breaker = opened(ms(0));
        breaker.probe_now();
        assert_eq!(call(&mut breaker, Failed, ms(1)), Permission::Probe(1));
        assert_eq!(breaker.admit(ms(2000)), Permission::Refused, "open for two seconds");
        breaker.probe_now();
        assert_eq!(call(&mut breaker, Answered, ms(2)), Permission::Probe(2));
        breaker.probe_now();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
    #[test]
    fn a_probe_of_the_connection_before_says_nothing_of_the_new_one() {
        let mut breaker = opened(ms(0));
        let former = breaker.admit(ms(1000));
        assert_eq!(former, Permission::Probe(0));
        breaker.probe_now();
        assert_eq!(breaker.admit(ms(1001)), Permission::Probe(1), "it is not waited for");
        breaker.record(former, Failed, ms(1002));
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "its failure is that of the former connection");
        breaker.abandon(former);
        assert_eq!(breaker.admit(ms(1003)), Permission::Refused, "the new probe is still out");
        breaker.record(Permission::Probe(1), Answered, ms(1004));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
