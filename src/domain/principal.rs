//! The sender of a request: the tenant whose data it reaches, and the key that it presented.

use std::sync::Arc;

/// Bytes that the name of a tenant may have.
const TENANT_BYTES_MAX: usize = 64;
/// The tenant of every key, and of a server without keys.
const DEFAULT_TENANT: &str = "default";

/// The name of a tenant: 1 to 64 letters (a to z), digits, `-` and `_`, so that it can be a part of a file's name.
///
/// Tenants share no entry, no tag, no namespace and no collection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The tenant called `name`; none if no tenant can be called so.
    pub fn named(name: &str) -> Option<TenantId> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_name = (1..=TENANT_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
        is_name.then(|| TenantId(name.into()))
    }

    /// Whether it is the tenant of a server that knows no others.
    pub fn is_default(&self) -> bool {
        self.as_str() == DEFAULT_TENANT
    }

    /// The name, as it enters keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> TenantId {
        TenantId(DEFAULT_TENANT.into())
    }
}

/// An API key, by its position in the list of keys; never the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub usize);

/// The sender of a request, as admission knows it. Shared by `Arc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principal {
    /// The tenant whose data the request reaches.
    pub tenant: TenantId,
    /// The key that the request presented; none if the server requires none, and for commands.
    pub key: Option<KeyId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_not_be_a_part_of_a_file_name_are_refused() {
        for bad in ["", "a.b", "a/b", "a@b", "a b", "ñ", &"x".repeat(TENANT_BYTES_MAX + 1)] {
            assert_eq!(TenantId::named(bad), None, "{bad:?}");
        }
        assert_eq!(TenantId::named("default"), Some(TenantId::default()));
        assert!(TenantId::default().is_default() && !TenantId::named("acme_2").unwrap().is_default());
    }
}
