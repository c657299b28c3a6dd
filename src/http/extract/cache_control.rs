//! Directives to the cache in the headers of a request.

use axum::http::{HeaderMap, header};

use crate::error::{Error, Result};
use crate::service::Directives;

/// Adds the `Cache-Control` of a request (RFC 9111 section 5.2.1, RFC 5861 section 4) to `directives`. Where both set a limit,
/// the stricter holds.
///
/// # Errors
/// `InvalidInput` for a header that is not ASCII and for seconds that are none.
pub(in crate::http) fn apply(headers: &HeaderMap, directives: &mut Directives) -> Result<()> {
    for value in headers.get_all(header::CACHE_CONTROL) {
        let value = value.to_str().map_err(|_| fault("it is not ASCII"))?;
        for directive in value.split(',') {
            apply_one(directive.trim(), directives)?;
        }
    }
    Ok(())
}

/// Whether no part of the request may be stored (RFC 9111 section 5.2.1.5).
pub(in crate::http) fn forbids_storing(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-store"))
}

/// The lifetime of an object in the `Cache-Control` of its PUT, which is read as that of a response (RFC 9111 section 5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum PutLifetime {
    /// Nothing.
    Default,
    /// It lives so many seconds: `s-maxage`, or else `max-age`.
    Seconds(u32),
    /// It is not stored: `no-store`.
    NoStore,
}

/// Reads the lifetime of a PUT. Directives for browsers and private caches, such as `private` or `immutable`, have no meaning here:
/// the application itself sends the PUT.
///
/// # Errors
/// `InvalidInput` for a header that is not ASCII and for seconds that are none.
pub(in crate::http) fn of_put(headers: &HeaderMap) -> Result<PutLifetime> {
    let (mut shared, mut any) = (None, None);
    for value in headers.get_all(header::CACHE_CONTROL) {
        let value = value.to_str().map_err(|_| fault("it is not ASCII"))?;
        for directive in value.split(',') {
            let (name, argument) = directive.trim().split_once('=').unwrap_or((directive.trim(), ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" => return Ok(PutLifetime::NoStore),
                "s-maxage" => tighten(&mut shared, seconds("s-maxage", argument)?, u32::min),
                "max-age" => tighten(&mut any, seconds("max-age", argument)?, u32::min),
                _ => {}
            }
        }
    }
    Ok(shared.or(any).map_or(PutLifetime::Default, PutLifetime::Seconds))
}

fn apply_one(directive: &str, directives: &mut Directives) -> Result<()> {
    let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
    match name.to_ascii_lowercase().as_str() {
        "no-cache" => directives.no_cache = true,
        "no-store" => directives.no_store = true,
        "only-if-cached" => directives.only_if_cached = true,
        "max-age" => tighten(&mut directives.age_seconds_max, seconds("max-age", argument)?, u32::min),
        "min-fresh" => tighten(&mut directives.fresh_seconds_min, seconds("min-fresh", argument)?, u32::max),
        // Without an argument any staleness will do; the policy of the namespace still limits it.
        "max-stale" if argument.is_empty() => tighten(&mut directives.stale_seconds_max, u32::MAX, u32::min),
        "max-stale" => tighten(&mut directives.stale_seconds_max, seconds("max-stale", argument)?, u32::min),
        "stale-if-error" => {
            let max = seconds("stale-if-error", argument)?;
            tighten(&mut directives.failed_stale_seconds_max, max, u32::min);
        }
        // RFC 9111 section 5.2.3: a cache ignores directives that it does not know.
        _ => {}
    }
    Ok(())
}

/// The stricter of two limits.
fn tighten(limit: &mut Option<u32>, said: u32, stricter: fn(u32, u32) -> u32) {
    *limit = Some(limit.map_or(said, |before| stricter(before, said)));
}

/// More seconds than can be counted are as many as can be (RFC 9111 section 1.2.2).
fn seconds(name: &str, argument: &str) -> Result<u32> {
    let digits = argument.trim().trim_matches('"');
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(fault(&format!("{name} needs seconds")));
    }
    Ok(digits.parse().unwrap_or(u32::MAX))
}

fn fault(why: &str) -> Error {
    Error::invalid("cache-control", format!("the header cache-control cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(values: &[&'static str]) -> Result<Directives> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        let mut directives = Directives::default();
        apply(&headers, &mut directives).map(|()| directives)
    }

    #[test]
    fn headers_add_up_and_the_stricter_holds() {
        let directives = read(&["No-Store, max-age=60", "max-age=90, unknown=1, min-fresh=\"5\""]).unwrap();
        assert!(directives.no_store && !directives.no_cache);
        assert_eq!((directives.age_seconds_max, directives.fresh_seconds_min), (Some(60), Some(5)));
        assert_eq!(read(&["max-stale"]).unwrap().stale_seconds_max, Some(u32::MAX));
        assert_eq!(read(&["max-stale=99999999999"]).unwrap().stale_seconds_max, Some(u32::MAX));
        let directives = read(&["max-stale=9, stale-if-error=40", "stale-if-error=30"]).unwrap();
        assert_eq!((directives.stale_seconds_max, directives.failed_stale_seconds_max), (Some(9), Some(30)));
        assert_eq!(directives.after_failure().stale_seconds_max, Some(30));
    }

    #[test]
    fn of_a_put_the_lifetime_for_shared_caches_comes_first() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
            }
            of_put(&headers)
        };
        for (values, storing) in [
            (&[][..], PutLifetime::Default),
            (&["private, immutable, no-cache, min-fresh=x"], PutLifetime::Default),
            (&["Max-Age=60"], PutLifetime::Seconds(60)),
            (&["max-age=60, max-age=90"], PutLifetime::Seconds(60)),
            (&["max-age=60", "s-maxage=\"90\""], PutLifetime::Seconds(90)),
            (&["max-age=99999999999"], PutLifetime::Seconds(u32::MAX)),
            (&["max-age=5, s-maxage=0"], PutLifetime::Seconds(0)),
            (&["max-age=60, No-Store"], PutLifetime::NoStore),
        ] {
            assert_eq!(of(values).unwrap(), storing, "{values:?}");
        }
        for bad in ["max-age", "max-age=x", "s-maxage=-1", "max-age=1.5"] {
            assert_eq!(of(&[bad]).unwrap_err().param_name(), Some("cache-control"), "{bad}");
        }
    }

    #[test]
    fn malformed_seconds_are_refused() {
        for bad in ["max-age=soon", "max-age", "min-fresh=-1", "max-stale=x", "stale-if-error", "max-age=+5"]
        {
            assert_eq!(read(&[bad]).unwrap_err().param_name(), Some("cache-control"), "{bad}");
        }
    }
}
