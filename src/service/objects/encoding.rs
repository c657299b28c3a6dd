//! How an object's bytes are kept: as they came, or compressed where that pays.

use std::cell::RefCell;
use std::sync::Arc;

use crate::cache::Compression;
use crate::domain::{Codec, Entry};
use crate::error::{Error, Kind, Result};

/// Shorter values are not worth the time.
const COMPRESSED_BYTES_MIN: usize = 1024;
/// Zstandard's own default: past it, time grows faster than what is saved.
const LEVEL: i32 = 3;

thread_local! {
    // Setting up a context costs more than decoding a short value.
    static DECODER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The bytes as they are kept. Vectors never come here.
pub(super) fn encode(compression: Compression, content_type: &str, value: &[u8]) -> (Codec, Arc<[u8]>) {
    let is_worth_trying = match compression {
        Compression::None => false,
        Compression::Zstd => value.len() >= COMPRESSED_BYTES_MIN && is_text(content_type),
    };
    if is_worth_trying
        && let Ok(compressed) = zstd::bulk::compress(value, LEVEL)
        && compressed.len() <= value.len() - value.len() / 8
    {
        return (Codec::Zstd, compressed.into());
    }
    (Codec::Raw, value.into())
}

/// The bytes as they were given, at most `bytes_max` of them.
///
/// # Errors
/// `Corrupt` if they do not decode.
pub(super) fn decode(entry: &Entry, bytes_max: usize) -> Result<bytes::Bytes> {
    match entry.meta.codec {
        Codec::Raw | Codec::F32 => Ok(bytes::Bytes::from_owner(Arc::clone(&entry.value))),
        Codec::Zstd => decompress(&entry.value, bytes_max)
            .map(bytes::Bytes::from)
            .map_err(|error| Error::new(Kind::Corrupt, "decompress an object").source(error)),
    }
}

fn decompress(compressed: &[u8], bytes_max: usize) -> std::io::Result<Vec<u8>> {
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
    use crate::domain::{EntryMeta, UnixSeconds};

    fn round_trip(content_type: &str, value: &[u8]) -> (Codec, usize) {
        let (codec, kept) = encode(Compression::Zstd, content_type, value);
        let bytes = kept.len();
        let entry = Entry { meta: EntryMeta::ending(codec, UnixSeconds(0), UnixSeconds(1)), value: kept };
        assert_eq!(decode(&entry, 1 << 20).unwrap(), value);
        (codec, bytes)
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
        assert_eq!(encode(Compression::None, "text/plain", text.as_bytes()).0, Codec::Raw);
    }

    #[test]
    fn a_frame_that_is_damaged_or_too_long_is_an_error() {
        let (codec, kept) = encode(Compression::Zstd, "text/plain", &[b'a'; 5000]);
        let meta = EntryMeta::ending(codec, UnixSeconds(0), UnixSeconds(1));
        let whole = Entry { meta: meta.clone(), value: Arc::clone(&kept) };
        assert_eq!(decode(&whole, 4999).unwrap_err().kind(), Kind::Corrupt);
        let cut = Entry { meta, value: kept[..kept.len() - 3].into() };
        assert_eq!(decode(&cut, 1 << 20).unwrap_err().kind(), Kind::Corrupt);
    }
}
