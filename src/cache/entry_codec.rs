//! The encoding of entries in tiers below memory: a head with everything but the value, then the value. Pure functions; the
//! byte table is in `docs/internals/store-format.md` and changes together with this file. Lengths and checksums are those of
//! [`Record`].

use std::sync::Arc;

use crate::domain::{
    ContentCoding, Entry, EntryMeta, InvalidationId, Key, NamespaceId, TagToken, UnixSeconds,
};
use crate::storage::codec::{codec_number, codec_of};
use crate::storage::le_bytes::{array_at, u16_at, u32_at, u64_at};
use crate::storage::objects::{FLAG_OTHER_TENANT, HEAD_FIXED_BYTES, Record, TAG_BYTES};

/// The version of heads that is written where the bytes of the object are as they are.
const VERSION: u8 = 1;
/// The version of heads that name a content coding: a program that knows only version 1 would serve the bytes without it.
const VERSION_CODED: u8 = 2;
const FLAG_TRUNCATED: u8 = 1;

/// The record of an entry; `None` if a count does not fit into its field.
pub fn encode(key: &Key, entry: &Entry) -> Option<Record> {
    let meta = &entry.meta;
    let head_bytes = HEAD_FIXED_BYTES + meta.tags.len() * TAG_BYTES + meta.content_type.len() + 4;
    let mut head = Vec::with_capacity(head_bytes + entry.value.len());
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
    // Length and checksum of the value, which `Record::seal` fills in.
    head.extend([0; 8]);
    head.extend(u16::try_from(meta.tags.len()).ok()?.to_le_bytes());
    head.extend(u16::try_from(meta.content_type.len()).ok()?.to_le_bytes());
    head.extend(meta.namespace.invalidation_id().0.to_le_bytes());
    head.extend(meta.epoch.to_le_bytes());
    head.extend(meta.validator.to_le_bytes());
    for tag in &meta.tags {
        head.extend(tag.tag.0.to_le_bytes());
        head.extend(tag.token.to_le_bytes());
    }
    head.extend(meta.content_type.as_bytes());
    Record::seal(key, head, &entry.value)
}

/// The entry of a record; `None` if a newer program has encoded it.
pub fn decode(record: &Record) -> Option<Entry> {
    Some(Entry { meta: decode_head(record.head())?, value: Arc::from(record.value()) })
}

/// Everything but the value, of a head whose checksum holds.
pub fn decode_head(head: &[u8]) -> Option<EntryMeta> {
    let tags = usize::from(u16_at(head, 36)?);
    let tags_end = HEAD_FIXED_BYTES + tags * TAG_BYTES;
    let end = tags_end + usize::from(u16_at(head, 38)?);
    let content_coding = match *head.first()? {
        VERSION => ContentCoding::Identity,
        VERSION_CODED => coding_of(*head.get(3)?)?,
        _ => return None,
    };
    let flags = *head.get(2)?;
    let moment = |at| u32_at(head, at).map(UnixSeconds);
    let tag = |at| Some(TagToken { tag: InvalidationId(u64_at(head, at)?), token: u64_at(head, at + 8)? });
    Some(EntryMeta {
        soft_expires: moment(8)?,
        stale_until: moment(16)?,
        cost_us: u32_at(head, 20)?,
        tokens: u32_at(head, 24)?,
        is_truncated: flags & FLAG_TRUNCATED != 0,
        namespace: NamespaceId::from_parts(InvalidationId(u64_at(head, 40)?), flags & FLAG_OTHER_TENANT != 0),
        epoch: u64_at(head, 48)?,
        validator: u128::from_le_bytes(array_at(head, 56)?),
        tags: (0..tags).map(|n| tag(HEAD_FIXED_BYTES + n * TAG_BYTES)).collect::<Option<_>>()?,
        content_type: std::str::from_utf8(head.get(tags_end..end)?).ok()?.into(),
        content_coding,
        ..EntryMeta::ending(codec_of(*head.get(1)?)?, moment(4)?, moment(12)?)
    })
}

fn coding_number(coding: ContentCoding) -> u8 {
    match coding {
        ContentCoding::Identity => 0,
        ContentCoding::Gzip => 1,
        ContentCoding::Deflate => 2,
        ContentCoding::Brotli => 3,
        ContentCoding::Zstd => 4,
        ContentCoding::Compress => 5,
    }
}

fn coding_of(number: u8) -> Option<ContentCoding> {
    ContentCoding::ALL.into_iter().find(|&coding| coding_number(coding) == number)
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
            namespace: NamespaceId::from_parts(InvalidationId(7), true),
            epoch: 8,
            tags: [9, 10].map(|n| TagToken { tag: InvalidationId(n), token: n + 100 }).into(),
            content_type: "text/plain; charset=utf-8".into(),
            validator: 11 << 100,
            last_used: UnixSeconds(1),
            ..EntryMeta::ending(Codec::Zstd, UnixSeconds(1), UnixSeconds(3))
        };
        Entry { meta, value: Arc::from(&b"value"[..]) }
    }

    const KEY: Key = Key([1; 32]);

    fn record(entry: &Entry) -> Vec<u8> {
        let record = encode(&KEY, entry).unwrap();
        [record.head(), record.value()].concat()
    }

    fn decoded(key: &Key, bytes: &[u8]) -> Option<Entry> {
        decode(&Record::read(key, bytes.to_vec())?)
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = record(&entry());
        assert_eq!(decoded(&KEY, &record), Some(entry()));
        assert_eq!(decode_head(&record), Some(entry().meta));
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
            assert_eq!(decoded(&KEY, &record), Some(entry));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed_and_so_is_another_key() {
        let whole = record(&entry());
        assert_eq!(decoded(&Key([2; 32]), &whole), None);
        for at in 0..whole.len() {
            assert_eq!(decoded(&KEY, &whole[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(decoded(&KEY, &bytes), None, "byte {at} bit {bit}");
            }
        }
    }
}
