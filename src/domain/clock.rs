//! Time as the cache sees it: whole seconds since 1970, from a clock that tests can turn by hand.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970-01-01 UTC; enough until 2106, and four bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixSeconds(pub u32);

impl UnixSeconds {
    /// The last moment that can be written down: "never expires".
    pub const NEVER: UnixSeconds = UnixSeconds(u32::MAX);

    /// This moment and `seconds` later, at most [`UnixSeconds::NEVER`].
    #[must_use]
    pub fn plus(self, seconds: u32) -> UnixSeconds {
        UnixSeconds(self.0.saturating_add(seconds))
    }

    /// Whether this moment lies so far ahead of `now` that a clock which has shown it was wrong.
    pub fn is_ahead_of(self, now: UnixSeconds) -> bool {
        self.0 > now.0.saturating_add(CLOCK_STEP_SECONDS_MAX)
    }

    /// Seconds from `earlier` until this moment; zero if it is not earlier.
    pub fn since(self, earlier: UnixSeconds) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How far a clock may be set back without a loss: further than time services step a clock that they keep right, and
/// near enough that nothing lives noticeably longer for it.
pub const CLOCK_STEP_SECONDS_MAX: u32 = 5;

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where the current time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> UnixSeconds;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixSeconds {
        // A clock before 1970 reads as 1970: entries then look fresh for longer, never wrong.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        UnixSeconds(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

/// A clock that stands still until it is turned.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU32);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: UnixSeconds) -> ManualClock {
        ManualClock(AtomicU32::new(now.0))
    }

    /// Sets the clock, also back.
    pub fn set(&self, now: UnixSeconds) {
        self.0.store(now.0, Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, seconds: u32) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.0.load(Ordering::SeqCst))
    }
}
