//! The secret of a client.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A secret that a client presents as `Authorization: Bearer`, or in a header that holds nothing but a key. It never shows itself in logs or dumps.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct ApiKey(pub(super) String);

impl From<String> for ApiKey {
    fn from(secret: String) -> ApiKey {
        ApiKey(secret)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for ApiKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}
