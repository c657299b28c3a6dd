//! When to ask again: as long as an endpoint asks to wait, or ever longer where it says nothing.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, SystemTime};

/// How long an endpoint asks to wait: OpenAI's `retry-after-ms`, or seconds or a date (RFC 9110, section 10.2.3).
pub fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let number = |name| header(name)?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|millis| millis / 1000.0).or_else(|| number("retry-after"));
    if let Some(seconds) = seconds {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(header("retry-after")?.trim()).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What to wait before the next attempt, after `attempts` of them, the first counting as one: twice as long each time, up
/// to `longest`, and less by up to a half, so that many who failed together do not return together.
pub fn backoff(attempts: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(20));
    doubled.min(longest).mul_f64(0.5 + random() / 2.0)
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
        assert_eq!(wait("retry-after", "1e300"), None);
        assert_eq!(wait("retry-after", "-1"), None);
        assert_eq!(wait("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let years = wait("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT").unwrap();
        assert!(years > Duration::from_secs(86_400 * 365 * 7_000));
        assert_eq!(wait("retry-after", "soon"), None);
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
