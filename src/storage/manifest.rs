//! The manifest: which segments there are. Replaced whole, by rename.

use std::path::{Path, PathBuf};

use super::segment::u32_at;
use crate::error::{Error, Kind, Result};

const MAGIC: [u8; 8] = *b"LKWMANI\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;
const ROW_BYTES: usize = 24;

/// A segment that the manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) number: u32,
    pub(super) salt: [u8; 16],
    /// Whether anything may still be appended to it.
    pub(super) is_sealed: bool,
}

/// The segments of a store, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The number of the next segment; never used before.
    pub(super) next_number: u32,
    pub(super) segments: Vec<Listed>,
}

/// The manifest's file in `dir`.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("MANIFEST")
}

impl Manifest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.segments.len() * ROW_BYTES + 4);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.next_number.to_le_bytes());
        bytes.extend((self.segments.len() as u32).to_le_bytes());
        for segment in &self.segments {
            bytes.extend(segment.number.to_le_bytes());
            bytes.extend(segment.salt);
            bytes.extend(u32::from(segment.is_sealed).to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// # Errors
    /// `Format` for a newer version, `Corrupt` for anything else that is no manifest of ours.
    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest> {
        let corrupt = || Error::new(Kind::Corrupt, "the manifest is damaged");
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(corrupt)?;
        let (header, rows) = body.split_at_checked(HEADER_BYTES).ok_or_else(corrupt)?;
        if header[..8] != MAGIC || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(corrupt());
        }
        let version = u32_at(header, 8);
        if version > VERSION {
            return Err(Error::new(Kind::Format, "the manifest was written by a newer version")
                .with("version", version)
                .with("supported", VERSION));
        }
        if u64::from(u32_at(header, 16)) * ROW_BYTES as u64 != rows.len() as u64 {
            return Err(corrupt());
        }
        let segments = rows.as_chunks::<ROW_BYTES>().0.iter().map(|row| {
            let mut salt = [0; 16];
            salt.copy_from_slice(&row[4..20]);
            Listed { number: u32_at(row, 0), salt, is_sealed: u32_at(row, 20) != 0 }
        });
        Ok(Manifest { next_number: u32_at(header, 12), segments: segments.collect() })
    }
}
