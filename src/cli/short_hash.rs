//! Hashes that tell the lines of a large file apart without holding them.

/// Half a hash: two of a billion lines are alike with a probability below 10^-20.
pub(super) type ShortHash = [u8; 16];

/// The hash of several texts, which does not depend on how they could be joined.
pub(super) fn short_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> ShortHash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let mut hash = ShortHash::default();
    hasher.finalize_xof().fill(&mut hash);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_otherwise_has_another_hash() {
        assert_eq!(short_hash(["ab", "c"]), short_hash(["ab", "c"]));
        assert_ne!(short_hash(["ab", "c"]), short_hash(["a", "bc"]));
    }
}
