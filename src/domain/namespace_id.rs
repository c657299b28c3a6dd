//! The namespace of an entry, with the tenant that it belongs to.

use super::{KeyHasher, Subject, TenantId};

/// The bits of the subject of another tenant's namespace that are the tenant's; the others are the namespace's.
const TENANT_BITS: u64 = !0 << 24;

/// A namespace of a tenant, as entries store it.
///
/// One of the default tenant is the 64 bits of its [`Subject`], as it was before there were other tenants. One of another
/// tenant is 40 bits of the tenant's subject and 24 bits of its own. Packed: with more than these nine bytes the entries
/// in memory would be of the next size class of the allocator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(Rust, packed)]
pub struct NamespaceId {
    subject: Subject,
    is_of_other_tenant: bool,
}

impl NamespaceId {
    /// The namespace called `name`.
    pub fn of(tenant: &TenantId, name: &str) -> NamespaceId {
        let own = Subject::namespace(tenant, name);
        match NamespaceId::tenant_subject(tenant) {
            None => NamespaceId { subject: own, is_of_other_tenant: false },
            Some(tenant) => {
                let subject = Subject(tenant.0 | (own.0 & !TENANT_BITS));
                NamespaceId { subject, is_of_other_tenant: true }
            }
        }
    }

    /// A namespace by what is stored of it.
    pub fn from_parts(subject: Subject, is_of_other_tenant: bool) -> NamespaceId {
        NamespaceId { subject, is_of_other_tenant }
    }

    /// The subject of invalidations of the namespace.
    pub fn subject(self) -> Subject {
        self.subject
    }

    /// Whether its tenant is another one than the default tenant.
    pub fn is_of_other_tenant(self) -> bool {
        self.is_of_other_tenant
    }

    /// The subject of invalidations of everything that its tenant has. `None` for the default tenant.
    pub fn tenant(self) -> Option<Subject> {
        self.is_of_other_tenant.then_some(Subject(self.subject.0 & TENANT_BITS))
    }

    /// As [`NamespaceId::tenant`], of the namespaces of `tenant`.
    pub fn tenant_subject(tenant: &TenantId) -> Option<Subject> {
        let hash =
            || KeyHasher::new("likewise/tenant/v1").field(tenant.as_str().as_bytes()).finish().prefix();
        (!tenant.is_default()).then(|| Subject(hash() & TENANT_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_names_its_tenant_and_that_of_the_default_tenant_is_its_subject() {
        let (own, acme) = (TenantId::default(), TenantId::named("acme").unwrap());
        let shop = NamespaceId::of(&own, "shop");
        assert_eq!((shop.subject(), shop.tenant()), (Subject::namespace(&own, "shop"), None));
        let [shop, stock] = ["shop", "stock"].map(|name| NamespaceId::of(&acme, name));
        assert_eq!(shop.tenant(), NamespaceId::tenant_subject(&acme));
        assert_eq!((shop.tenant(), shop == stock), (stock.tenant(), false));
        assert_eq!(NamespaceId::from_parts(shop.subject(), shop.is_of_other_tenant()), shop);
        let other = NamespaceId::of(&TenantId::named("globex").unwrap(), "shop");
        assert_ne!((shop.tenant(), shop), (other.tenant(), other));
    }

    #[test]
    fn the_metadata_of_an_entry_has_no_byte_to_spare() {
        assert_eq!((size_of::<NamespaceId>(), size_of::<crate::domain::Entry>()), (9, 112));
    }
}
