//! The keys that are used most, so that a server that begins with an empty memory can look for them first.

use std::cmp::Reverse;

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

/// Selects the keys of the most uses among any number of them.
#[derive(Debug)]
pub(super) struct HottestKeys {
    keys_max: usize,
    /// With their uses. Never more than twice `keys_max`.
    kept: Vec<(HotKey, u8)>,
}

impl HottestKeys {
    /// Selects at most `keys_max`.
    pub(super) fn new(keys_max: usize) -> HottestKeys {
        HottestKeys { keys_max, kept: Vec::new() }
    }

    /// Adds a key. Costs a constant time on average.
    pub(super) fn add(&mut self, hot: HotKey, uses: u8) {
        if self.keys_max == 0 {
            return;
        }
        if self.kept.len() >= self.keys_max * 2 {
            self.kept.select_nth_unstable_by_key(self.keys_max - 1, HottestKeys::rank);
            self.kept.truncate(self.keys_max);
        }
        self.kept.push((hot, uses));
    }

    /// The selected keys, the most used first.
    pub(super) fn into_ranked(mut self) -> Vec<HotKey> {
        self.kept.sort_unstable_by_key(HottestKeys::rank);
        self.kept.into_iter().take(self.keys_max).map(|(hot, _)| hot).collect()
    }

    fn rank((hot, uses): &(HotKey, u8)) -> (Reverse<u8>, Key) {
        (Reverse(*uses), hot.key)
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
    fn the_keys_of_the_most_uses_are_selected_among_many() {
        let selected = |keys_max, uses: &[(u8, u8)]| {
            let mut hottest = HottestKeys::new(keys_max);
            for &(n, uses) in uses {
                hottest.add(hot(n), uses);
                assert!(hottest.kept.len() <= keys_max * 2);
            }
            hottest.into_ranked()
        };
        let uses: Vec<(u8, u8)> = (0..=255_u8).map(|n| (n, n.wrapping_mul(77))).collect();
        let mut sorted = uses.clone();
        sorted.sort_by_key(|&(n, uses)| (Reverse(uses), n));
        for keys_max in [1, 2, 7, 200, 300] {
            let expected: Vec<HotKey> = sorted.iter().take(keys_max).map(|&(n, _)| hot(n)).collect();
            assert_eq!(selected(keys_max, &uses), expected, "{keys_max}");
        }
        assert!(selected(0, &uses).is_empty());
    }
}
