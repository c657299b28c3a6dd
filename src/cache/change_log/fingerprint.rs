//! Which entry an event announces.

use xxhash_rust::xxh3::Xxh3;

use crate::domain::EntryMeta;

/// A hash of an entry: its moments, tags and tokens, and the hash of its value that conditional requests compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) struct EntryFingerprint(pub(in crate::cache) u64);

impl EntryFingerprint {
    /// Stays as it is while the entry is compressed, written and read. `None` if the entry has no hash of its value.
    pub(in crate::cache) fn of(meta: &EntryMeta) -> Option<EntryFingerprint> {
        if meta.validator == 0 {
            return None;
        }
        let mut hash = Xxh3::new();
        for moment in [meta.created, meta.soft_expires, meta.expires, meta.stale_until] {
            hash.update(&moment.0.to_le_bytes());
        }
        hash.update(&meta.cost_us.to_le_bytes());
        hash.update(&meta.tokens.to_le_bytes());
        hash.update(&meta.namespace.invalidation_id().0.to_le_bytes());
        hash.update(&meta.epoch.to_le_bytes());
        hash.update(&meta.validator.to_le_bytes());
        for tag in &meta.tags {
            hash.update(&tag.tag.0.to_le_bytes());
            hash.update(&tag.token.to_le_bytes());
        }
        hash.update(meta.content_type.as_bytes());
        Some(EntryFingerprint(hash.digest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Codec, UnixSeconds};

    #[test]
    fn it_outlasts_compression_and_use_and_no_other_change() {
        let meta =
            EntryMeta { validator: 7, ..EntryMeta::ending(Codec::Raw, UnixSeconds(1), UnixSeconds(9)) };
        let of = |meta: EntryMeta| EntryFingerprint::of(&meta);
        let expected = EntryFingerprint::of(&meta);
        assert_eq!(of(EntryMeta { codec: Codec::Zstd, ..meta.clone() }), expected);
        assert_eq!(of(EntryMeta { last_used: UnixSeconds(5), ..meta.clone() }), expected);
        assert_ne!(of(EntryMeta { validator: 8, ..meta.clone() }), expected);
        assert_ne!(of(EntryMeta { epoch: 1, ..meta.clone() }), expected);
        assert_ne!(of(EntryMeta { cost_us: 1, ..meta.clone() }), expected);
        assert_ne!(of(EntryMeta { expires: UnixSeconds(8), ..meta.clone() }), expected);
        assert_eq!(of(EntryMeta { validator: 0, ..meta }), None);
    }
}
