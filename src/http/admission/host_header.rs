//! The host that a request names: exactly one, and one that can be.

use std::net::Ipv6Addr;

use axum::http::{HeaderMap, Version, header};

use crate::error::{Error, Result};

/// Refuses a request whose `host` is missing, is given twice, or is none (RFC 9112, section 3.2): two readers of it could
/// take it for two different requests.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<()> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(host), None) => Err(fault(&format!("got {:?}", String::from_utf8_lossy(host.as_bytes())))),
        (Some(_), Some(_)) => Err(fault("got more than one")),
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(fault("got none")),
    }
}

fn fault(got: &str) -> Error {
    Error::invalid("host", format!("host must be one header with a host and perhaps a port, {got}"))
}

/// A name or an address, and perhaps a port (RFC 3986, sections 3.2.2 and 3.2.3). The name may be empty.
fn is_host(host: &[u8]) -> bool {
    let (name_is_valid, port) = if let Some(rest) = host.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
        (is_ipv6(&rest[..end]), &rest[end + 1..])
    } else {
        let end = host.iter().position(|&byte| byte == b':').unwrap_or(host.len());
        (host[..end].iter().all(|&byte| is_of_name(byte)), &host[end..])
    };
    name_is_valid && is_port(port)
}

fn is_ipv6(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

/// Nothing, or a colon and the digits of a number that ports have.
fn is_port(port: &[u8]) -> bool {
    let Some(digits) = port.strip_prefix(b":") else { return port.is_empty() };
    let number = digits.iter().try_fold(0_u16, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn is_served(version: Version, hosts: &[&'static str]) -> bool {
        let lines = hosts.iter().map(|host| (header::HOST, HeaderValue::from_static(host)));
        check(version, &HeaderMap::from_iter(lines)).is_ok()
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port_perhaps() {
        for host in [
            "localhost",
            "localhost:8420",
            "a.example:",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:65535",
            "my_service.local",
            "xn--bcher-kva.example",
            "",
        ] {
            assert!(is_served(Version::HTTP_11, &[host]), "{host:?}");
        }
        for host in [
            "a b", "a/b", "http://a", "user@a", "a:b", "a:1:2", "a:65536", "a:-1", "::1", "[::1", "[::1]x",
            "[]", "[a]", "a?b", "a#b", "a\\b", "a\"b", "<a>", "a:8420,b", "a\tb",
        ] {
            assert!(!is_served(Version::HTTP_11, &[host]), "{host:?}");
            assert!(!is_served(Version::HTTP_10, &[host]), "{host:?}");
        }
    }

    #[test]
    fn there_is_exactly_one() {
        assert!(!is_served(Version::HTTP_11, &[]));
        assert!(is_served(Version::HTTP_10, &[]));
        assert!(!is_served(Version::HTTP_11, &["a", "b"]));
        assert!(!is_served(Version::HTTP_11, &["a", "a"]));
        assert!(!is_served(Version::HTTP_10, &["a", "a"]));
    }
}
