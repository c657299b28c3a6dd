//! The index file of a sealed segment: which slots are good, and whose they are. It makes opening fast and nothing
//! else: it is derived, believed only if its checksum and the segment's salt agree, and rebuilt when it is not.

use super::segment::{Header, number_in};
use crate::domain::{Key, UnixSeconds};
use crate::error::{Error, Kind, Result};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};

/// The version of index files that is written.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"LKWSINDX";
const HEAD_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;

/// One good slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The first half of the key.
    pub key_prefix: [u8; 16],
    /// From here on the entry is not served.
    pub expires: UnixSeconds,
    /// The slot.
    pub slot: u32,
}

impl IndexEntry {
    /// An entry for `key`.
    pub fn new(key: &Key, expires: UnixSeconds, slot: u32) -> IndexEntry {
        let mut key_prefix = [0; 16];
        key_prefix.copy_from_slice(&key.0[..16]);
        IndexEntry { key_prefix, expires, slot }
    }

    /// What [`Key::prefix`] says of the key.
    pub fn prefix(&self) -> u64 {
        u64_at(&self.key_prefix, 0).unwrap_or_default()
    }
}

/// The file's bytes. `entries` are in the order of their slots.
pub fn encode(segment: &Header, entries: &[IndexEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + entries.len() * ENTRY_BYTES + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&u64::from(segment.number).to_le_bytes());
    bytes.extend_from_slice(&segment.salt);
    bytes.extend_from_slice(&segment.slot_count.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for entry in entries {
        bytes.extend_from_slice(&entry.key_prefix);
        bytes.extend_from_slice(&entry.expires.0.to_le_bytes());
        bytes.extend_from_slice(&entry.slot.to_le_bytes());
    }
    push_trailer(&mut bytes);
    bytes
}

/// Reads the index file of `segment`.
///
/// Errors: `Corrupt` if anything disagrees: checksum, version, salt, number, count, order.
pub fn decode(bytes: &[u8], segment: &Header) -> Result<Vec<IndexEntry>> {
    try_decode(bytes, segment)
        .ok_or_else(|| Error::new(Kind::Corrupt, "cannot read index file").with("segment", segment.number))
}

fn try_decode(bytes: &[u8], segment: &Header) -> Option<Vec<IndexEntry>> {
    let count = usize::try_from(u32_at(bytes, 12)?).ok()?;
    let is_ours = has_valid_trailer(bytes)
        && array_at(bytes, 0)? == MAGIC
        && u32_at(bytes, 8)? == VERSION
        && u64_at(bytes, 16)? == u64::from(segment.number)
        && array_at(bytes, 24)? == segment.salt
        && u32_at(bytes, 40)? == segment.slot_count
        && bytes.len() == count.checked_mul(ENTRY_BYTES)?.checked_add(HEAD_BYTES + 4)?;
    if !is_ours {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut next_slot = 0;
    for entry in bytes.get(HEAD_BYTES..bytes.len().checked_sub(4)?)?.chunks_exact(ENTRY_BYTES) {
        let slot = u32_at(entry, 20)?;
        if slot < next_slot || slot >= segment.slot_count {
            return None;
        }
        next_slot = slot + 1;
        let expires = UnixSeconds(u32_at(entry, 16)?);
        entries.push(IndexEntry { key_prefix: array_at(entry, 0)?, expires, slot });
    }
    Some(entries)
}

/// The longest index file that `segment` can have.
pub fn bytes_max(segment: &Header) -> u64 {
    (HEAD_BYTES + 4) as u64 + ENTRY_BYTES as u64 * u64::from(segment.slot_count)
}

/// The name of the index file of a segment.
pub fn index_name(number: u32) -> String {
    format!("{number:010}.idx")
}

/// The segment's number in the name of an index file, if it is one.
pub fn index_number(name: &str) -> Option<u32> {
    number_in(name, ".idx")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Header {
        Header::new(7, [9; 16], 100, 8192, UnixSeconds(5)).unwrap()
    }

    fn entries() -> Vec<IndexEntry> {
        [0, 3, 4].map(|slot| IndexEntry::new(&Key([slot as u8; 32]), UnixSeconds(slot), slot)).into()
    }

    #[test]
    fn an_index_file_comes_back_as_it_was() {
        assert_eq!(decode(&encode(&segment(), &entries()), &segment()).unwrap(), entries());
    }

    #[test]
    fn an_index_file_of_another_segment_is_refused() {
        let bytes = encode(&segment(), &entries());
        assert!(decode(&bytes, &Header { salt: [1; 16], ..segment() }).is_err());
        assert!(decode(&bytes, &Header { number: 8, ..segment() }).is_err());
    }

    #[test]
    fn damage_disorder_and_wrong_length_are_refused() {
        let good = encode(&segment(), &entries());
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert!(decode(&bytes, &segment()).is_err(), "byte {at}");
            assert!(decode(&good[..at], &segment()).is_err(), "cut at {at}");
        }
        let mut disordered = entries();
        disordered.reverse();
        assert!(decode(&encode(&segment(), &disordered), &segment()).is_err());
    }
}
