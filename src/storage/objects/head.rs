//! The bytes of an object's record: a head with everything but the value, then the value. Pure functions; the byte
//! table is in `docs/store-format.md` and changes together with this file.

use std::sync::Arc;

use crate::domain::{ContentCoding, Entry, EntryMeta, Key, NamespaceId, Subject, TagToken, UnixSeconds};
use crate::storage::codec::{codec_number, codec_of, coding_number, coding_of};
use crate::storage::le_bytes::{array_at, u16_at, u32_at, u64_at};

/// The version of heads that is written where the bytes of the object are as they are.
const VERSION: u8 = 1;
/// The version of heads that name a content coding: a program that knows only version 1 would serve the bytes without it.
const VERSION_CODED: u8 = 2;
/// Length of a head without tags, content type and checksum.
const FIXED_BYTES: usize = 72;
const TAG_BYTES: usize = 16;
const FLAG_TRUNCATED: u8 = 1;
const FLAG_OTHER_TENANT: u8 = 2;

/// A head, and what it says of the value that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Everything but the value.
    pub meta: EntryMeta,
    /// Length of the value.
    pub value_bytes: u32,
    /// CRC-32C of the value.
    value_checksum: u32,
    /// Length of the head itself.
    pub bytes: usize,
}

/// The head of an entry, or none if a count does not fit into its field.
pub fn encode_head(key: &Key, entry: &Entry) -> Option<Vec<u8>> {
    let meta = &entry.meta;
    let mut head =
        Vec::with_capacity(FIXED_BYTES + meta.tags.len() * TAG_BYTES + meta.content_type.len() + 4);
    let version = if meta.content_coding == ContentCoding::Identity { VERSION } else { VERSION_CODED };
    let is_of_other_tenant = u8::from(meta.namespace.is_of_other_tenant());
    let flags = (u8::from(meta.is_truncated) * FLAG_TRUNCATED) | (is_of_other_tenant * FLAG_OTHER_TENANT);
    let coding = coding_number(meta.content_coding);
    head.extend([version, codec_number(meta.codec), flags, coding]);
    for moment in [meta.created, meta.soft_expires, meta.expires, meta.stale_until] {
        head.extend(moment.0.to_le_bytes());
    }
    head.extend(meta.cost_us.to_le_bytes());
    head.extend(meta.tokens.to_le_bytes());
    head.extend(u32::try_from(entry.value.len()).ok()?.to_le_bytes());
    head.extend(crc32c::crc32c(&entry.value).to_le_bytes());
    head.extend(u16::try_from(meta.tags.len()).ok()?.to_le_bytes());
    head.extend(u16::try_from(meta.content_type.len()).ok()?.to_le_bytes());
    head.extend(meta.namespace.subject().0.to_le_bytes());
    head.extend(meta.epoch.to_le_bytes());
    head.extend(meta.validator.to_le_bytes());
    for version in &meta.tags {
        head.extend(version.tag.0.to_le_bytes());
        head.extend(version.token.to_le_bytes());
    }
    head.extend(meta.content_type.as_bytes());
    let checksum = checksum(key, &head);
    head.extend(checksum.to_le_bytes());
    Some(head)
}

/// Reads the head at the beginning of `bytes`. Nothing of it is believed before the checksum holds, which the key is
/// part of: a record under another key never verifies.
pub fn decode_head(key: &Key, bytes: &[u8]) -> Option<Head> {
    let tags = usize::from(u16_at(bytes, 36)?);
    let content_type_bytes = usize::from(u16_at(bytes, 38)?);
    let tags_end = FIXED_BYTES + tags * TAG_BYTES;
    let end = tags_end + content_type_bytes;
    if u32_at(bytes, end)? != checksum(key, bytes.get(..end)?) {
        return None;
    }
    let content_coding = match *bytes.first()? {
        VERSION => ContentCoding::Identity,
        VERSION_CODED => coding_of(*bytes.get(3)?)?,
        _ => return None,
    };
    let flags = *bytes.get(2)?;
    let moment = |at| u32_at(bytes, at).map(UnixSeconds);
    let version = |at| Some(TagToken { tag: Subject(u64_at(bytes, at)?), token: u64_at(bytes, at + 8)? });
    let meta = EntryMeta {
        soft_expires: moment(8)?,
        stale_until: moment(16)?,
        cost_us: u32_at(bytes, 20)?,
        tokens: u32_at(bytes, 24)?,
        is_truncated: flags & FLAG_TRUNCATED != 0,
        namespace: NamespaceId::from_parts(Subject(u64_at(bytes, 40)?), flags & FLAG_OTHER_TENANT != 0),
        epoch: u64_at(bytes, 48)?,
        validator: u128::from_le_bytes(array_at(bytes, 56)?),
        tags: (0..tags).map(|n| version(FIXED_BYTES + n * TAG_BYTES)).collect::<Option<_>>()?,
        content_type: std::str::from_utf8(bytes.get(tags_end..end)?).ok()?.into(),
        content_coding,
        ..EntryMeta::ending(codec_of(*bytes.get(1)?)?, moment(4)?, moment(12)?)
    };
    Some(Head { meta, value_bytes: u32_at(bytes, 28)?, value_checksum: u32_at(bytes, 32)?, bytes: end + 4 })
}

/// The entry of a whole record: head and value.
pub fn decode_record(key: &Key, record: &[u8]) -> Option<Entry> {
    let head = decode_head(key, record)?;
    let value = record.get(head.bytes..)?;
    let is_whole = value.len() == head.value_bytes as usize && crc32c::crc32c(value) == head.value_checksum;
    is_whole.then(|| Entry { meta: head.meta, value: Arc::from(value) })
}

/// CRC-32C over the key and a head without its checksum.
fn checksum(key: &Key, head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&key.0), head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Codec;

    fn entry() -> Entry {
        let meta = EntryMeta {
            soft_expires: UnixSeconds(2),
            stale_until: UnixSeconds(4),
            cost_us: 5,
            tokens: 6,
            is_truncated: true,
            namespace: NamespaceId::from_parts(Subject(7), true),
            epoch: 8,
            tags: [9, 10].map(|n| TagToken { tag: Subject(n), token: n + 100 }).into(),
            content_type: "text/plain; charset=utf-8".into(),
            validator: 11 << 100,
            last_used: UnixSeconds(1),
            ..EntryMeta::ending(Codec::Zstd, UnixSeconds(1), UnixSeconds(3))
        };
        Entry { meta, value: Arc::from(&b"value"[..]) }
    }

    fn record(entry: &Entry) -> Vec<u8> {
        [encode_head(&Key([1; 32]), entry).unwrap(), entry.value.to_vec()].concat()
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = record(&entry());
        assert_eq!(decode_record(&Key([1; 32]), &record), Some(entry()));
        assert_eq!(decode_head(&Key([1; 32]), &record).map(|head| head.meta), Some(entry().meta));
    }

    #[test]
    fn a_content_coding_comes_back_in_a_head_of_its_own_version() {
        let plain = record(&entry());
        assert_eq!((plain[0], plain[3]), (1, 0), "as before there were codings");
        for coding in ContentCoding::ALL {
            let mut entry = entry();
            entry.meta.content_coding = coding;
            let record = record(&entry);
            assert_eq!(record[0], if coding == ContentCoding::Identity { 1 } else { 2 });
            assert_eq!(decode_record(&Key([1; 32]), &record), Some(entry));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed_and_so_is_another_key() {
        let whole = record(&entry());
        assert_eq!(decode_record(&Key([2; 32]), &whole), None);
        for at in 0..whole.len() {
            assert_eq!(decode_record(&Key([1; 32]), &whole[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(decode_record(&Key([1; 32]), &bytes), None, "byte {at} bit {bit}");
            }
        }
    }
}
