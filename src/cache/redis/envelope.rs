//! The encoding of entries in Redis. Pure functions; the byte table is in `docs/internals/redis-format.md` and changes together with
//! this file.
//!
//! What can write to Redis can write anything, so nothing is believed before the end holds: a checksum, or with a key
//! that only nodes have, a tag that authenticates the entry under its key.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::clock_offset::ClockOffset;
use crate::cache::entry_codec;
use crate::domain::{Entry, Key};
use crate::error::{Error, Kind, Result};
use crate::storage::le_bytes::{u32_at, u64_at};

/// The first four bytes, which end in the version.
const MAGIC: [u8; 4] = *b"LWE1";
const FLAG_MAC: u8 = 1;
/// Where the id of the write is, for scripts that compare it, and its length.
const WRITE_ID_AT: usize = 8;
/// Bytes before the head of the entry.
const HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// The least length of a key for authentication, which is to be random.
const SECRET_BYTES_MIN: usize = 16;

/// The environment variable of the key by which entries in Redis are authenticated.
pub const MAC_KEY_VARIABLE: &str = "LIKEWISE_REDIS_MAC_KEY";

/// An entry as Redis has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Enveloped {
    /// The random number of the write that has stored it.
    pub write_id: u64,
    /// The entry, its moments in the time of this node.
    pub entry: Entry,
}

/// How entries are sealed: by a checksum, or by a key that all nodes of an installation have.
#[derive(Clone, Default)]
pub struct Envelope {
    mac_key: Option<[u8; 32]>,
    /// Of what nodes announce: a tag of an entry is not one of a report.
    report_key: Option<[u8; 32]>,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("is_authenticated", &self.mac_key.is_some()).finish()
    }
}

impl Envelope {
    /// With a checksum, which finds damage and no forgery.
    pub fn unauthenticated() -> Envelope {
        Envelope::default()
    }

    /// With tags made by `secret`.
    ///
    /// # Errors
    /// `Config` if it is too short to be one.
    pub fn authenticated(secret: &str) -> Result<Envelope> {
        if secret.len() < SECRET_BYTES_MIN {
            let message = format!("{MAC_KEY_VARIABLE} must have at least {SECRET_BYTES_MIN} characters");
            return Err(Error::new(Kind::Config, message).advise("make one with: openssl rand -hex 32"));
        }
        let derived = |context| Some(blake3::derive_key(context, secret.as_bytes()));
        Ok(Envelope {
            mac_key: derived("likewise 2026-11 entries in redis"),
            report_key: derived("likewise 2026-11 reports in redis"),
        })
    }

    /// As the environment says.
    ///
    /// # Errors
    /// As [`Envelope::authenticated`].
    pub fn from_environment() -> Result<Envelope> {
        match std::env::var(MAC_KEY_VARIABLE) {
            Ok(secret) => Envelope::authenticated(&secret),
            Err(std::env::VarError::NotPresent) => Ok(Envelope::unauthenticated()),
            Err(error @ std::env::VarError::NotUnicode(_)) => {
                Err(Error::new(Kind::Config, format!("{MAC_KEY_VARIABLE} must be text")).source(error))
            }
        }
    }

    /// The bytes of an entry whose moments are in the time of this node. `None` if a count does not fit into its field.
    pub fn seal(&self, key: &Key, write_id: u64, entry: &Entry, offset: ClockOffset) -> Option<Vec<u8>> {
        let in_redis = Entry { meta: offset.into_redis_time(&entry.meta), value: Arc::clone(&entry.value) };
        let record = entry_codec::encode(key, &in_redis)?;
        let (head, value) = (record.head(), record.value());
        let mut bytes = Vec::with_capacity(HEADER_BYTES + head.len() + value.len() + TAG_BYTES);
        bytes.extend(MAGIC);
        bytes.extend([if self.mac_key.is_some() { FLAG_MAC } else { 0 }, 0, 0, 0]);
        bytes.extend(write_id.to_le_bytes());
        bytes.extend(u32::try_from(head.len()).ok()?.to_le_bytes());
        bytes.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(value);
        match &self.mac_key {
            None => bytes.extend(checksum(key, &bytes)),
            Some(secret) => bytes.extend(tag(secret, key, &bytes)),
        }
        Some(bytes)
    }

    /// The entry that `bytes` are under `key`. `None` if they are not whole, were stored under another key, are sealed in another way,
    /// or are of a newer program.
    pub fn open(&self, key: &Key, bytes: &[u8], offset: ClockOffset) -> Option<Enveloped> {
        let sealed = self.sealed(key, bytes)?;
        let flags = if self.mac_key.is_some() { FLAG_MAC } else { 0 };
        if sealed.get(..WRITE_ID_AT)? != [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], flags, 0, 0, 0] {
            return None;
        }
        let (head_bytes, value_bytes) = (u32_at(sealed, 16)? as usize, u32_at(sealed, 20)? as usize);
        let (head, value) = sealed.get(HEADER_BYTES..)?.split_at_checked(head_bytes)?;
        if value.len() != value_bytes {
            return None;
        }
        let meta = offset.into_local_time(&entry_codec::decode_head(head)?);
        Some(Enveloped {
            write_id: u64_at(sealed, WRITE_ID_AT)?,
            entry: Entry { meta, value: Arc::from(value) },
        })
    }

    /// What a node announces, with a tag behind it if entries have one.
    pub fn seal_report(&self, node: u64, report: Vec<u8>) -> Vec<u8> {
        self.seal_record(&key_of_node(node), report)
    }

    /// What a node has announced. `None` if another may have written it: requests of clients, with their keys, go to the address in it.
    pub fn open_report<'a>(&self, node: u64, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.open_record(&key_of_node(node), bytes)
    }

    /// A record for all nodes, with a tag behind it if entries have one.
    pub fn seal_record(&self, key: &Key, mut record: Vec<u8>) -> Vec<u8> {
        if let Some(secret) = &self.report_key {
            record.extend(tag(secret, key, &record));
        }
        record
    }

    /// What a node has sealed under `key`. `None` if another may have written it.
    pub fn open_record<'a>(&self, key: &Key, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let Some(secret) = &self.report_key else { return Some(bytes) };
        let (record, end) = bytes.split_last_chunk::<TAG_BYTES>()?;
        is_equal(end, &tag(secret, key, record)).then_some(record)
    }

    /// The bytes before the end, if the end holds.
    fn sealed<'a>(&self, key: &Key, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match &self.mac_key {
            None => {
                let (sealed, end) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
                (*end == checksum(key, sealed)).then_some(sealed)
            }
            Some(secret) => {
                let (sealed, end) = bytes.split_last_chunk::<TAG_BYTES>()?;
                is_equal(end, &tag(secret, key, sealed)).then_some(sealed)
            }
        }
    }
}

/// A report is authenticated as that of its node.
fn key_of_node(node: u64) -> Key {
    let mut key = Key([0; 32]);
    key.0[..8].copy_from_slice(&node.to_le_bytes());
    key
}

/// XXH3 over the key and what is before the checksum: an entry that was moved to another key does not verify.
fn checksum(key: &Key, sealed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = Xxh3::new();
    hasher.update(&key.0);
    hasher.update(sealed);
    hasher.digest().to_le_bytes()
}

/// Keyed BLAKE3 over the key, which has a fixed length, and what is before the tag.
fn tag(secret: &[u8; 32], key: &Key, sealed: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(&key.0).update(sealed);
    let mut tag = [0; TAG_BYTES];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// In a time that does not depend on where the first difference is.
fn is_equal(a: &[u8; TAG_BYTES], b: &[u8; TAG_BYTES]) -> bool {
    let difference = (u128::from_le_bytes(*a)) ^ (u128::from_le_bytes(*b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Codec, EntryMeta, InvalidationId, NamespaceId, TagToken, UnixSeconds};

    const KEY: Key = Key([1; 32]);
    const OFFSET: ClockOffset = ClockOffset::NONE;

    fn entry() -> Entry {
        let meta = EntryMeta {
            namespace: NamespaceId::from_parts(InvalidationId(7), true),
            epoch: 8,
            tags: [9, 10].map(|n| TagToken { tag: InvalidationId(n), token: n + 100 }).into(),
            content_type: "text/plain".into(),
            validator: 11 << 100,
            ..EntryMeta::ending(Codec::Raw, UnixSeconds(1000), UnixSeconds(3000))
        };
        Entry { meta, value: Arc::from(&b"value"[..]) }
    }

    fn envelopes() -> [Envelope; 2] {
        [Envelope::unauthenticated(), Envelope::authenticated("0123456789abcdef").unwrap()]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_entry_comes_back_as_it_was_at_nodes_with_different_clocks() {
        for envelope in envelopes() {
            let bytes = envelope.seal(&KEY, 42, &entry(), ClockOffset::from_micros(300_000_000)).unwrap();
            let Enveloped { write_id, entry } = envelope.open(&KEY, &bytes, OFFSET).unwrap();
            assert_eq!((write_id, entry.meta.expires), (42, UnixSeconds(3300)));
            let same = envelope.open(&KEY, &bytes, ClockOffset::from_micros(300_000_000)).unwrap();
            assert_eq!(same.entry, self::entry());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_a_miss_and_so_is_another_key() {
        for envelope in envelopes() {
            let whole = envelope.seal(&KEY, 42, &entry(), OFFSET).unwrap();
            assert_eq!(envelope.open(&Key([2; 32]), &whole, OFFSET), None);
            let longer = [&whole[..], b"x"].concat();
            assert_eq!(envelope.open(&KEY, &longer, OFFSET), None);
            for at in 0..whole.len() {
                assert_eq!(envelope.open(&KEY, &whole[..at], OFFSET), None, "cut at {at}");
                for bit in 0..8 {
                    let mut bytes = whole.clone();
                    bytes[at] ^= 1 << bit;
                    assert_eq!(envelope.open(&KEY, &bytes, OFFSET), None, "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn only_nodes_with_the_same_secret_read_each_other() {
        let [plain, keyed] = envelopes();
        let other = Envelope::authenticated("0123456789abcdeg").unwrap();
        let sealed = |envelope: &Envelope| envelope.seal(&KEY, 1, &entry(), OFFSET).unwrap();
        for (writer, reader) in [(&plain, &keyed), (&keyed, &plain), (&keyed, &other), (&other, &keyed)] {
            assert_eq!(reader.open(&KEY, &sealed(writer), OFFSET), None);
        }
        let error = Envelope::authenticated("short-secret").unwrap_err().to_string();
        assert!(error.contains("LIKEWISE_REDIS_MAC_KEY") && !error.contains("short-secret"), "{error}");
        assert!(!format!("{keyed:?}").contains("0123"));
    }

    #[test]
    fn a_report_is_believed_of_its_node_alone_and_as_it_was() {
        let [plain, keyed] = envelopes();
        assert_eq!(plain.open_report(1, &plain.seal_report(1, b"{}".to_vec())), Some(&b"{}"[..]));
        let sealed = keyed.seal_report(1, b"{}".to_vec());
        assert_eq!(keyed.open_report(1, &sealed), Some(&b"{}"[..]));
        assert_eq!((keyed.open_report(2, &sealed), keyed.open_report(1, b"{}")), (None, None));
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1;
            assert_eq!(keyed.open_report(1, &bytes), None, "byte {at}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_a_miss_also_with_a_checksum_that_holds() {
        let envelope = Envelope::unauthenticated();
        let whole = envelope.seal(&KEY, 1, &entry(), OFFSET).unwrap();
        for (at, length) in [(16, u32::MAX), (16, 0), (20, u32::MAX), (20, 0)] {
            let mut bytes = whole[..whole.len() - CHECKSUM_BYTES].to_vec();
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
            bytes.extend(checksum(&KEY, &bytes));
            assert_eq!(envelope.open(&KEY, &bytes, OFFSET), None, "{length} at {at}");
        }
    }

    #[test]
    fn bytes_are_those_of_the_documents() {
        let meta = EntryMeta::ending(Codec::Raw, UnixSeconds(1), UnixSeconds(2));
        let entry = Entry { meta, value: Arc::from(&b"v"[..]) };
        let [plain, keyed] = envelopes().map(|envelope| envelope.seal(&KEY, 0x0102, &entry, OFFSET).unwrap());
        let header = "4c5745310000000002010000000000004c00000001000000";
        assert_eq!(hex(&plain[..HEADER_BYTES]), header);
        assert_eq!(hex(&plain[plain.len() - CHECKSUM_BYTES..]), "38148e66f0d3ebd7");
        assert_eq!(hex(&keyed[..6]), "4c5745310100");
        assert_eq!(hex(&keyed[keyed.len() - TAG_BYTES..]), "9649afccd6717cdfcb9b1942c69b06ee");
        assert_eq!(
            plain[HEADER_BYTES..plain.len() - CHECKSUM_BYTES],
            keyed[HEADER_BYTES..keyed.len() - TAG_BYTES]
        );
    }
}
