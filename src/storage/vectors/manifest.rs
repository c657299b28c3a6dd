//! The manifest: which segments belong to the store, with their salts, and the next free number.
//!
//! Segments describe themselves, so a missing or damaged manifest is rebuilt from them. While it is whole it tells
//! what the segments cannot: that a file under a segment's name is another one, or that a segment has gone.

use crate::error::{Error, Kind, Result};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};

/// The manifest's name.
pub const MANIFEST_NAME: &str = "MANIFEST";
/// The version of manifests that is written.
pub const VERSION: u32 = 1;
/// The longest manifest that is read.
pub const MANIFEST_BYTES_MAX: u64 = 16 << 20;

const MAGIC: [u8; 8] = *b"LKWSMANI";
const HEAD_BYTES: usize = 24;
const ENTRY_BYTES: usize = 32;
const FLAG_SEALED: u32 = 1;

/// What the manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The number of the next segment. No number is ever given twice.
    pub next_number: u64,
    /// The segments, ascending by number.
    pub segments: Vec<Listing>,
}

/// One segment as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    /// Its number.
    pub number: u32,
    /// Its salt.
    pub salt: [u8; 16],
    /// Length of its payloads.
    pub payload_bytes: u32,
    /// Whether it takes no more slots.
    pub is_sealed: bool,
}

impl Manifest {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.segments.len() * ENTRY_BYTES + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.next_number.to_le_bytes());
        for segment in &self.segments {
            bytes.extend_from_slice(&u64::from(segment.number).to_le_bytes());
            bytes.extend_from_slice(&segment.salt);
            bytes.extend_from_slice(&segment.payload_bytes.to_le_bytes());
            bytes.extend_from_slice(&if segment.is_sealed { FLAG_SEALED } else { 0 }.to_le_bytes());
        }
        push_trailer(&mut bytes);
        bytes
    }

    /// Reads a manifest.
    ///
    /// Errors: `Format` for a version that is newer than this code, `Corrupt` for everything else.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let corrupt = || Error::new(Kind::Corrupt, "cannot read manifest");
        if array_at(bytes, 0) != Some(MAGIC) || !has_valid_trailer(bytes) {
            return Err(corrupt());
        }
        match u32_at(bytes, 8) {
            Some(VERSION) => Manifest::try_decode(bytes).ok_or_else(corrupt),
            Some(version) => Err(Error::new(Kind::Format, "cannot read manifest")
                .with("version", version)
                .with("reads", VERSION)),
            None => Err(corrupt()),
        }
    }

    fn try_decode(bytes: &[u8]) -> Option<Manifest> {
        let count = usize::try_from(u32_at(bytes, 12)?).ok()?;
        if bytes.len() != count.checked_mul(ENTRY_BYTES)?.checked_add(HEAD_BYTES + 4)? {
            return None;
        }
        let mut segments: Vec<Listing> = Vec::with_capacity(count);
        for entry in bytes.get(HEAD_BYTES..bytes.len().checked_sub(4)?)?.chunks_exact(ENTRY_BYTES) {
            let number = u32::try_from(u64_at(entry, 0)?).ok()?;
            if segments.last().is_some_and(|last| last.number >= number) {
                return None;
            }
            segments.push(Listing {
                number,
                salt: array_at(entry, 8)?,
                payload_bytes: u32_at(entry, 24)?,
                is_sealed: u32_at(entry, 28)? & FLAG_SEALED != 0,
            });
        }
        Some(Manifest { next_number: u64_at(bytes, 16)?, segments })
    }

    /// The listing of `number`.
    pub fn find(&self, number: u32) -> Option<&Listing> {
        let at = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        self.segments.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let listing = |number| Listing {
            number,
            salt: [number as u8; 16],
            payload_bytes: 1536,
            is_sealed: number == 1,
        };
        Manifest { next_number: 9, segments: vec![listing(1), listing(4)] }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        assert_eq!(Manifest::decode(&manifest().encode()).unwrap(), manifest());
        assert_eq!(manifest().find(4).unwrap().salt, [4; 16]);
        assert!(manifest().find(2).is_none());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = manifest().encode();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(Manifest::decode(&bytes).is_err(), "byte {at}");
            assert!(Manifest::decode(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_number_that_is_listed_twice_is_refused() {
        let mut manifest = manifest();
        manifest.segments.push(manifest.segments[1]);
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap_err().kind(), Kind::Corrupt);
    }
}
