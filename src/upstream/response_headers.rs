//! Which headers of an upstream's reply its client sees.
//!
//! A reply leaves here under this server's name, so what is not known to be about the answer stays: cookies, policies and places
//! for browsers to go to, names of machines, and headers by which this server says what became of a request.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::hop_by_hop::is_hop_by_hop;
use super::reply::Headers;

/// What describes the body, says how it may be cached, or says whether to try again. Caches between client and upstream are those of
/// routes that are passed on; a caller that writes an answer in bytes of its own leaves out what describes the upstream's
/// ([`super::Reply::forget_bytes`]).
const SHOWN: [&str; 18] = [
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "cache-status",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-range",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "vary",
    "x-should-retry",
];

/// Limits of the client's, and what services say of the answer in headers of their own.
const BEGINNINGS: [&str; 5] = ["anthropic-", "openai-", "ratelimit-", "retry-after-", "x-ratelimit-"];

/// Names of requests, by which a client asks a service about one.
const ENDINGS: [&str; 2] = ["-request-id", "-requestid"];

/// The headers that a client sees.
pub(super) fn passed_on(headers: &HeaderMap) -> Headers {
    let read = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name_shown(name, headers)?;
        Some((name.to_owned(), Bytes::copy_from_slice(value.as_bytes())))
    };
    headers.iter().filter_map(read).collect()
}

/// The lines of `Cache-Group-Invalidation`.
pub(super) fn group_invalidation(headers: &HeaderMap) -> Vec<Bytes> {
    let lines = headers.get_all("cache-group-invalidation");
    lines.iter().map(|line| Bytes::copy_from_slice(line.as_bytes())).collect()
}

fn name_shown<'a>(name: &'a HeaderName, headers: &HeaderMap) -> Option<&'a str> {
    let text = name.as_str();
    let is_known = SHOWN.contains(&text)
        || text == "ratelimit"
        || BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        || ENDINGS.iter().any(|ending| text.ends_with(ending));
    let is_ours = text.starts_with("x-likewise-") || is_hop_by_hop(name, headers);
    match text {
        _ if !is_known || is_ours => None,
        // Requests have a name of ours too.
        "x-request-id" => Some("x-upstream-request-id"),
        text => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(given: &[&'static str]) -> Vec<String> {
        let value = HeaderValue::from_static("x");
        let headers = given.iter().map(|name| (HeaderName::from_static(name), value.clone()));
        passed_on(&headers.collect()).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_is_about_the_answer_is_shown() {
        let about = [
            "content-type",
            "retry-after",
            "retry-after-ms",
            "x-ratelimit-remaining-tokens",
            "anthropic-ratelimit-requests-limit",
            "openai-processing-ms",
            "openai-version",
            "request-id",
            "apim-request-id",
            "x-amzn-requestid",
            "x-should-retry",
            "cache-control",
        ];
        assert_eq!(names(&about), about);
        assert_eq!(names(&["x-request-id"]), ["x-upstream-request-id"]);
    }

    #[test]
    fn what_is_not_known_to_be_is_not() {
        let hidden = [
            "set-cookie",
            "server",
            "date",
            "via",
            "x-powered-by",
            "content-security-policy",
            "location",
            "content-location",
            "refresh",
            "clear-site-data",
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "link",
            "server-timing",
            "www-authenticate",
            "proxy-authenticate",
            "strict-transport-security",
            "alt-svc",
            "nel",
            "report-to",
            "service-worker-allowed",
            "x-likewise-answer-id",
            "x-likewise-request-id",
            "x-frame-options",
            "sourcemap",
            "upgrade",
            "transfer-encoding",
            "content-length",
            "authorization",
            "x-api-key",
            "cf-ray",
            "x-unheard-of",
        ];
        assert_eq!(names(&hidden), Vec::<String>::new());
    }

    #[test]
    fn what_the_connection_names_is_its_own() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("retry-after"));
        headers.insert("retry-after", HeaderValue::from_static("1"));
        assert!(passed_on(&headers).is_empty());
    }
}
