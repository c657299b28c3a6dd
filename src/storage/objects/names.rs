//! The names of objects, in a table of their own that is ordered by namespace. The byte table is in `docs/internals/store-format.md` and
//! changes together with this file.

use std::sync::Arc;

use crate::domain::{EntryNames, InvalidationId, Key, NamespaceId};
use crate::storage::le_bytes::{array_at, u16_at};

const VERSION: u8 = 1;
/// Version and three lengths.
const FIXED_BYTES: usize = 7;
const CHECKSUM_BYTES: usize = 4;
/// Length of the bytes that order entries.
const POSITION_BYTES: usize = 41;
/// The bytes of a position before its key.
const NAMESPACE_BYTES: usize = POSITION_BYTES - 32;
/// The bytes that all positions of another tenant than the default one begin with: the flag, and 40 bits of the tenant.
const TENANT_BYTES: usize = 6;

/// Where an entry stands among all: they are in the order of their namespace, then of their key. It is the key of the entry's
/// record of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position([u8; POSITION_BYTES]);

impl Position {
    /// The position of an entry.
    pub fn of(namespace: NamespaceId, key: &Key) -> Position {
        let mut bytes = [0; POSITION_BYTES];
        bytes[..NAMESPACE_BYTES].copy_from_slice(&namespace_bytes(namespace));
        bytes[NAMESPACE_BYTES..].copy_from_slice(&key.0);
        Position(bytes)
    }

    /// The position that [`Position::as_bytes`] has returned. `None` for bytes of another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Position> {
        let bytes: [u8; POSITION_BYTES] = bytes.try_into().ok()?;
        (bytes[0] <= 1).then_some(Position(bytes))
    }

    /// The position as bytes, in whose order positions are.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The namespace of the entry.
    pub fn namespace(&self) -> NamespaceId {
        let mut id: [u8; 8] = array_at(&self.0, 1).unwrap_or_default();
        id.reverse();
        let id = u64::from_le_bytes(id);
        NamespaceId::from_parts(InvalidationId(id), self.0[0] == 1)
    }

    /// The key of the entry.
    pub fn key(&self) -> Key {
        Key(array_at(&self.0, NAMESPACE_BYTES).unwrap_or_default())
    }
}

fn namespace_bytes(namespace: NamespaceId) -> [u8; NAMESPACE_BYTES] {
    let mut bytes = [0; NAMESPACE_BYTES];
    bytes[..8].copy_from_slice(&namespace.invalidation_id().0.to_le_bytes());
    bytes[8] = namespace.is_of_other_tenant().into();
    // The highest first: the bits of the tenant are the high ones, so that its entries are beside each other.
    bytes.reverse();
    bytes
}

/// Which entries are scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanScope {
    /// Those of one namespace.
    Namespace(NamespaceId),
    /// Those of a tenant, by its invalidation id; of the default tenant without one.
    Tenant(Option<InvalidationId>),
}

impl ScanScope {
    /// The bytes that all positions within begin with.
    pub(super) fn prefix(&self) -> Vec<u8> {
        match *self {
            ScanScope::Namespace(namespace) => namespace_bytes(namespace).to_vec(),
            ScanScope::Tenant(None) => vec![0],
            ScanScope::Tenant(Some(tenant)) => {
                namespace_bytes(NamespaceId::from_parts(tenant, true))[..TENANT_BYTES].to_vec()
            }
        }
    }

    /// Whether an entry is within.
    pub fn contains(&self, position: &Position) -> bool {
        position.0.starts_with(&self.prefix())
    }
}

/// The names as the table stores them. `None` if one is too long for its length.
pub(super) fn encode(position: &Position, names: &EntryNames) -> Option<Vec<u8>> {
    let mut bytes = vec![VERSION];
    for length in [names.namespace.len(), names.key.len(), names.tags.len()] {
        bytes.extend(u16::try_from(length).ok()?.to_le_bytes());
    }
    bytes.extend(names.namespace.as_bytes());
    bytes.extend(names.key.as_bytes());
    for tag in &names.tags {
        bytes.extend(u16::try_from(tag.len()).ok()?.to_le_bytes());
        bytes.extend(tag.as_bytes());
    }
    bytes.extend(checksum(position, &bytes).to_le_bytes());
    Some(bytes)
}

/// The names of an entry. `None` if they do not verify. The checksum covers the position: names at another position never verify.
pub fn decode(position: &Position, bytes: &[u8]) -> Option<EntryNames> {
    let (body, trailer) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if *body.first()? != VERSION || checksum(position, body) != u32::from_le_bytes(*trailer) {
        return None;
    }
    let mut at = FIXED_BYTES;
    let mut text = |length: u16| {
        let end = at + usize::from(length);
        let text = std::str::from_utf8(body.get(at..end)?).ok()?;
        at = end;
        Some(text)
    };
    let namespace = Arc::from(text(u16_at(body, 1)?)?);
    let key = text(u16_at(body, 3)?)?.to_owned();
    let mut tags = Vec::new();
    for _ in 0..u16_at(body, 5)? {
        let length = u16_at(body, at)?;
        at += 2;
        let end = at + usize::from(length);
        tags.push(std::str::from_utf8(body.get(at..end)?).ok()?.to_owned());
        at = end;
    }
    (at == body.len()).then_some(EntryNames { namespace, key, tags })
}

/// CRC-32C over the position and the names.
fn checksum(position: &Position, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&position.0), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TenantId;

    fn names() -> EntryNames {
        let tags = vec!["product:42".to_owned(), "año".to_owned()];
        EntryNames { namespace: "shop".into(), key: "tea/green".into(), tags }
    }

    fn position(n: u8) -> Position {
        Position::of(NamespaceId::of(&TenantId::default(), "shop"), &Key([n; 32]))
    }

    #[test]
    fn names_come_back_and_no_flipped_bit_cut_or_other_position_is_believed() {
        let whole = encode(&position(1), &names()).unwrap();
        assert_eq!(decode(&position(1), &whole), Some(names()));
        assert_eq!(decode(&position(2), &whole), None);
        for at in 0..whole.len() {
            assert_eq!(decode(&position(1), &whole[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(decode(&position(1), &bytes), None, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_though_the_checksum_holds() {
        let body = encode(&position(1), &names()).unwrap();
        let body = &body[..body.len() - CHECKSUM_BYTES];
        for at in 1..FIXED_BYTES {
            let mut bytes = body.to_vec();
            bytes[at] = bytes[at].wrapping_add(1);
            bytes.extend(checksum(&position(1), &bytes).to_le_bytes());
            assert_ne!(decode(&position(1), &bytes), Some(names()), "byte {at}");
        }
    }

    #[test]
    fn a_scope_contains_the_positions_of_its_own_tenant_and_namespace() {
        let [own, acme, globex] = ["default", "acme", "globex"].map(|name| TenantId::named(name).unwrap());
        let key = Key([7; 32]);
        let at = |tenant: &TenantId, name| Position::of(NamespaceId::of(tenant, name), &key);
        for (tenant, others) in [(&own, [&acme, &globex]), (&acme, [&own, &globex])] {
            let all = ScanScope::Tenant(NamespaceId::tenant_id_bits(tenant));
            let shop = ScanScope::Namespace(NamespaceId::of(tenant, "shop"));
            assert!(all.contains(&at(tenant, "shop")) && all.contains(&at(tenant, "stock")));
            assert!(shop.contains(&at(tenant, "shop")) && !shop.contains(&at(tenant, "stock")));
            for other in others {
                assert!(!all.contains(&at(other, "shop")) && !shop.contains(&at(other, "shop")));
            }
        }
        let position = at(&acme, "shop");
        assert_eq!((position.namespace(), position.key()), (NamespaceId::of(&acme, "shop"), key));
        assert_eq!(Position::from_bytes(position.as_bytes()), Some(position));
        assert_eq!(Position::from_bytes(&position.as_bytes()[1..]), None);
    }
}
