//! Identity: what makes two pieces of work the same.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// The identity of an entry: BLAKE3-256 over length-prefixed fields.
///
/// Texts are untrusted, so the hash is cryptographic, and all 32 bytes are compared before a value is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The first eight bytes as a number: a good hash for a table, never an identity.
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// The first sixteen bytes as a number.
    pub fn half(&self) -> u128 {
        u128::from_le_bytes(std::array::from_fn(|at| self.0[at]))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Builds a [`Key`] from fields.
///
/// Each field is preceded by its length as eight little-endian bytes, so no two different lists of fields feed the
/// hash the same bytes.
///
/// ```
/// use likewise::domain::KeyHasher;
/// let ab_c = KeyHasher::new("example").field(b"ab").field(b"c").finish();
/// let a_bc = KeyHasher::new("example").field(b"a").field(b"bc").finish();
/// assert_ne!(ab_c, a_bc);
/// ```
///
/// Short fields are gathered and hashed at once: the state of a hash that is still open is two kilobytes, which would cost
/// more to set up and move than most keys do to hash.
#[derive(Debug, Clone)]
pub struct KeyHasher {
    gathered: Vec<u8>,
    /// Once there was a long field: all that came before what is gathered.
    open: Option<Box<blake3::Hasher>>,
}

/// Longer fields are hashed where they lie.
const SHORT_BYTES_MAX: usize = 4096;
/// Bytes that hold the fields of most keys.
const GATHERED_BYTES: usize = 256;

impl KeyHasher {
    /// Starts a key of `domain`, the name of the family of keys with its version.
    pub fn new(domain: &str) -> KeyHasher {
        let mut hasher = KeyHasher { gathered: Vec::with_capacity(GATHERED_BYTES), open: None };
        hasher.field(domain.as_bytes());
        hasher
    }

    /// Adds one field.
    pub fn field(&mut self, bytes: &[u8]) -> &mut KeyHasher {
        self.gathered.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        if bytes.len() <= SHORT_BYTES_MAX {
            self.gathered.extend_from_slice(bytes);
        } else {
            let open = self.open.get_or_insert_default();
            open.update(&self.gathered).update(bytes);
            self.gathered.clear();
        }
        self
    }

    /// The key of all fields so far.
    pub fn finish(&self) -> Key {
        let hash = match &self.open {
            None => blake3::hash(&self.gathered),
            Some(open) => open.clone().update(&self.gathered).finalize(),
        };
        Key(*hash.as_bytes())
    }
}

/// Hashes keys for tables. They are uniform already; hashing them again would only cost time.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByPrefix;

/// Takes the first eight bytes as the hash. `Key` feeds its length, ignored here, then its bytes.
#[derive(Debug)]
pub struct PrefixHasher(u64);

impl BuildHasher for ByPrefix {
    type Hasher = PrefixHasher;
    fn build_hasher(&self) -> PrefixHasher {
        PrefixHasher(0)
    }
}

impl Hasher for PrefixHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The identity of a model: everything that can change a vector is hashed into it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_be_shifted_into_each_other() {
        let one = KeyHasher::new("d").field(b"a:b").field(b"c").finish();
        let two = KeyHasher::new("d").field(b"a").field(b"b:c").finish();
        let three = KeyHasher::new("d").field(b"a:b").field(b"c").field(b"").finish();
        assert!(one != two && one != three && two != three);
    }

    #[test]
    fn a_key_is_the_hash_of_lengths_and_fields_however_long_they_are() {
        for lengths in [vec![0, 1], vec![SHORT_BYTES_MAX], vec![3, SHORT_BYTES_MAX + 1, 5, 100_000, 7]] {
            let (mut hasher, mut bytes) = (KeyHasher::new("d"), [&1_u64.to_le_bytes()[..], b"d"].concat());
            for length in lengths {
                let field = vec![b'x'; length];
                hasher.field(&field);
                bytes.extend((length as u64).to_le_bytes());
                bytes.extend(field);
            }
            assert_eq!(hasher.finish().0, *blake3::hash(&bytes).as_bytes());
        }
    }

    #[test]
    fn keys_spread_over_the_table_by_their_own_bytes() {
        let key = |field: &[u8]| KeyHasher::new("d").field(field).finish();
        let (one, two) = (key(b"1"), key(b"2"));
        assert_eq!(ByPrefix.hash_one(one), one.prefix());
        assert_ne!(ByPrefix.hash_one(one), ByPrefix.hash_one(two));
    }
}
