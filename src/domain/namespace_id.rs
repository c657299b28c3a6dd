//! The namespace of an entry, with the tenant that it belongs to.

use super::{InvalidationId, KeyHasher, TenantId};

/// The bits of the invalidation id of another tenant's namespace that are the tenant's; the others are the namespace's.
const TENANT_BITS: u64 = !0 << 24;

/// A namespace of a tenant, as entries store it.
///
/// One of the default tenant is the 64 bits of its [`InvalidationId`], as it was before there were other tenants. One of another
/// tenant is 40 bits of the tenant's invalidation id and 24 bits of its own. Packed: with more than these nine bytes the entries
/// in memory would be of the next size class of the allocator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(Rust, packed)]
pub struct NamespaceId {
    invalidation_id: InvalidationId,
    is_of_other_tenant: bool,
}

impl NamespaceId {
    /// The namespace called `name`.
    pub fn of(tenant: &TenantId, name: &str) -> NamespaceId {
        let own = InvalidationId::namespace(tenant, name);
        match NamespaceId::tenant_id_bits(tenant) {
            None => NamespaceId { invalidation_id: own, is_of_other_tenant: false },
            Some(tenant) => {
                let invalidation_id = InvalidationId(tenant.0 | (own.0 & !TENANT_BITS));
                NamespaceId { invalidation_id, is_of_other_tenant: true }
            }
        }
    }

    /// A namespace by what is stored of it.
    pub fn from_parts(invalidation_id: InvalidationId, is_of_other_tenant: bool) -> NamespaceId {
        NamespaceId { invalidation_id, is_of_other_tenant }
    }

    /// The invalidation id of invalidations of the namespace.
    pub fn invalidation_id(self) -> InvalidationId {
        self.invalidation_id
    }

    /// Whether its tenant is another one than the default tenant.
    pub fn is_of_other_tenant(self) -> bool {
        self.is_of_other_tenant
    }

    /// The invalidation id of invalidations of everything that its tenant has. `None` for the default tenant.
    pub fn tenant(self) -> Option<InvalidationId> {
        self.is_of_other_tenant.then_some(InvalidationId(self.invalidation_id.0 & TENANT_BITS))
    }

    /// As [`NamespaceId::tenant`], of the namespaces of `tenant`.
    pub fn tenant_id_bits(tenant: &TenantId) -> Option<InvalidationId> {
        let hash =
            || KeyHasher::new("likewise/tenant/v1").field(tenant.as_str().as_bytes()).finish().prefix();
        (!tenant.is_default()).then(|| InvalidationId(hash() & TENANT_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_names_its_tenant_and_that_of_the_default_tenant_is_its_id() {
        let (own, acme) = (TenantId::default(), TenantId::named("acme").unwrap());
        let shop = NamespaceId::of(&own, "shop");
        assert_eq!((shop.invalidation_id(), shop.tenant()), (InvalidationId::namespace(&own, "shop"), None));
        let [shop, stock] = ["shop", "stock"].map(|name| NamespaceId::of(&acme, name));
        assert_eq!(shop.tenant(), NamespaceId::tenant_id_bits(&acme));
        assert_eq!((shop.tenant(), shop == stock), (stock.tenant(), false));
        assert_eq!(NamespaceId::from_parts(shop.invalidation_id(), shop.is_of_other_tenant()), shop);
        let other = NamespaceId::of(&TenantId::named("globex").unwrap(), "shop");
        assert_ne!((shop.tenant(), shop), (other.tenant(), other));
    }

    #[test]
    fn the_metadata_of_an_entry_has_no_byte_to_spare() {
        assert_eq!((size_of::<NamespaceId>(), size_of::<crate::domain::Entry>()), (9, 112));
    }
}
