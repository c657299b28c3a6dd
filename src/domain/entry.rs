//! A cached value and everything that is needed to judge whether it may be served.

use std::sync::Arc;

use super::{NamespaceId, TagToken, UnixSeconds};

/// How the bytes of a value are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Bytes as they were given.
    Raw,
    /// A vector of little-endian IEEE 754 single-precision numbers.
    F32,
    /// A Zstandard frame (RFC 8878) that holds the bytes as they were given.
    Zstd,
}

/// How a client has encoded the bytes of an object (RFC 9110 section 8.4.1). They are stored and given back so encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ContentCoding {
    /// Not at all.
    #[default]
    Identity,
    /// `gzip` (RFC 1952).
    Gzip,
    /// `deflate` (RFC 1950).
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
    /// `compress` (RFC 9110 section 8.4.1.1).
    Compress,
}

impl ContentCoding {
    /// All codings that are known by name.
    pub const ALL: [ContentCoding; 6] = [
        ContentCoding::Identity,
        ContentCoding::Gzip,
        ContentCoding::Deflate,
        ContentCoding::Brotli,
        ContentCoding::Zstd,
        ContentCoding::Compress,
    ];

    /// The coding called `name`, in any case; none if there is no such coding.
    pub fn named(name: &str) -> Option<ContentCoding> {
        // RFC 9110 section 8.4.1: recipients take the names with `x-` for those without.
        let name = match name.get(..2) {
            Some(prefix) if prefix.eq_ignore_ascii_case("x-") => match &name[2..] {
                old if old.eq_ignore_ascii_case("gzip") || old.eq_ignore_ascii_case("compress") => old,
                _ => name,
            },
            Some(_) | None => name,
        };
        ContentCoding::ALL.into_iter().find(|coding| coding.as_str().eq_ignore_ascii_case(name))
    }

    /// Its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            ContentCoding::Identity => "identity",
            ContentCoding::Gzip => "gzip",
            ContentCoding::Deflate => "deflate",
            ContentCoding::Brotli => "br",
            ContentCoding::Zstd => "zstd",
            ContentCoding::Compress => "compress",
        }
    }
}

/// What is known of an entry besides its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryMeta {
    /// When the value was made.
    pub created: UnixSeconds,
    /// From here on the value is served while one request refreshes it.
    pub soft_expires: UnixSeconds,
    /// From here on the value is not served as fresh.
    pub expires: UnixSeconds,
    /// Until here the value may be served, flagged, when the origin fails.
    pub stale_until: UnixSeconds,
    /// When the value was last asked for, as far as this tier knows.
    pub last_used: UnixSeconds,
    /// What making the value took, in microseconds.
    pub cost_us: u32,
    /// Tokens that the model read for it.
    pub tokens: u32,
    /// Whether the model read only the beginning of the text.
    pub is_truncated: bool,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The namespace's epoch when the entry's loader began.
    pub epoch: u64,
    /// The tags that the entry carries, with their tokens.
    pub tags: Box<[TagToken]>,
    /// How to read the value.
    pub codec: Codec,
    /// The value's media type; empty where the codec says it all.
    pub content_type: Arc<str>,
    /// How the client that gave the value has encoded it.
    pub content_coding: ContentCoding,
    /// Hash of media type and bytes as the client sent them, for conditional requests; 0 for entries that no conditional
    /// request can name.
    pub validator: u128,
}

impl EntryMeta {
    /// Of an entry that ends at one moment, in no namespace, without tags.
    pub fn ending(codec: Codec, created: UnixSeconds, expires: UnixSeconds) -> EntryMeta {
        EntryMeta {
            created,
            soft_expires: expires,
            expires,
            stale_until: expires,
            last_used: created,
            cost_us: 0,
            tokens: 0,
            is_truncated: false,
            namespace: NamespaceId::default(),
            epoch: 0,
            tags: Box::default(),
            codec,
            content_type: Arc::default(),
            content_coding: ContentCoding::Identity,
            validator: 0,
        }
    }
}

/// A value with its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is known of the value.
    pub meta: EntryMeta,
    /// The value, encoded by `meta.codec`.
    pub value: Arc<[u8]>,
}

impl Entry {
    /// The same value with a later end. Copies the metadata, not the value.
    #[must_use]
    pub fn ending(&self, expires: UnixSeconds) -> Entry {
        let meta = EntryMeta { soft_expires: expires, expires, stale_until: expires, ..self.meta.clone() };
        Entry { meta, value: Arc::clone(&self.value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_known_by_its_name_in_any_case_and_by_its_old_name() {
        for coding in ContentCoding::ALL {
            assert_eq!(ContentCoding::named(&coding.as_str().to_uppercase()), Some(coding));
        }
        assert_eq!(ContentCoding::named("X-Gzip"), Some(ContentCoding::Gzip));
        assert_eq!(ContentCoding::named("x-compress"), Some(ContentCoding::Compress));
        for unknown in ["", "x-", "x-br", "gzip, br", "aes128gcm", "é"] {
            assert_eq!(ContentCoding::named(unknown), None, "{unknown:?}");
        }
    }
}
