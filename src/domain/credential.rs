//! By what a client shows who it is: the headers that hold keys, tokens and passwords.
//!
//! There is no list of them all, since each service has one of its own, so their names decide: `x-some-api-key` and
//! `x-some-token` are credentials, also those that are named here for the first time.

use std::fmt;

use bytes::Bytes;

/// What stands before a last word `key` or `token` that is no secret.
const NO_SECRETS: [&str; 12] = [
    "cache",
    "continuation",
    "csrf",
    "dedup",
    "idempotency",
    "next",
    "page",
    "partition",
    "routing",
    "sort",
    "surrogate",
    "xsrf",
];

/// Last words of names of credentials, beside `key` and `token`; and how such words end.
const WORDS: [&str; 11] = [
    "assertion",
    "auth",
    "bearer",
    "cert",
    "cookie2",
    "credential",
    "credentials",
    "jwt",
    "pass",
    "passphrase",
    "passwd",
];
const ENDINGS: [&str; 9] = [
    "accesskey",
    "apikey",
    "authentication",
    "authkey",
    "authorization",
    "cookie",
    "password",
    "secret",
    "token",
];

/// Credentials that are between a client and this server, or what stands before it: they are part of who asks, and never
/// passed on.
const OF_THIS_SERVER: [&str; 3] = ["cookie", "cookie2", "proxy-authorization"];

/// The credentials of a request, as they came. Cheap to clone; it never shows itself in logs or dumps.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Bytes);

/// The header in which an API expects a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHeader {
    /// The name of the header, in lower case.
    pub name: &'static str,
    /// What precedes the key in its value.
    pub prefix: &'static str,
}

impl KeyHeader {
    /// `authorization: Bearer KEY` (RFC 6750), as in OpenAI's API.
    pub const BEARER: KeyHeader = KeyHeader { name: "authorization", prefix: "Bearer " };
    /// `x-api-key: KEY`, as in Anthropic's API.
    pub const X_API_KEY: KeyHeader = KeyHeader { name: "x-api-key", prefix: "" };
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Credential {
    /// The credentials among the headers of a request, in the order of their names. `headers` gives names in lower case;
    /// values hold no line breaks. None if no header is a credential.
    pub fn of<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Credential> {
        let mut headers = headers.filter(|(name, _)| is_credential(name));
        let first = headers.next()?;
        // Nearly all requests have one, and need no list.
        let mut rest: Vec<_> = headers.collect();
        let mut lines = Vec::with_capacity(first.0.len() + first.1.len() + 2);
        if rest.is_empty() {
            write(first, &mut lines);
        } else {
            rest.insert(0, first);
            // Lines of one name stay in their order.
            rest.sort_by_key(|(name, _)| *name);
            rest.into_iter().for_each(|header| write(header, &mut lines));
        }
        Some(Credential(lines.into()))
    }

    /// The bytes that distinguish it from all other credentials.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The headers of it that may be passed on to an upstream that clients hold keys of.
    pub fn passed_on(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let lines = self.0.split(|byte| *byte == b'\n');
        lines.filter_map(read).filter(|(name, _)| !OF_THIS_SERVER.contains(name))
    }
}

fn write((name, value): (&str, &[u8]), lines: &mut Vec<u8>) {
    lines.extend_from_slice(name.as_bytes());
    lines.push(b':');
    lines.extend_from_slice(value);
    lines.push(b'\n');
}

/// The header that a line holds. No name has a colon.
fn read(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.iter().position(|byte| *byte == b':')?;
    Some((std::str::from_utf8(&line[..at]).ok()?, &line[at + 1..]))
}

/// Whether a header of a request, or a parameter of its query, is a credential, by its name in lower case.
pub fn is_credential(name: &str) -> bool {
    let mut words = name.rsplit(['-', '_', '.']);
    let last = words.next().unwrap_or_default();
    match last {
        "key" | "token" => {
            !name.starts_with("sec-") && words.next().is_none_or(|word| !NO_SECRETS.contains(&word))
        }
        last => WORDS.contains(&last) || ENDINGS.iter().any(|ending| last.ends_with(ending)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(headers: &[(&str, &str)]) -> Option<Credential> {
        Credential::of(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn names_tell_credentials() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cf-aig-authorization",
            "api-key",
            "api_key",
            "apikey",
            "x-api-key",
            "x-goog-api-key",
            "x-portkey-api-key",
            "ocp-apim-subscription-key",
            "x-functions-key",
            "x-rapidapi-key",
            "x-auth-token",
            "x-amz-security-token",
            "private-token",
            "token",
            "helicone-auth",
            "x-client-secret",
            "x-openai-apikey",
            "x-accesstoken",
            "x-my-authorization",
            "cf-access-jwt-assertion",
            "x-forwarded-client-cert",
            "cookie",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "accept",
            "content-type",
            "user-agent",
            "host",
            "idempotency-key",
            "x-idempotency-key",
            "sec-websocket-key",
            "x-csrf-token",
            "x-cache-tags",
            "openai-organization",
            "openai-project",
            "keys",
            "x-max-tokens",
            "traceparent",
        ] {
            assert!(!is_credential(name), "{name}");
        }
    }

    #[test]
    fn each_credential_and_each_of_its_lines_distinguishes_clients() {
        assert_eq!(credential(&[("accept", "a")]), None);
        let all = [
            credential(&[("api-key", "a")]),
            credential(&[("api-key", "")]),
            credential(&[("x-api-key", "a")]),
            credential(&[("authorization", "a")]),
            credential(&[("authorization", "a"), ("api-key", "a")]),
            credential(&[("authorization", "a"), ("api-key", "b")]),
            credential(&[("authorization", "a"), ("authorization", "b")]),
            credential(&[("authorization", "b"), ("authorization", "a")]),
            credential(&[("authorization", "a, b")]),
            credential(&[("authorization", "a:b")]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[..place].iter().all(|other| other != one), "{place}");
        }
        let (one, two) = (("authorization", "a"), ("api-key", "b"));
        assert_eq!(credential(&[one, ("accept", "x"), two]), credential(&[two, one]), "of any order");
    }

    #[test]
    fn what_is_between_client_and_server_is_not_passed_on() {
        let all = [("cookie", "c"), ("api-key", "k:1"), ("proxy-authorization", "p"), ("authorization", "a")];
        let credential = credential(&all).unwrap();
        let passed: Vec<_> = credential.passed_on().collect();
        assert_eq!(passed, [("api-key", &b"k:1"[..]), ("authorization", &b"a"[..])]);
        assert_eq!(format!("{credential:?}"), "***");
    }
}
