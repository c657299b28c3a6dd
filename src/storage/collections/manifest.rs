//! The manifest of a store of rows: what it is of, which segments and which log belong to it, and which rows are dead.

use super::salt::Salt;
use crate::error::{Error, Kind, Result};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"LKWSCOLL";
/// The version of manifests that is written.
const VERSION: u32 = 1;
/// The longest manifest that is read.
pub(super) const MANIFEST_BYTES_MAX: u64 = 256 << 20;
const HEAD_BYTES: usize = 64;
const ENTRY_BYTES: usize = 16;

/// What the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Random, the store's own: files of another store do not verify.
    pub salt: Salt,
    /// The number of the next file. No number is ever given twice.
    pub next_number: u64,
    /// The number of the log.
    pub log: u64,
    /// The version of the collection up to which segments and dead rows speak.
    pub version: u64,
    /// Length of the vectors.
    pub dim: u32,
    /// What the collection is of, as the search room encodes it.
    pub settings: Vec<u8>,
    /// The segments, oldest rows first.
    pub segments: Vec<Listing>,
}

/// One segment as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its number.
    pub number: u64,
    /// Its rows.
    pub rows: u32,
    /// One bit for each row, the lowest first: set where the row is dead. Empty where none is.
    pub dead: Vec<u8>,
}

impl Manifest {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.settings.len() + 4);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.segments.len() as u32).to_le_bytes());
        bytes.extend(self.salt);
        bytes.extend(self.next_number.to_le_bytes());
        bytes.extend(self.log.to_le_bytes());
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.dim.to_le_bytes());
        bytes.extend((self.settings.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.settings);
        for segment in &self.segments {
            bytes.extend(segment.number.to_le_bytes());
            bytes.extend(segment.rows.to_le_bytes());
            bytes.extend((segment.dead.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&segment.dead);
        }
        push_trailer(&mut bytes);
        bytes
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// `Format` for a version that is newer than this code, `Corrupt` for everything else.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let corrupt = || Error::new(Kind::Corrupt, "cannot read the manifest of a collection");
        if array_at(bytes, 0) != Some(MAGIC) || !has_valid_trailer(bytes) {
            return Err(corrupt());
        }
        match u32_at(bytes, 8) {
            Some(VERSION) => Manifest::try_decode(&bytes[..bytes.len() - 4]).ok_or_else(corrupt),
            Some(newer) if newer > VERSION => {
                Err(Error::new(Kind::Format, "cannot read the manifest of a collection")
                    .with("version", newer))
            }
            _ => Err(corrupt()),
        }
    }

    fn try_decode(bytes: &[u8]) -> Option<Manifest> {
        let mut at = HEAD_BYTES + u32_at(bytes, 60)? as usize;
        let mut segments: Vec<Listing> = Vec::new();
        for _ in 0..u32_at(bytes, 12)? {
            let (number, rows) = (u64_at(bytes, at)?, u32_at(bytes, at + 8)?);
            let dead_from = at + ENTRY_BYTES;
            at = dead_from.checked_add(u32_at(bytes, at + 12)? as usize)?;
            let dead = bytes.get(dead_from..at)?.to_vec();
            let fits = dead.is_empty() || dead.len() == (rows as usize).div_ceil(8);
            if !fits || segments.iter().any(|known| known.number == number) {
                return None;
            }
            segments.push(Listing { number, rows, dead });
        }
        let manifest = Manifest {
            salt: array_at(bytes, 16)?,
            next_number: u64_at(bytes, 32)?,
            log: u64_at(bytes, 40)?,
            version: u64_at(bytes, 48)?,
            dim: u32_at(bytes, 56)?,
            settings: bytes.get(HEAD_BYTES..HEAD_BYTES + u32_at(bytes, 60)? as usize)?.to_vec(),
            segments,
        };
        (at == bytes.len() && manifest.dim > 0).then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_nothing_else_is() {
        let manifest = Manifest {
            salt: [7; 16],
            next_number: 9,
            log: 8,
            version: 1234,
            dim: 384,
            settings: b"{}".to_vec(),
            segments: vec![
                Listing { number: 3, rows: 9, dead: vec![1, 1] },
                Listing { number: 2, rows: 5, dead: Vec::new() },
            ],
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        for cut in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..cut]).unwrap_err().kind(), Kind::Corrupt);
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(Manifest::decode(&flipped).is_err(), "byte {at}");
        }
    }
}
