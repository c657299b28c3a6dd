//! The index file of a sealed segment: what the table needs of each slot, so that opening reads a hundredth of the
//! bytes. It is derived: missing, damaged or of another segment, it is made anew from the slots.

use std::path::{Path, PathBuf};

use super::segment::{Header, u32_at};
use crate::domain::UnixSeconds;

const MAGIC: [u8; 8] = *b"LKWINDX\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 36;
const ROW_BYTES: usize = 12;

/// One slot, as the table sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Beginning of the key.
    pub(super) prefix: u64,
    /// End of the entry; zero for a slot that does not hold.
    pub(super) expires: UnixSeconds,
}

impl Row {
    /// A slot that does not hold.
    pub(super) const BAD: Row = Row { prefix: 0, expires: UnixSeconds(0) };
}

/// The index file of segment `number` in `dir`.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.idx"))
}

/// The bytes of an index file: one row for each slot, in order.
pub(super) fn encode(segment: &Header, rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + rows.len() * ROW_BYTES + 4);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(segment.number.to_le_bytes());
    bytes.extend(segment.salt);
    bytes.extend((rows.len() as u32).to_le_bytes());
    for row in rows {
        bytes.extend(row.prefix.to_le_bytes());
        bytes.extend(row.expires.0.to_le_bytes());
    }
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The rows of an index file, if it is whole and of this segment.
pub(super) fn decode(segment: &Header, bytes: &[u8]) -> Option<Vec<Row>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (header, rows) = body.split_at_checked(HEADER_BYTES)?;
    let count = u32_at(header, 32);
    let is_ours = header[..8] == MAGIC
        && u32_at(header, 8) == VERSION
        && u32_at(header, 12) == segment.number
        && header[16..32] == segment.salt
        && count <= segment.slots
        && rows.len() == count as usize * ROW_BYTES;
    is_ours.then(|| {
        rows.as_chunks::<ROW_BYTES>()
            .0
            .iter()
            .map(|row| Row {
                prefix: u64::from(u32_at(row, 0)) | u64::from(u32_at(row, 4)) << 32,
                expires: UnixSeconds(u32_at(row, 8)),
            })
            .collect()
    })
}
