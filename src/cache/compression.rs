//! How the tiers below memory keep values: as they came, or compressed where that pays. In memory values are as they
//! came, because there a hit is worth more than the bytes.

use std::cell::RefCell;
use std::sync::Arc;

use super::policy::{Compression, Policy};
use crate::domain::{Codec, ContentCoding, Entry, EntryMeta};
use crate::error::{Error, Kind, Result};

/// Shorter values are not worth the time.
const COMPRESSED_BYTES_MIN: usize = 1024;
/// Zstandard's own default: past it, time grows faster than what is saved.
const LEVEL: i32 = 3;

thread_local! {
    // Setting up a context costs more than decoding a short value.
    static DECODER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The entry as it is kept below memory. Vectors are never compressed: their bytes are noise.
pub(super) fn compress(policy: &Policy, entry: &Arc<Entry>) -> Arc<Entry> {
    let (value, meta) = (&entry.value, &entry.meta);
    let is_worth_trying = match policy.compression {
        Compression::None => false,
        Compression::Zstd => {
            meta.codec == Codec::Raw
                && meta.content_coding == ContentCoding::Identity
                && value.len() >= COMPRESSED_BYTES_MIN
                && is_text(&meta.content_type)
        }
    };
    if is_worth_trying
        && let Ok(compressed) = zstd::bulk::compress(value, LEVEL)
        && compressed.len() <= value.len() - value.len() / 8
    {
        let meta = EntryMeta { codec: Codec::Zstd, ..meta.clone() };
        return Arc::new(Entry { meta, value: compressed.into() });
    }
    Arc::clone(entry)
}

/// The entry as it was given.
///
/// # Errors
/// `Corrupt` if its bytes do not decode to at most as many as the policy allows.
pub(super) fn decompress(value_bytes_max: usize, entry: Entry) -> Result<Entry> {
    match entry.meta.codec {
        Codec::Raw | Codec::F32 => Ok(entry),
        Codec::Zstd => {
            let value = decompress_bytes(&entry.value, value_bytes_max)
                .map_err(|error| Error::new(Kind::Corrupt, "cannot decompress a value").source(error))?;
            Ok(Entry { meta: EntryMeta { codec: Codec::Raw, ..entry.meta }, value: value.into() })
        }
    }
}

fn decompress_bytes(compressed: &[u8], bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let bytes = zstd::bulk::Decompressor::upper_bound(compressed).unwrap_or(bytes_max).min(bytes_max);
    DECODER.with_borrow_mut(|decoder| match decoder {
        Some(decoder) => decoder.decompress(compressed, bytes),
        None => decoder.insert(zstd::bulk::Decompressor::new()?).decompress(compressed, bytes),
    })
}

/// Whether a media type is of text, by its registered name (RFC 6838) or its suffix.
fn is_text(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = ["application/json", "application/xml", "application/javascript", "application/yaml"];
    essence.starts_with("text/")
        || known.contains(&essence.as_str())
        || ["+json", "+xml", "+yaml", "json-seq", "ndjson", "jsonlines"]
            .iter()
            .any(|end| essence.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Namespaces;
    use crate::domain::UnixSeconds;

    fn policy(compression: Compression) -> Policy {
        let namespaces = Namespaces::new(&Default::default(), true).unwrap();
        let namespace = namespaces.resolve(&Default::default(), "products").unwrap();
        Policy { compression, ..(*namespace.policy).clone() }
    }

    fn entry(content_type: &str, value: &[u8]) -> Arc<Entry> {
        let meta = EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds(1));
        Arc::new(Entry { meta: EntryMeta { content_type: content_type.into(), ..meta }, value: value.into() })
    }

    fn round_trip(content_type: &str, value: &[u8]) -> (Codec, usize) {
        let given = entry(content_type, value);
        let packed = compress(&policy(Compression::Zstd), &given);
        assert_eq!(decompress(1 << 20, (*packed).clone()).unwrap(), *given);
        (packed.meta.codec, packed.value.len())
    }

    #[test]
    fn text_is_compressed_where_it_pays_and_nothing_else_is() {
        let text = "camiseta azul de algodón ".repeat(100);
        let (codec, bytes) = round_trip("application/json; charset=utf-8", text.as_bytes());
        assert_eq!(codec, Codec::Zstd);
        assert!(bytes < text.len() / 4);
        assert_eq!(round_trip("image/png", text.as_bytes()).0, Codec::Raw);
        assert_eq!(round_trip("text/plain", b"short").0, Codec::Raw);
        let noise: Vec<u8> = (0..300_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        assert_eq!(round_trip("text/plain", &noise).0, Codec::Raw);
        let text = entry("text/plain", text.as_bytes());
        assert_eq!(compress(&policy(Compression::None), &text).meta.codec, Codec::Raw);
    }

    #[test]
    fn a_frame_that_is_damaged_or_too_long_is_an_error() {
        let packed = compress(&policy(Compression::Zstd), &entry("text/plain", &[b'a'; 5000]));
        assert_eq!(decompress(4999, (*packed).clone()).unwrap_err().kind(), Kind::Corrupt);
        let cut = Entry { meta: packed.meta.clone(), value: packed.value[..packed.value.len() - 3].into() };
        assert_eq!(decompress(1 << 20, cut).unwrap_err().kind(), Kind::Corrupt);
    }
}
