//! The keys that are used most, so that a node that begins with an empty memory can look for them first.

use std::collections::HashMap;

use crate::domain::{InvalidationId, Key, NamespaceId};
use crate::storage::le_bytes::{array_at, u64_at};

/// A key with what a lookup of it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HotKey {
    /// The key.
    pub key: Key,
    /// The namespace of its entry.
    pub namespace: NamespaceId,
    /// Whether its entry is an embedding.
    pub is_embedding: bool,
}

/// Bytes of a key in a list.
const KEY_BYTES: usize = 42;

impl HotKey {
    /// A list of keys: of each whether it is an embedding[1], whether its namespace is of another tenant than the default[1], the
    /// invalidation id of the namespace[8], key[32].
    pub fn encode(keys: &[HotKey]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(keys.len() * KEY_BYTES);
        for hot in keys {
            bytes.push(hot.is_embedding.into());
            bytes.push(hot.namespace.is_of_other_tenant().into());
            bytes.extend_from_slice(&hot.namespace.invalidation_id().0.to_le_bytes());
            bytes.extend_from_slice(&hot.key.0);
        }
        bytes
    }

    /// The keys of a list, as far as it is one.
    pub fn decode(bytes: &[u8]) -> Vec<HotKey> {
        bytes.chunks_exact(KEY_BYTES).filter_map(HotKey::read).collect()
    }

    fn read(bytes: &[u8]) -> Option<HotKey> {
        let [is_embedding, is_of_other_tenant] = array_at::<2>(bytes, 0)?;
        let id = InvalidationId(u64_at(bytes, 2)?);
        let namespace = NamespaceId::from_parts(id, is_of_other_tenant == 1);
        Some(HotKey { key: Key(array_at(bytes, 10)?), namespace, is_embedding: is_embedding == 1 })
    }
}

/// How often keys were used, as far as samples show it. Each ranking halves the counts, so that what is no longer used is forgotten, and
/// not more keys are counted than two samples between rankings have.
#[derive(Debug, Default)]
pub struct HotKeys(HashMap<HotKey, u32>);

impl HotKeys {
    /// Counts a sample of uses.
    pub fn add(&mut self, uses: impl IntoIterator<Item = HotKey>) {
        uses.into_iter().for_each(|hot| *self.0.entry(hot).or_default() += 1);
    }

    /// The keys that were used most, the first most often, at most `keys_max`.
    pub fn rank(&mut self, keys_max: usize) -> Vec<HotKey> {
        let mut ranked: Vec<(HotKey, u32)> = self.0.iter().map(|(hot, count)| (*hot, *count)).collect();
        ranked.sort_unstable_by_key(|&(hot, count)| (std::cmp::Reverse(count), hot.key));
        self.0.retain(|_, count| {
            *count /= 2;
            *count > 0
        });
        ranked.into_iter().take(keys_max).map(|(hot, _)| hot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(n: u8) -> HotKey {
        let namespace = NamespaceId::from_parts(InvalidationId(u64::from(n) << 40), n.is_multiple_of(2));
        HotKey { key: Key([n; 32]), namespace, is_embedding: n.is_multiple_of(3) }
    }

    #[test]
    fn a_list_comes_back_and_a_cut_one_as_far_as_it_goes() {
        let keys: Vec<HotKey> = (0..12).map(hot).collect();
        let bytes = HotKey::encode(&keys);
        assert_eq!((bytes.len(), HotKey::decode(&bytes)), (12 * KEY_BYTES, keys.clone()));
        assert_eq!(HotKey::decode(&bytes[..bytes.len() - 1]), keys[..11]);
        assert!(HotKey::decode(b"none").is_empty());
    }

    #[test]
    fn keys_are_ranked_by_their_uses_and_forgotten_without() {
        let mut keys = HotKeys::default();
        keys.add([1, 2, 2, 3, 3, 3, 3].map(hot));
        assert_eq!(keys.rank(2), [hot(3), hot(2)]);
        assert_eq!(keys.rank(9), [hot(3), hot(2)], "one use is half of nothing");
        assert_eq!(keys.rank(9), [hot(3)]);
        assert!(keys.rank(9).is_empty());
    }
}
