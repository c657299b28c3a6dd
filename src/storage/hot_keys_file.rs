//! The file of the keys that are used most, so that a server finds them after a restart. Losing it costs no entry.
//!
//! `docs/internals/store-format.md` has the table of bytes. What a list contains is the business of the cache.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, Files};
use super::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};
use crate::error::{Error, Kind, Result};
use crate::sync::{Mutex, ignore_poison};

/// Its name in the data directory.
pub(super) const HOT_KEYS_NAME: &str = "HOT_KEYS";
const MAGIC: [u8; 8] = *b"LKWSHOTK";
/// The version that is written.
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 24;
const TRAILER_BYTES: usize = 4;
/// The longest file that is read: a million keys of 42 bytes.
pub(super) const FILE_BYTES_MAX: u64 = 42_000_000 + (HEAD_BYTES + TRAILER_BYTES) as u64;

/// The file in a data directory.
#[derive(Debug)]
pub struct HotKeysFile {
    files: Arc<dyn Files>,
    dir: PathBuf,
    /// The end of the content that was written last.
    written: Mutex<Option<[u8; TRAILER_BYTES]>>,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKeysList {
    /// Of what the list depends on beside its keys. A list of another value means something else.
    pub context: u64,
    /// The keys.
    pub keys: Vec<u8>,
}

impl HotKeysFile {
    /// The file in the data directory `dir`.
    pub fn new(files: Arc<dyn Files>, dir: &Path) -> HotKeysFile {
        HotKeysFile { files, dir: dir.to_path_buf(), written: Mutex::new(None) }
    }

    /// Replaces the list, and returns whether it was another one than that of the last call. Blocks.
    ///
    /// # Errors
    /// `Io`: then the list before is still there.
    ///
    /// Cost: one fsync of the file, one of the directory; nothing if the list is the same.
    pub fn publish(&self, list: &HotKeysList) -> Result<bool> {
        let content = list.encode();
        let trailer = array_at(&content, content.len() - TRAILER_BYTES);
        let mut written = ignore_poison(self.written.lock());
        if *written == trailer {
            return Ok(false);
        }
        files::publish(&*self.files, &self.dir, HOT_KEYS_NAME, &content)
            .map_err(|error| self.place(Error::io("cannot write the list of hot keys", error)))?;
        *written = trailer;
        Ok(true)
    }

    /// The list. `None` if there is no file. Blocks.
    ///
    /// # Errors
    /// `Corrupt` if the file is damaged or of another program, `Format` if it was written by a newer version, `Io`.
    pub fn read(&self) -> Result<Option<HotKeysList>> {
        match files::read_all(&*self.files, &self.dir.join(HOT_KEYS_NAME), FILE_BYTES_MAX) {
            Ok(bytes) => HotKeysList::decode(&bytes).map(Some).map_err(|error| self.place(error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.place(Error::io("cannot read the list of hot keys", error))),
        }
    }

    fn place(&self, error: Error) -> Error {
        error.with("path", self.dir.join(HOT_KEYS_NAME).display())
    }
}

impl HotKeysList {
    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.keys.len() + TRAILER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.keys.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.context.to_le_bytes());
        bytes.extend_from_slice(&self.keys);
        push_trailer(&mut bytes);
        bytes
    }

    /// Reads the content of the file.
    ///
    /// # Errors
    /// `Format` for a version that is newer than this code, `Corrupt` for everything else.
    pub fn decode(bytes: &[u8]) -> Result<HotKeysList> {
        let corrupt = || Error::new(Kind::Corrupt, "cannot read the list of hot keys: it is damaged");
        if array_at(bytes, 0) != Some(MAGIC) || !has_valid_trailer(bytes) {
            return Err(corrupt());
        }
        match u32_at(bytes, 8) {
            Some(VERSION) => HotKeysList::try_decode(bytes).ok_or_else(corrupt),
            Some(version) => Err(Error::new(Kind::Format, "cannot read the list of hot keys")
                .with("version", version)
                .with("reads", VERSION)),
            None => Err(corrupt()),
        }
    }

    fn try_decode(bytes: &[u8]) -> Option<HotKeysList> {
        let key_bytes = usize::try_from(u32_at(bytes, 12)?).ok()?;
        let keys = bytes.get(HEAD_BYTES..bytes.len().checked_sub(TRAILER_BYTES)?)?;
        let list = HotKeysList { context: u64_at(bytes, 16)?, keys: keys.to_vec() };
        (keys.len() == key_bytes).then_some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::OsFiles;

    fn list() -> HotKeysList {
        HotKeysList { context: 7, keys: (0..84).collect() }
    }

    #[test]
    fn a_list_comes_back_and_the_same_one_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = HotKeysFile::new(Arc::new(OsFiles), dir.path());
        assert_eq!(file.read().unwrap(), None);
        assert!(file.publish(&list()).unwrap());
        assert!(!file.publish(&list()).unwrap());
        assert_eq!(file.read().unwrap(), Some(list()));
        let other = HotKeysList { keys: vec![1; 42], ..list() };
        assert!(file.publish(&other).unwrap());
        assert_eq!(file.read().unwrap(), Some(other));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = list().encode();
        assert_eq!(HotKeysList::decode(&good).unwrap(), list());
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert_eq!(HotKeysList::decode(&bytes).unwrap_err().kind(), Kind::Corrupt, "byte {at}");
            assert_eq!(HotKeysList::decode(&good[..at]).unwrap_err().kind(), Kind::Corrupt, "cut at {at}");
        }
    }

    #[test]
    fn a_newer_version_is_reported_as_one() {
        let mut newer = list().encode();
        newer.truncate(newer.len() - TRAILER_BYTES);
        newer[8] = 2;
        push_trailer(&mut newer);
        assert_eq!(HotKeysList::decode(&newer).unwrap_err().kind(), Kind::Format);
    }
}
