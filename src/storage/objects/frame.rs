//! The frame of an object's record: what the store reads of a head without knowing what else it says. The byte table is in
//! `docs/internals/store-format.md` and changes together with this file and `src/cache/entry_codec.rs`, which writes the rest.

use std::ops::RangeInclusive;

use crate::domain::{InvalidationId, Key, NamespaceId, UnixSeconds};
use crate::storage::le_bytes::{u16_at, u32_at, u64_at};

/// Length of a head without tags, content type and checksum.
pub const HEAD_FIXED_BYTES: usize = 72;
/// Length of a tag in a head.
pub const TAG_BYTES: usize = 16;
/// The bit of the flags of a head whose namespace is of another tenant than the default one.
pub const FLAG_OTHER_TENANT: u8 = 2;

/// The versions of heads that this program reads.
const VERSIONS: RangeInclusive<u8> = 1..=2;
const VALUE_BYTES_AT: usize = 28;
const VALUE_CHECKSUM_AT: usize = 32;
const NAMESPACE_AT: usize = 40;

/// What a head says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFrame {
    /// When the value was made.
    pub created: UnixSeconds,
    /// From here on no client is served it.
    pub end: UnixSeconds,
    /// The namespace.
    pub namespace: NamespaceId,
    /// Length of the head.
    pub head_bytes: usize,
    /// Length of the value.
    pub value_bytes: u32,
    /// CRC-32C of the value.
    value_checksum: u32,
}

impl RecordFrame {
    /// The frame of the head at the beginning of `bytes`. Nothing of it is believed before the checksum holds, which the key is
    /// part of: a record under another key never verifies.
    pub fn read(key: &Key, bytes: &[u8]) -> Option<RecordFrame> {
        let tags = usize::from(u16_at(bytes, 36)?);
        let content_type_bytes = usize::from(u16_at(bytes, 38)?);
        let end = HEAD_FIXED_BYTES + tags * TAG_BYTES + content_type_bytes;
        let is_known = VERSIONS.contains(bytes.first()?);
        if !is_known || u32_at(bytes, end)? != checksum(key, bytes.get(..end)?) {
            return None;
        }
        Some(RecordFrame {
            created: UnixSeconds(u32_at(bytes, 4)?),
            end: UnixSeconds(u32_at(bytes, 16)?),
            namespace: NamespaceId::from_parts(
                InvalidationId(u64_at(bytes, NAMESPACE_AT)?),
                bytes.get(2)? & FLAG_OTHER_TENANT != 0,
            ),
            head_bytes: end + 4,
            value_bytes: u32_at(bytes, VALUE_BYTES_AT)?,
            value_checksum: u32_at(bytes, VALUE_CHECKSUM_AT)?,
        })
    }

    /// The frame of a whole record, if its value verifies too.
    pub fn of_record(key: &Key, record: &[u8]) -> Option<RecordFrame> {
        let frame = RecordFrame::read(key, record)?;
        let value = record.get(frame.head_bytes..)?;
        let is_whole =
            value.len() == frame.value_bytes as usize && crc32c::crc32c(value) == frame.value_checksum;
        is_whole.then_some(frame)
    }
}

/// A record whose checksums hold: a head, then the value that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    frame: RecordFrame,
}

impl Record {
    /// Joins a head and its value. The lengths and checksums of the head are filled in here; `None` if the value is too long for
    /// its field.
    pub fn seal(key: &Key, mut head: Vec<u8>, value: &[u8]) -> Option<Record> {
        let fields = [u32::try_from(value.len()).ok()?, crc32c::crc32c(value)];
        let target = head.get_mut(VALUE_BYTES_AT..VALUE_CHECKSUM_AT + 4)?;
        target.copy_from_slice(fields.map(u32::to_le_bytes).as_flattened());
        let checksum = checksum(key, &head);
        head.extend(checksum.to_le_bytes());
        let frame = RecordFrame::read(key, &head)?;
        head.extend_from_slice(value);
        Some(Record { bytes: head, frame })
    }

    /// The record that `bytes` are, if it verifies.
    pub fn read(key: &Key, bytes: Vec<u8>) -> Option<Record> {
        let frame = RecordFrame::of_record(key, &bytes)?;
        Some(Record { bytes, frame })
    }

    /// What its head says of it.
    pub fn frame(&self) -> &RecordFrame {
        &self.frame
    }

    /// The head, its checksum included.
    pub fn head(&self) -> &[u8] {
        &self.bytes[..self.frame.head_bytes]
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.bytes[self.frame.head_bytes..]
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// CRC-32C over the key and a head without its checksum.
fn checksum(key: &Key, head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&key.0), head)
}
