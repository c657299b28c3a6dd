//! Refuses the requests that a browser on this machine makes for pages of other sites.
//!
//! Without keys every client that reaches the address is served, and only this machine reaches it. But the pages in its browsers
//! come from anywhere, and must neither read the cache nor spend the operator's money.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::error::{Error, Kind, Result};

/// Refuses a request that a page of another site may have made, unless its origin is listed.
///
/// Browsers mark such requests by `sec-fetch-site` (W3C Fetch Metadata, section 2.3), older ones by `origin`. A page whose name was made to
/// stand for this machine (DNS rebinding) is of this address to them, but its name is in `host`, or in the target of the
/// request, whose `authority` stands for the header then (RFC 9112, section 3.2.2).
///
/// # Errors
/// `Forbidden`.
pub(super) fn refuse(headers: &HeaderMap, authority: Option<&Authority>, is_listed: bool) -> Result<()> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let is_same = matches!(site, None | Some(b"none" | b"same-origin"));
    let is_of_host = headers.get(header::ORIGIN).is_none_or(|origin| of_origin(origin.as_bytes()) == host);
    if !is_listed && (!is_same || !is_of_host) {
        return fault("pages of other origins are served only if http.cors lists their origin");
    }
    let target = authority.map(|authority| authority.as_str().as_bytes());
    if !host.is_none_or(is_of_this_machine) || !target.is_none_or(is_of_this_machine) {
        return fault("without keys this server goes by localhost or an IP address: set http.api_keys");
    }
    Ok(())
}

fn fault(message: &str) -> Result<()> {
    Err(Error::new(Kind::Forbidden, message))
}

/// The host and port of an origin, such as `http://localhost:8420`.
fn of_origin(origin: &[u8]) -> Option<&[u8]> {
    let at = origin.windows(3).position(|window| window == b"://")?;
    Some(&origin[at + 3..])
}

/// Whether no other party can have given this machine the name: an address, or a name that no public zone holds.
fn is_of_this_machine(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.');
    !name.contains('.') || name.parse::<IpAddr>().is_ok() || is_in_reserved_zone(name)
}

/// Whether the name ends in a zone that is never delegated (RFC 6761, section 6.3; `internal` by ICANN in 2024).
fn is_in_reserved_zone(name: &str) -> bool {
    [".internal", ".localhost"].iter().any(|zone| {
        let at = name.len().saturating_sub(zone.len());
        name.as_bytes()[at..].eq_ignore_ascii_case(zone.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_served(headers: &[(&'static str, &'static str)]) -> bool {
        let named = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        refuse(&HeaderMap::from_iter(named), None, false).is_ok()
    }

    #[test]
    fn programs_of_this_machine_are_served() {
        for host in [
            "127.0.0.1:8420",
            "[::1]:8420",
            "::1",
            "localhost:8420",
            "LOCALHOST",
            "a.localhost:1",
            "likewise:80",
            "host.docker.internal:8420",
        ] {
            assert!(is_served(&[("host", host)]), "{host}");
        }
        assert!(is_served(&[]));
        assert!(is_served(&[
            ("host", "localhost:8420"),
            ("origin", "http://localhost:8420"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(is_served(&[("host", "localhost:8420"), ("sec-fetch-site", "none")]), "typed by a person");
    }

    #[test]
    fn listed_origins_are_served_by_this_machine_only() {
        let served = |host: &'static str, target: &'static str| {
            let headers = [
                (header::HOST, HeaderValue::from_static(host)),
                (header::ORIGIN, HeaderValue::from_static("https://app.example")),
            ];
            let target = (!target.is_empty()).then(|| Authority::from_static(target));
            refuse(&HeaderMap::from_iter(headers), target.as_ref(), true).is_ok()
        };
        assert!(served("localhost:8420", "") && served("localhost:8420", "localhost:8420"));
        assert!(!served("evil.example", "") && !served("localhost", "evil.example"));
    }

    #[test]
    fn pages_of_elsewhere_are_not() {
        for site in ["cross-site", "same-site"] {
            assert!(!is_served(&[("host", "localhost:8420"), ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["https://evil.example", "http://localhost:3000", "null"] {
            assert!(!is_served(&[("host", "localhost:8420"), ("origin", origin)]), "{origin}");
        }
        for host in ["evil.example:8420", "127.0.0.1.evil.example", "localhost.evil.example."] {
            assert!(!is_served(&[("host", host)]), "{host}");
        }
    }
}
