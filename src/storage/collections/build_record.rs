//! What is known of the builds of a collection's index that did not end well, so that a start does not begin again what
//! has failed before. Derived: a collection without the record, or with a damaged one, is whole.
//!
//! The byte table is in `docs/internals/store-format.md` and changes together with this file.

use super::place::{BUILD, Place};
use super::salt::Salt;
use super::store::RowStore;
use crate::error::{Error, Result};
use crate::storage::files::{publish, read_all, remove_if_present};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"LKWSBLDS";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 48;
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// Builds of an index that have not ended in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// The factory string of the index.
    pub factory: String,
    /// The version of the collection of which it was built.
    pub version: u64,
    /// Builds that have begun, one after the other.
    pub attempts: u32,
    /// Why the last one failed; empty while it runs, or if the process ended meanwhile.
    pub reason: String,
}

impl BuildRecord {
    /// The file's bytes.
    pub fn encode(&self, salt: &Salt) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.factory.len() + self.reason.len() + 4);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.attempts.to_le_bytes());
        bytes.extend(salt);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.factory.len() as u32).to_le_bytes());
        bytes.extend((self.reason.len() as u32).to_le_bytes());
        bytes.extend(self.factory.as_bytes());
        bytes.extend(self.reason.as_bytes());
        push_trailer(&mut bytes);
        bytes
    }

    /// Reads a record; none if it is damaged, of another store, or newer than this program.
    pub fn decode(bytes: &[u8], salt: &Salt) -> Option<BuildRecord> {
        let is_ours = has_valid_trailer(bytes)
            && array_at(bytes, 0)? == MAGIC
            && u32_at(bytes, 8)? == VERSION
            && array_at(bytes, 16)? == *salt;
        let body = bytes.get(HEAD_BYTES..bytes.len().checked_sub(4)?).filter(|_| is_ours)?;
        let (factory, reason) = body.split_at_checked(u32_at(bytes, 40)? as usize)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let record = BuildRecord {
            factory: text(factory)?,
            version: u64_at(bytes, 32)?,
            attempts: u32_at(bytes, 12)?,
            reason: text(reason)?,
        };
        (reason.len() == u32_at(bytes, 44)? as usize).then_some(record)
    }
}

impl Place {
    /// Whether there is a record of builds, and whether it verifies.
    pub(super) fn build_record(&self, name: &str, salt: &Salt) -> Option<Option<BuildRecord>> {
        let bytes = read_all(&*self.files, &self.path(name, BUILD), RECORD_BYTES_MAX).ok()?;
        Some(BuildRecord::decode(&bytes, salt))
    }
}

impl RowStore {
    /// The record of builds, if there is one that verifies.
    pub fn build_record(&self) -> Option<BuildRecord> {
        self.place.build_record(&self.name, &self.manifest.salt).flatten()
    }

    /// Replaces the record of builds: durable when this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: the record before still holds.
    pub fn record_build(&mut self, record: &BuildRecord) -> Result<()> {
        self.check_on()?;
        let encoded = record.encode(&self.manifest.salt);
        publish(&*self.place.files, &self.place.dir, &format!("{}.{BUILD}", self.name), &encoded)
            .map_err(|error| Error::io("record the build of an index", error).with("collection", &self.name))
    }

    /// Removes the record of builds.
    ///
    /// # Errors
    /// `Io`.
    pub fn forget_build(&mut self) -> Result<()> {
        remove_if_present(&*self.place.files, &self.place.path(&self.name, BUILD)).map_err(|error| {
            Error::io("cannot remove the record of a build", error).with("collection", &self.name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let record = BuildRecord {
            factory: "HNSW32,SQ8".into(),
            version: 42,
            attempts: 2,
            reason: "it was ended by signal 11".into(),
        };
        let salt = [3; 16];
        let bytes = record.encode(&salt);
        assert_eq!(BuildRecord::decode(&bytes, &salt), Some(record));
        assert_eq!(BuildRecord::decode(&bytes, &[4; 16]), None);
        for at in 0..bytes.len() {
            assert_eq!(BuildRecord::decode(&bytes[..at], &salt), None, "{at} bytes");
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(BuildRecord::decode(&damaged, &salt), None, "byte {at}");
            // With a checksum that holds.
            let mut forged = damaged[..bytes.len() - 4].to_vec();
            push_trailer(&mut forged);
            let _ = BuildRecord::decode(&forged, &salt);
        }
    }
}
