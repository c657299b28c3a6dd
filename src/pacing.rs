//! When to ask again: as long as an endpoint asks to wait, or ever longer where it says nothing.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// No wait that an endpoint asks for is read as longer, so that it can be added to any moment.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whether an endpoint that answers so may be asked the same again later: it is busy, and does not say that another attempt is of no use.
pub fn is_busy<'a>(status: u16, header: impl Fn(&str) -> Option<&'a str>) -> bool {
    // The last one is of Anthropic's API, the header of OpenAI's.
    matches!(status, 429 | 503 | 529) && header("x-should-retry") != Some("false")
}

/// How long an endpoint asks to wait: OpenAI's `retry-after-ms`, or seconds or a date (RFC 9110, section 10.2.3), at most
/// a day. None where the header says nothing that can be read, such as a negative number.
pub fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let number = |name| header(name)?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|millis| millis / 1000.0).or_else(|| number("retry-after"));
    if let Some(seconds) = seconds.filter(|seconds| !seconds.is_nan()) {
        let seconds = seconds.min(RETRY_AFTER_MAX.as_secs_f64());
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(header("retry-after")?.trim()).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// What to wait before the next attempt, after `attempts` of them, the first counting as one: twice as long each time, up
/// to `longest`, and less by up to a half, so that many who failed together do not return together.
pub fn backoff(attempts: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(20));
    doubled.min(longest).mul_f64(0.5 + random() / 2.0)
}

/// Lets one line into a log and holds back what follows within a second.
#[derive(Debug)]
pub struct LogLimit {
    made: Instant,
    /// When the last line was let in, in milliseconds since `made`, and one second more.
    last_ms: AtomicU64,
}

impl LogLimit {
    const EACH_MS: u64 = 1000;

    /// A limit that admits the first line.
    #[expect(clippy::new_without_default, reason = "its start is a moment, which no default should hide")]
    pub fn new() -> LogLimit {
        LogLimit { made: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// Whether a line may be written now.
    pub fn admits(&self) -> bool {
        self.admits_at(u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn admits_at(&self, elapsed_ms: u64) -> bool {
        let now = elapsed_ms.saturating_add(Self::EACH_MS);
        let is_due = |last: u64| (now.saturating_sub(last) >= Self::EACH_MS).then_some(now);
        self.last_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok()
    }
}

/// From 0 to 1. Each hasher of the standard library is keyed at random; no better randomness is needed.
pub fn random() -> f64 {
    (RandomState::new().build_hasher().finish() >> 32) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_either_unit() {
        let wait = |name: &str, value: &'static str| retry_after(|asked| (asked == name).then_some(value));
        assert_eq!(wait("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(wait("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(wait("retry-after", "1000000000"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("retry-after", "1e300"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("retry-after", "inf"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("retry-after-ms", "1e300"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("retry-after", "-inf"), None);
        assert_eq!(wait("retry-after", "nan"), None);
        assert_eq!(wait("retry-after", ""), None);
        assert_eq!(wait("retry-after", "-1"), None);
        assert_eq!(wait("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("retry-after", "soon"), None);
    }

    #[test]
    fn a_log_takes_one_line_a_second() {
        let limit = LogLimit::new();
        let admitted = [0, 1, 999, 1000, 1999, 2500, 2501].map(|ms| limit.admits_at(ms));
        assert_eq!(admitted, [true, false, false, true, false, true, false]);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        for (attempts, most) in [(0, 100), (1, 100), (2, 200), (3, 400), (6, 2000), (u32::MAX, 2000)] {
            let wait = backoff(attempts, first, longest);
            let most = Duration::from_millis(most);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} after {attempts}");
        }
    }
}
