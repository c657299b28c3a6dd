//! The bytes of a segment: a header page, then slots of one size. Pure functions; the byte tables are in
//! `docs/internals/store-format.md` and change together with this file.

use std::sync::Arc;

use crate::domain::{Codec, Entry, EntryMeta, Key, UnixSeconds};
use crate::error::{Error, Kind, Result};
use crate::storage::codec::{codec_number, codec_of};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u16_at, u32_at, u64_at};

/// Length of the header page.
pub const HEADER_BYTES: usize = 4096;
/// Length of a slot without its payload.
pub const SLOT_HEADER_BYTES: usize = 64;
/// Slots and their payloads are padded to this.
pub const SLOT_ALIGNMENT: usize = 64;
/// The version of segments that is written.
pub const VERSION: u32 = 1;
/// The longest segment that is read, whatever its header says.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"LKWSVECS";
const CHECKSUM_AT: usize = 60;
const FLAG_TRUNCATED: u8 = 1;
/// The polynomial of CRC-32C, reflected (RFC 3720 appendix B.4): what the last bit of a text does to its checksum.
const CASTAGNOLI: u32 = 0x82F6_3B78;

/// What the header page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The segment's number; later segments have higher ones.
    pub number: u32,
    /// Random, and part of every checksum: bytes of another segment never verify here.
    pub salt: [u8; 16],
    /// Length of every payload in the segment.
    pub payload_bytes: u32,
    /// Slots in the file, written or not.
    pub slot_count: u32,
    /// When the segment was created.
    pub created: UnixSeconds,
}

impl Header {
    /// A header for as many slots as fit into `segment_bytes`.
    ///
    /// Errors: `TooLarge` if not a single one does, `InvalidInput` for an empty payload.
    pub fn new(
        number: u32,
        salt: [u8; 16],
        payload_bytes: u32,
        segment_bytes: u64,
        created: UnixSeconds,
    ) -> Result<Header> {
        if payload_bytes == 0 {
            return Err(Error::invalid("value", "a vector needs at least one byte"));
        }
        let room = segment_bytes.min(SEGMENT_BYTES_MAX).saturating_sub(HEADER_BYTES as u64);
        let slots = room / slot_bytes(payload_bytes);
        match u32::try_from(slots) {
            Ok(slot_count) if slot_count > 0 => {
                Ok(Header { number, salt, payload_bytes, slot_count, created })
            }
            _ => Err(Error::new(Kind::TooLarge, "fit a vector into a segment")
                .with("payload_bytes", payload_bytes)
                .with("segment_bytes", segment_bytes)),
        }
    }

    /// The header page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_BYTES);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        page.extend_from_slice(&u64::from(self.number).to_le_bytes());
        page.extend_from_slice(&self.salt);
        page.extend_from_slice(&self.payload_bytes.to_le_bytes());
        page.extend_from_slice(&(self.slot_bytes() as u32).to_le_bytes());
        page.extend_from_slice(&self.slot_count.to_le_bytes());
        page.extend_from_slice(&self.created.0.to_le_bytes());
        page.resize(HEADER_BYTES - 4, 0);
        push_trailer(&mut page);
        page
    }

    /// Reads a header page.
    ///
    /// Errors: `Format` for a version that is newer than this code, `Corrupt` for everything else.
    pub fn decode(page: &[u8]) -> Result<Header> {
        let corrupt = || Error::new(Kind::Corrupt, "cannot read segment header");
        if page.len() != HEADER_BYTES || array_at(page, 0) != Some(MAGIC) || !has_valid_trailer(page) {
            return Err(corrupt());
        }
        let version = u32_at(page, 8).ok_or_else(corrupt)?;
        if version != VERSION {
            return Err(Error::new(Kind::Format, "cannot read segment header")
                .with("version", version)
                .with("reads", VERSION));
        }
        let header = Header {
            number: u64_at(page, 16).and_then(|number| u32::try_from(number).ok()).ok_or_else(corrupt)?,
            salt: array_at(page, 24).ok_or_else(corrupt)?,
            payload_bytes: u32_at(page, 40).ok_or_else(corrupt)?,
            slot_count: u32_at(page, 48).ok_or_else(corrupt)?,
            created: UnixSeconds(u32_at(page, 52).ok_or_else(corrupt)?),
        };
        let slot_bytes = u32_at(page, 44).ok_or_else(corrupt)?;
        let is_plausible = header.payload_bytes > 0
            && header.slot_count > 0
            && u64::from(slot_bytes) == header.slot_bytes()
            && header.file_bytes() <= SEGMENT_BYTES_MAX;
        if is_plausible { Ok(header) } else { Err(corrupt()) }
    }

    /// Length of a slot.
    pub fn slot_bytes(&self) -> u64 {
        slot_bytes(self.payload_bytes)
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        // Both factors come from 32-bit fields, so that neither product nor sum can overflow: (2^32 + 127) * 2^32 + 2^12.
        (HEADER_BYTES as u64).saturating_add(self.slot_bytes().saturating_mul(u64::from(self.slot_count)))
    }

    /// Where `slot` begins.
    pub fn slot_offset(&self, slot: u32) -> u64 {
        (HEADER_BYTES as u64).saturating_add(self.slot_bytes().saturating_mul(u64::from(slot)))
    }

    /// Slots that a file of `file_bytes` holds completely.
    pub fn slots_in(&self, file_bytes: u64) -> u32 {
        let slots = file_bytes.saturating_sub(HEADER_BYTES as u64) / self.slot_bytes();
        u32::try_from(slots).unwrap_or(u32::MAX).min(self.slot_count)
    }

    /// Appends `entry` as `slot` to `bytes`. The value must be `payload_bytes` long.
    pub fn encode_slot(&self, slot: u32, key: &Key, entry: &Entry, bytes: &mut Vec<u8>) {
        debug_assert_eq!(entry.value.len(), self.payload_bytes as usize, "one payload size per segment");
        let start = bytes.len();
        let meta = &entry.meta;
        bytes.extend_from_slice(&key.0);
        bytes.extend_from_slice(&slot.to_le_bytes());
        bytes.extend_from_slice(&meta.cost_us.to_le_bytes());
        bytes.extend_from_slice(&meta.epoch.to_le_bytes());
        bytes.extend_from_slice(&meta.created.0.to_le_bytes());
        bytes.extend_from_slice(&meta.expires.0.to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(meta.tokens).unwrap_or(u16::MAX).to_le_bytes());
        bytes.push(codec_number(meta.codec));
        bytes.push(if meta.is_truncated { FLAG_TRUNCATED } else { 0 });
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&entry.value);
        bytes.resize(start + slot_bytes(self.payload_bytes) as usize, 0);
        if let Some(written) = bytes.get_mut(start..) {
            self.write_checksum(written);
        }
    }

    /// A slot that verifies and holds an entry of no key, which has ended: it says that there is nothing to miss here.
    pub fn encode_cleared(&self, slot: u32) -> Vec<u8> {
        let value = vec![0; self.payload_bytes as usize].into();
        let meta = EntryMeta::ending(Codec::Raw, self.created, UnixSeconds(0));
        let mut bytes = Vec::new();
        self.encode_slot(slot, &Key([0; 32]), &Entry { meta, value }, &mut bytes);
        bytes
    }

    /// Sets the checksum of a slot to what its other bytes make it.
    pub fn write_checksum(&self, slot: &mut [u8]) {
        let checksum = self.slot_checksum(slot);
        if let Some(place) = slot.get_mut(CHECKSUM_AT..SLOT_HEADER_BYTES) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
    }

    /// Reads `slot` from its bytes. Nothing of it is believed before the checksum holds.
    pub fn decode_slot<'a>(&self, slot: u32, bytes: &'a [u8]) -> Slot<'a> {
        self.try_decode_slot(slot, bytes)
            .unwrap_or_else(|| if bytes.iter().all(|&byte| byte == 0) { Slot::Empty } else { Slot::Bad })
    }

    fn try_decode_slot<'a>(&self, slot: u32, bytes: &'a [u8]) -> Option<Slot<'a>> {
        if bytes.len() as u64 != self.slot_bytes()
            || u32_at(bytes, CHECKSUM_AT)? != self.slot_checksum(bytes)
            || u32_at(bytes, 32)? != slot
        {
            return None;
        }
        let payload_end = SLOT_HEADER_BYTES.checked_add(self.payload_bytes as usize)?;
        Some(Slot::Good(Stored {
            key: Key(array_at(bytes, 0)?),
            cost_us: u32_at(bytes, 36)?,
            epoch: u64_at(bytes, 40)?,
            created: UnixSeconds(u32_at(bytes, 48)?),
            expires: UnixSeconds(u32_at(bytes, 52)?),
            tokens: u16_at(bytes, 56)?,
            codec: codec_of(*bytes.get(58)?)?,
            is_truncated: bytes.get(59)? & FLAG_TRUNCATED != 0,
            payload: bytes.get(SLOT_HEADER_BYTES..payload_end)?,
        }))
    }

    /// Whether a slot that does not verify would, if one of its bits were another: then it was whole once.
    ///
    /// Cost: about one pass over the slot. A checksum is linear: what one wrong bit does to it depends on the place of
    /// that bit only.
    pub fn is_one_bit_off(&self, slot: u32, bytes: &[u8]) -> bool {
        let Some(written) = u32_at(bytes, CHECKSUM_AT) else { return false };
        let difference = self.slot_checksum(bytes) ^ written;
        // One wrong bit of the checksum itself, or of the slot's number, which is checked beside it.
        if difference.is_power_of_two() {
            return u32_at(bytes, 32) == Some(slot);
        }
        let checked = bytes.len().saturating_sub(4);
        let mut effect = CASTAGNOLI;
        for _ in 0..checked * 8 {
            if effect == difference {
                return true;
            }
            effect = (effect >> 1) ^ if effect & 1 == 1 { CASTAGNOLI } else { 0 };
        }
        false
    }

    /// CRC-32C over salt, segment number, and the slot without the checksum itself.
    fn slot_checksum(&self, slot: &[u8]) -> u32 {
        let (head, tail) = slot.split_at(slot.len().min(CHECKSUM_AT));
        let checksum = crc32c::crc32c(&self.salt);
        let checksum = crc32c::crc32c_append(checksum, &u64::from(self.number).to_le_bytes());
        let checksum = crc32c::crc32c_append(checksum, head);
        crc32c::crc32c_append(checksum, tail.get(4..).unwrap_or_default())
    }
}

/// What a slot turned out to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot<'a> {
    /// Nothing was written: all bytes are zero.
    Empty,
    /// Something that does not verify.
    Bad,
    /// An entry.
    Good(Stored<'a>),
}

/// An entry as it lies in a verified slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The full key.
    pub key: Key,
    /// What making the value took, in microseconds.
    pub cost_us: u32,
    /// The namespace's epoch when the entry was made.
    pub epoch: u64,
    /// When the value was made.
    pub created: UnixSeconds,
    /// From here on the value is not served.
    pub expires: UnixSeconds,
    /// Tokens that the model read; 65,535 also stands for more.
    pub tokens: u16,
    /// How to read the payload.
    pub codec: Codec,
    /// Whether the model read only the beginning of the text.
    pub is_truncated: bool,
    /// The value.
    pub payload: &'a [u8],
}

impl Stored<'_> {
    /// The entry, in no namespace: the caller knows which. Vectors carry no tags and expire at one moment, so
    /// that all three expiries are the same.
    ///
    /// Cost: copies the payload.
    pub fn to_entry(&self, last_used: UnixSeconds) -> Entry {
        Entry {
            meta: EntryMeta {
                last_used,
                cost_us: self.cost_us,
                tokens: u32::from(self.tokens),
                is_truncated: self.is_truncated,
                epoch: self.epoch,
                ..EntryMeta::ending(self.codec, self.created, self.expires)
            },
            value: Arc::from(self.payload),
        }
    }
}

/// Length of a slot for payloads of `payload_bytes`.
pub fn slot_bytes(payload_bytes: u32) -> u64 {
    (SLOT_HEADER_BYTES as u64 + u64::from(payload_bytes)).next_multiple_of(SLOT_ALIGNMENT as u64)
}

/// The name of the segment's file.
pub fn segment_name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// The number in the name of a segment's file, if it is one.
pub fn segment_number(name: &str) -> Option<u32> {
    number_in(name, ".seg")
}

/// The number in a name of ten digits and `suffix`.
pub(crate) fn number_in(name: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_suffix(suffix)?;
    let is_ours = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_ours { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(7, [9; 16], 100, 8192, UnixSeconds(5)).unwrap()
    }

    fn entry() -> Entry {
        let meta = EntryMeta {
            last_used: UnixSeconds(3),
            cost_us: 4,
            tokens: 5,
            is_truncated: true,
            epoch: 6,
            ..EntryMeta::ending(Codec::F32, UnixSeconds(1), UnixSeconds(2))
        };
        Entry { meta, value: Arc::from([7_u8; 100]) }
    }

    #[test]
    fn a_vector_of_384_numbers_takes_1600_bytes() {
        assert_eq!(slot_bytes(384 * 4), 1600);
    }

    #[test]
    fn header_and_slot_come_back_as_they_were() {
        let header = header();
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        let mut bytes = Vec::new();
        header.encode_slot(3, &Key([8; 32]), &entry(), &mut bytes);
        assert_eq!(bytes.len() as u64, header.slot_bytes());
        let Slot::Good(stored) = header.decode_slot(3, &bytes) else { panic!("the slot is good") };
        assert_eq!(stored.key, Key([8; 32]));
        assert_eq!(stored.to_entry(UnixSeconds(3)), entry());
    }

    #[test]
    fn a_slot_verifies_only_at_its_place_in_its_segment() {
        let header = header();
        let mut bytes = Vec::new();
        header.encode_slot(3, &Key([8; 32]), &entry(), &mut bytes);
        assert_eq!(header.decode_slot(4, &bytes), Slot::Bad);
        let renumbered = Header { number: 8, ..header.clone() };
        assert_eq!(renumbered.decode_slot(3, &bytes), Slot::Bad);
        let resalted = Header { salt: [1; 16], ..header };
        assert_eq!(resalted.decode_slot(3, &bytes), Slot::Bad);
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_noticed() {
        let header = header();
        let mut bytes = Vec::new();
        header.encode_slot(3, &Key([8; 32]), &entry(), &mut bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert_eq!(header.decode_slot(3, &bytes), Slot::Bad, "byte {at} bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn one_wrong_bit_is_distinguished_from_a_slot_that_was_cut_off() {
        let header = header();
        let mut whole = Vec::new();
        header.encode_slot(3, &Key([8; 32]), &entry(), &mut whole);
        for at in (0..whole.len()).filter(|at| !(32..36).contains(at)) {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert!(header.is_one_bit_off(3, &bytes), "byte {at} bit {bit}");
            }
        }
        for end in [64, 100, 128] {
            let mut torn = whole.clone();
            torn[end..].fill(0);
            assert!(!header.is_one_bit_off(3, &torn), "cut at {end}");
        }
    }

    #[test]
    fn a_header_of_a_newer_version_is_distinguished_from_damage() {
        let mut page = header().encode();
        page.truncate(HEADER_BYTES - 4);
        page[8] = 2;
        push_trailer(&mut page);
        assert_eq!(Header::decode(&page).unwrap_err().kind(), Kind::Format);
        page[9] = 2;
        assert_eq!(Header::decode(&page).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn names_of_segments_are_recognised_exactly() {
        assert_eq!(segment_number(&segment_name(42)), Some(42));
        assert_eq!(segment_number("42.seg"), None);
        assert_eq!(segment_number("9999999999.seg"), None);
        assert_eq!(segment_number("+000000042.seg"), None);
    }
}
