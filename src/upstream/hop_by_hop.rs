//! Headers that are of one connection and go no further (RFC 9110, section 7.6.1).

use reqwest::header::{CONNECTION, HeaderMap, HeaderName};

const ALWAYS: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether `name`, one of `headers`, is such a header, always or because `Connection` names it.
pub fn is_hop_by_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut named = values.flat_map(|value| value.split(','));
    ALWAYS.contains(&name.as_str()) || named.any(|named| named.trim().eq_ignore_ascii_case(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_connection_names_what_is_its_own() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("close, X-Hop"));
        headers.append(CONNECTION, HeaderValue::from_static("x-other"));
        let is_its_own = |name: &'static str| is_hop_by_hop(&HeaderName::from_static(name), &headers);
        assert!(["connection", "x-hop", "x-other", "te"].into_iter().all(is_its_own));
        assert!(!is_its_own("content-type") && !is_its_own("x-hop-2"));
    }
}
