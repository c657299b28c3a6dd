//! Tags, and what entries store of the tags and namespaces by which they are invalidated.

use super::{KeyHasher, TenantId};

/// Bytes that the name of a tag may have.
const TAG_BYTES_MAX: usize = 128;

/// The bits of an id that say which part of the answers that upstreams have stored it stands for.
const PART_BITS: u64 = 0xffff;

/// A tag or a namespace of a tenant, as 64 bits of its hash.
///
/// Two tags of the same hash are invalidated together: that costs misses, and never serves a wrong value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InvalidationId(pub u64);

impl InvalidationId {
    /// The tag called `tag`.
    pub fn tag(tenant: &TenantId, tag: &Tag) -> InvalidationId {
        InvalidationId::of("likewise/tag/v1", tenant, &tag.0)
    }

    /// The namespace called `name`.
    pub fn namespace(tenant: &TenantId, name: &str) -> InvalidationId {
        InvalidationId::of("likewise/namespace/v1", tenant, name)
    }

    /// The part of the tenant's answers in which the one is that its upstream has stored under `id`. There are 65,536 parts, so that at most
    /// so many ids of this kind are invalidated for a tenant, however many answers are deleted at upstreams. Answers of one part are hidden together.
    pub fn upstream_answer(tenant: &TenantId, id: &str) -> InvalidationId {
        let part = KeyHasher::new("likewise/upstream-answer/v1").field(id.as_bytes()).finish();
        InvalidationId(upstream_answers(tenant) | (part.prefix() & PART_BITS))
    }

    /// Whether it stands for a part of the answers that upstreams have stored for the tenant.
    pub fn is_upstream_answer(self, tenant: &TenantId) -> bool {
        self.0 & !PART_BITS == upstream_answers(tenant)
    }

    fn of(domain: &str, tenant: &TenantId, name: &str) -> InvalidationId {
        let key = KeyHasher::new(domain).field(tenant.as_str().as_bytes()).field(name.as_bytes()).finish();
        InvalidationId(key.prefix())
    }
}

/// What the ids of all parts of a tenant's answers that upstreams have stored begin with.
fn upstream_answers(tenant: &TenantId) -> u64 {
    InvalidationId::of("likewise/upstream-answers/v1", tenant, "").0 & !PART_BITS
}

/// The name of a tag, such as `product:42`: visible characters without commas and quotes, so that a list in a header can contain it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag(String);

impl Tag {
    /// The rule for names of tags, for messages.
    pub const RULE: &'static str =
        "a tag must have 1 to 128 bytes, without spaces, control characters, commas and double quotes";

    /// The tag called `name`; none if a tag cannot be called so ([`Tag::RULE`]).
    pub fn named(name: &str) -> Option<Tag> {
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, ',' | '"');
        let is_name = (1..=TAG_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain);
        is_name.then(|| Tag(name.to_owned()))
    }

    /// The tag that entries made from an entity carry: `type:id`. None if there is no such tag, or if the type has a
    /// colon, so that no two entities share a tag.
    pub fn entity(kind: &str, id: &str) -> Option<Tag> {
        let is_entity = !kind.is_empty() && !id.is_empty() && !kind.contains(':');
        if is_entity { Tag::named(&format!("{kind}:{id}")) } else { None }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A tag with its token when the loading of an entry began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagToken {
    /// The tag.
    pub tag: InvalidationId,
    /// Its token at that time; compared for equality, never for order.
    pub token: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tags_that_could_not_stand_in_a_list_are_refused() {
        for bad in ["", " ", "a b", "a,b", "a\"b", "a\n", &"x".repeat(TAG_BYTES_MAX + 1)] {
            assert_eq!(Tag::named(bad), None, "{bad:?}");
        }
        assert_eq!(Tag::named("año:niño-42").unwrap().as_str(), "año:niño-42");
    }

    #[test]
    fn an_entity_is_the_tag_of_its_type_and_id() {
        assert_eq!(Tag::entity("product", "42"), Tag::named("product:42"));
        assert_eq!((Tag::entity("a:b", "c"), Tag::entity("a", "")), (None, None));
    }

    #[test]
    fn stored_answers_of_upstreams_have_a_bounded_number_of_ids_which_are_known_as_such() {
        let (tenant, other) = (TenantId::default(), TenantId::named("other").unwrap());
        let id = |tenant: &TenantId, n: usize| InvalidationId::upstream_answer(tenant, &format!("resp_{n}"));
        let ids: HashSet<InvalidationId> = (0..4096).map(|n| id(&tenant, n)).collect();
        assert!((3900..4096).contains(&ids.len()), "they spread over the parts: {}", ids.len());
        assert!(ids.iter().all(|id| id.is_upstream_answer(&tenant) && !id.is_upstream_answer(&other)));
        assert_eq!(ids.iter().map(|id| id.0 & !PART_BITS).collect::<HashSet<u64>>().len(), 1);
        assert_ne!(id(&tenant, 1), id(&other, 1));
        let tag = InvalidationId::tag(&tenant, &Tag::named("resp_1").unwrap());
        assert!(!tag.is_upstream_answer(&tenant));
    }

    #[test]
    fn a_tag_and_a_namespace_of_one_name_differ() {
        let tenant = TenantId::default();
        let tag = InvalidationId::tag(&tenant, &Tag::named("products").unwrap());
        assert_ne!(tag, InvalidationId::namespace(&tenant, "products"));
        assert_ne!(
            tag,
            InvalidationId::tag(&TenantId::named("other").unwrap(), &Tag::named("products").unwrap())
        );
    }
}
