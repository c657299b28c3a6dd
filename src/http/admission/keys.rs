//! The API keys that clients may present.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};

use crate::domain::{KeyId, Principal, TenantId};
use crate::error::{Error, Kind, Result};
use crate::http::api_key::ApiKey;

/// Headers that hold nothing but a key, as clients of Azure, Anthropic and Google send them.
pub(super) const KEY_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// The keys in force with their principals. Keys are stored as hashes: `blake3::Hash` compares in constant time, and the
/// comparison reveals nothing of the secret.
pub(super) struct Keys(Vec<(blake3::Hash, Arc<Principal>)>);

impl Keys {
    pub(super) fn new(keys: &[ApiKey]) -> Keys {
        let principal = |id| Principal { tenant: TenantId::default(), key: Some(KeyId(id)) };
        let known = |(id, key): (usize, &ApiKey)| (blake3::hash(key.0.as_bytes()), Arc::new(principal(id)));
        Keys(keys.iter().enumerate().map(known).collect())
    }

    /// Whether requests need no key.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The principal of the key that a request presents; of several, the first.
    ///
    /// # Errors
    /// `Unauthorized` without a key, and if any of the presented ones is unknown.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<&Arc<Principal>> {
        let mut admitted = None;
        for value in headers.get_all(header::AUTHORIZATION) {
            let principal = self.check(header::AUTHORIZATION, bearer(value.as_bytes()))?;
            admitted = admitted.or(Some(principal));
        }
        for name in KEY_HEADERS {
            for value in headers.get_all(&name) {
                let principal = self.check(name.clone(), Some(value.as_bytes()))?;
                admitted = admitted.or(Some(principal));
            }
        }
        let message = "no API key: send `Authorization: Bearer KEY`, or KEY as `api-key` or `x-api-key`";
        admitted.ok_or_else(|| Error::new(Kind::Unauthorized, message))
    }

    /// Refuses a key that is not one of ours. A request with several is refused for any of them: which one it is for is a
    /// guess.
    fn check(&self, header: HeaderName, presented: Option<&[u8]>) -> Result<&Arc<Principal>> {
        let presented = presented.ok_or_else(|| {
            let message = "the header `authorization` holds no key: send `Authorization: Bearer KEY`";
            Error::new(Kind::Unauthorized, message)
        })?;
        let presented = blake3::hash(presented.trim_ascii());
        // Every key is compared, so the time does not depend on which one was near.
        let known = self.0.iter().fold(
            None,
            |known, (key, principal)| {
                if *key == presented { Some(principal) } else { known }
            },
        );
        known.ok_or_else(|| {
            Error::new(Kind::Unauthorized, format!("the API key in the header `{header}` is not known here"))
        })
    }
}

/// The token of a credential. The scheme is of any case (RFC 9110, section 11.1).
fn bearer(credential: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = credential.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// The keys of the options and of the file they name.
pub(in crate::http) fn read_keys(options: &crate::http::Options) -> Result<Vec<ApiKey>> {
    let mut keys = options.api_keys.clone();
    if let Some(path) = &options.api_keys_file {
        let text = fs_err::read_to_string(path)
            .map_err(|error| Error::new(Kind::Config, "cannot read http.api_keys_file").source(error))
            .map_err(|error| error.advise("write a file with one key a line and give its name"))?;
        keys.extend(
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| ApiKey(line.into())),
        );
    }
    let mut seen = HashSet::new();
    for key in &keys {
        if key.0.len() < 8 {
            return Err(Error::new(
                Kind::Config,
                "an API key of http.api_keys must have at least 8 characters",
            )
            .advise("make a long one with: openssl rand -hex 24"));
        }
        if !seen.insert(key.0.as_str()) {
            return Err(Error::new(Kind::Config, "an API key must not be configured twice")
                .advise("take one of the two out of http.api_keys or http.api_keys_file"));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_principal_of_a_request_names_its_first_key_and_never_the_secret() {
        let keys = Keys::new(&["secret-one", "secret-two"].map(|secret| ApiKey(secret.to_owned())));
        let admit = |headers: &[(HeaderName, &str)]| {
            let headers =
                headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            keys.admit(&headers).cloned()
        };
        let [bearer, second] =
            [(header::AUTHORIZATION, "Bearer secret-two"), (KEY_HEADERS[1].clone(), "secret-one")];
        let principal = admit(&[bearer.clone(), second]).unwrap();
        let expected = Principal { tenant: TenantId::default(), key: Some(KeyId(1)) };
        assert_eq!(*principal, expected);
        assert!(!format!("{principal:?}").contains("secret"));
        let wrong = admit(&[bearer, (KEY_HEADERS[0].clone(), "secret-three")]);
        assert_eq!(wrong.unwrap_err().kind(), Kind::Unauthorized);
    }
}
