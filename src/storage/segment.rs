//! A segment: a header page, then slots of one size, each written once. Bytes in `docs/store-format.md`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::StoredFile;
use super::mapped_file::MappedFile;
use super::{Files, ReadMode};
use crate::domain::{Codec, Entry, EntryMeta, Key, UnixSeconds};
use crate::error::{Error, Kind, Result};

/// Bytes of the header; slots begin behind it, on a page of their own.
pub(super) const HEADER_BYTES: u64 = 4096;
/// Bytes of a slot before its payload.
pub(super) const SLOT_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"LKWSEGM\0";
const VERSION: u32 = 1;
/// Bytes of the header that carry something, its checksum included.
const HEADER_USED: usize = 60;
/// The largest payload: a vector of 65,536 numbers.
const PAYLOAD_BYTES_MAX: u32 = 256 * 1024;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Unique and growing: of two slots of one key, that of the higher number holds.
    pub(super) number: u32,
    /// Random bytes that enter every checksum, so that a slot left over from another file never passes.
    pub(super) salt: [u8; 16],
    /// Bytes of every payload.
    pub(super) payload_bytes: u32,
    /// Slots that fit.
    pub(super) slots: u32,
    /// When it was made.
    pub(super) created: UnixSeconds,
}

impl Header {
    /// A header for a new segment.
    pub(super) fn new(
        number: u32,
        salt: [u8; 16],
        payload_bytes: u32,
        segment_bytes: u64,
        created: UnixSeconds,
    ) -> Header {
        let slots = segment_bytes.saturating_sub(HEADER_BYTES) / slot_bytes(payload_bytes);
        Header {
            number,
            salt,
            payload_bytes,
            slots: u32::try_from(slots).unwrap_or(u32::MAX).max(1),
            created,
        }
    }

    /// Bytes of a slot, a multiple of 64.
    pub(super) fn slot_bytes(&self) -> u64 {
        slot_bytes(self.payload_bytes)
    }

    /// Bytes of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        HEADER_BYTES + u64::from(self.slots) * self.slot_bytes()
    }

    /// Where a slot begins.
    pub(super) fn offset(&self, slot: u32) -> u64 {
        HEADER_BYTES + u64::from(slot) * self.slot_bytes()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_BYTES as usize);
        page.extend(MAGIC);
        page.extend(VERSION.to_le_bytes());
        page.extend(self.number.to_le_bytes());
        page.extend(self.salt);
        page.extend(self.payload_bytes.to_le_bytes());
        page.extend((self.slot_bytes() as u32).to_le_bytes());
        page.extend(self.slots.to_le_bytes());
        page.extend(self.created.0.to_le_bytes());
        page.resize(HEADER_USED - 4, 0);
        page.extend(crc32c::crc32c(&page).to_le_bytes());
        page.resize(HEADER_BYTES as usize, 0);
        page
    }

    /// Reads a header from the first bytes of a file.
    ///
    /// # Errors
    /// `Format` for a newer version, `Corrupt` for anything else that is no header of ours.
    pub(super) fn decode(page: &[u8]) -> Result<Header> {
        let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("the header of a segment has {what}"));
        let used = page.first_chunk::<HEADER_USED>().ok_or_else(|| corrupt("too few bytes"))?;
        if used[..8] != MAGIC {
            return Err(corrupt("no magic number"));
        }
        if crc32c::crc32c(&used[..HEADER_USED - 4]) != u32_at(used, HEADER_USED - 4) {
            return Err(corrupt("a wrong checksum"));
        }
        let version = u32_at(used, 8);
        if version > VERSION {
            return Err(Error::new(Kind::Format, "a segment was written by a newer version")
                .with("version", version)
                .with("supported", VERSION));
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&used[16..32]);
        let header = Header {
            number: u32_at(used, 12),
            salt,
            payload_bytes: u32_at(used, 32),
            slots: u32_at(used, 40),
            created: UnixSeconds(u32_at(used, 44)),
        };
        let is_sane = (1..=PAYLOAD_BYTES_MAX).contains(&header.payload_bytes)
            && header.slots > 0
            && u64::from(u32_at(used, 36)) == header.slot_bytes();
        if is_sane { Ok(header) } else { Err(corrupt("sizes that do not fit")) }
    }

    /// The checksum of a slot: its bytes but for the checksum itself, then salt and number of the segment.
    fn checksum(&self, slot: &[u8]) -> u32 {
        let crc = crc32c::crc32c(&slot[..SLOT_HEADER_BYTES - 4]);
        let crc = crc32c::crc32c_append(crc, &slot[SLOT_HEADER_BYTES..]);
        let crc = crc32c::crc32c_append(crc, &self.salt);
        crc32c::crc32c_append(crc, &self.number.to_le_bytes())
    }

    /// Appends the bytes of a slot to `buffer`. The value must have `payload_bytes` bytes.
    pub(super) fn encode_slot(&self, slot: u32, key: &Key, entry: &Entry, buffer: &mut Vec<u8>) {
        assert_eq!(entry.value.len(), self.payload_bytes as usize, "a value in a segment of its size");
        let start = buffer.len();
        let meta = &entry.meta;
        buffer.extend(key.0);
        buffer.extend(slot.to_le_bytes());
        buffer.extend(meta.cost_us.to_le_bytes());
        buffer.extend(meta.epoch.to_le_bytes());
        buffer.extend(meta.created.0.to_le_bytes());
        buffer.extend(meta.expires.0.to_le_bytes());
        buffer.extend(u16::try_from(meta.tokens).unwrap_or(u16::MAX).to_le_bytes());
        buffer.push(match meta.codec {
            Codec::Raw => 0,
            Codec::F32 => 1,
        });
        buffer.push(u8::from(meta.is_truncated));
        buffer.extend([0; 4]);
        buffer.extend(&*entry.value);
        buffer.resize(start + self.slot_bytes() as usize, 0);
        let crc = self.checksum(&buffer[start..]);
        buffer[start + SLOT_HEADER_BYTES - 4..start + SLOT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a slot. None unless checksum, salt, place and codec all hold.
    pub(super) fn decode_slot(&self, slot: u32, bytes: &[u8]) -> Option<(Key, Entry)> {
        if bytes.len() as u64 != self.slot_bytes()
            || u32_at(bytes, SLOT_HEADER_BYTES - 4) != self.checksum(bytes)
            || u32_at(bytes, 32) != slot
        {
            return None;
        }
        let codec = match bytes[58] {
            0 => Codec::Raw,
            1 => Codec::F32,
            _ => return None,
        };
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[..32]);
        let created = UnixSeconds(u32_at(bytes, 48));
        let expires = UnixSeconds(u32_at(bytes, 52));
        let meta = EntryMeta {
            created,
            soft_expires: expires,
            expires,
            stale_until: expires,
            last_used: created,
            cost_us: u32_at(bytes, 36),
            tokens: u32_at(bytes, 56) & 0xffff,
            is_truncated: bytes[59] & 1 == 1,
            tags: Box::default(),
            epoch: u64::from(u32_at(bytes, 40)) | u64::from(u32_at(bytes, 44)) << 32,
            codec,
            content_type: Arc::default(),
        };
        let value = bytes[SLOT_HEADER_BYTES..].get(..self.payload_bytes as usize)?;
        Some((Key(key), Entry { meta, value: value.into() }))
    }
}

fn slot_bytes(payload_bytes: u32) -> u64 {
    (SLOT_HEADER_BYTES as u64 + u64::from(payload_bytes)).next_multiple_of(64)
}

/// Little-endian u32 at a place that the caller has checked to be inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk::<4>().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// An open segment. Shared by `Arc`; its file lives until the last reader is gone.
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    file: Arc<dyn StoredFile>,
    mapping: Option<MappedFile>,
}

impl Segment {
    /// The file of segment `number` in `dir`.
    pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
        dir.join(format!("{number:08}.seg"))
    }

    /// Creates the file with its header, flushed; the caller publishes it by the manifest.
    pub(super) fn create(
        files: &dyn Files,
        dir: &Path,
        header: Header,
        read: ReadMode,
    ) -> io::Result<Segment> {
        let path = Segment::path(dir, header.number);
        let file = files.create(&path, header.file_bytes())?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        files.sync_dir(dir)?;
        Segment::over(path, file, header, read)
    }

    /// Opens the file of segment `number`.
    ///
    /// # Errors
    /// `Corrupt` or `Format` about the header, `Io` from the operating system.
    pub(super) fn open(files: &dyn Files, dir: &Path, number: u32, read: ReadMode) -> Result<Segment> {
        let path = Segment::path(dir, number);
        let fault = |error: io::Error| Error::io("open a segment", error).with("path", path.display());
        let file = files.open(&path).map_err(fault)?;
        let mut page = [0; HEADER_USED];
        file.read_exact_at(&mut page, 0).map_err(fault)?;
        let header = Header::decode(&page).map_err(|error| error.with("path", path.display()))?;
        if header.number != number {
            return Err(
                Error::new(Kind::Corrupt, "a segment carries another's number").with("path", path.display())
            );
        }
        Segment::over(path.clone(), file, header, read).map_err(fault)
    }

    fn over(path: PathBuf, file: Arc<dyn StoredFile>, header: Header, read: ReadMode) -> io::Result<Segment> {
        // A file that was cut is read by `pread`, which reports its end; a mapping would end the process there.
        let is_whole = file.size()? >= header.file_bytes();
        let mapping = if read == ReadMode::Mmap && is_whole { file.map()? } else { None };
        Ok(Segment { header, path, file, mapping })
    }

    /// The key and entry of a slot, if everything about it holds.
    ///
    /// Cost: copies the slot and checks it: about 0.3 µs for 1,600 bytes in the page cache.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn read(&self, slot: u32) -> io::Result<Option<(Key, Entry)>> {
        let mut bytes = vec![0; self.header.slot_bytes() as usize];
        let offset = self.header.offset(slot);
        match &self.mapping {
            Some(mapping) => mapping.copy(&mut bytes, offset)?,
            None => match self.file.read_exact_at(&mut bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                outcome => outcome?,
            },
        }
        Ok(self.header.decode_slot(slot, &bytes))
    }

    /// Writes encoded slots from `slot` on.
    pub(super) fn write(&self, slot: u32, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.header.offset(slot))
    }

    /// Makes all written slots survive a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
