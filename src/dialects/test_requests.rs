//! What the tests of several dialects need to compare the identities of requests.

use serde_json::Value;

use super::Dialect;
use crate::domain::{Key, TenantId};
use crate::request_identity::{IdentityRules, Partition};

/// A partition without a credential, a query or headers.
pub(super) fn partition(tenant: &TenantId) -> Partition<'_> {
    Partition {
        tenant,
        namespace: "llm_responses",
        credential: None,
        upstream: "http://one/v1",
        query: None,
        headers: &[],
    }
}

/// The key of a request by the default rules.
pub(super) fn key_of(dialect: &'static dyn Dialect, body: &Value) -> Key {
    let parsed = dialect.parse(body.to_string().as_bytes(), &IdentityRules::default()).expect("a request");
    parsed.identity(&partition(&TenantId::default())).key
}

/// Checks that each of the members called `names` is one as `null` and absent, and all of them together.
pub(super) fn assert_null_is_absent(dialect: &'static dyn Dialect, body: &Value, names: &[&str]) {
    let absent = key_of(dialect, body);
    let mut all = body.clone();
    for name in names {
        let mut one = body.clone();
        (one[name], all[name]) = (Value::Null, Value::Null);
        assert_eq!(key_of(dialect, &one), absent, "{dialect:?}: {name}");
    }
    assert_eq!(key_of(dialect, &all), absent, "{dialect:?}");
}
