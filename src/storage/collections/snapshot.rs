//! Snapshots of a collection's index: a file that FAISS wrote, and a manifest that says what it is of. Both are derived: a
//! collection without them, or with damaged ones, is whole.
//!
//! The byte table is in `docs/internals/store-format.md` and changes together with this file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::{Place, SNAPSHOT};
use super::salt::Salt;
use super::store::RowStore;
use crate::error::{Error, Kind, Result};
use crate::storage::files::FrozenFile;
use crate::storage::files::{Files, StoredFile, exists, publish, read_all, remove_if_present};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"LKWSINDX";
/// The version of snapshots that is written.
const VERSION: u32 = 1;
/// The longest manifest of a snapshot that is read.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
const HEAD_BYTES: usize = 64;
const ENTRY_BYTES: usize = 16;

/// What an index is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// FAISS's name for its kind.
    pub factory: String,
    /// The version of the collection whose rows it holds.
    pub version: u64,
    /// The segments whose rows it holds, in order.
    pub segments: Vec<Covered>,
}

/// Rows of a segment in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// The segment's number.
    pub number: u64,
    /// How many rows the segment has.
    pub rows: u32,
    /// Those that the index does not hold, one bit each, lowest first; empty if it holds all.
    pub left_out: Vec<u8>,
}

/// An index on disk, verified and mapped.
#[derive(Debug)]
pub struct Snapshot {
    number: u64,
    coverage: Coverage,
    file: IndexFile,
}

/// The file of an index: flushed, its checksum known, mapped. Shared by who searches it.
#[derive(Debug, Clone)]
pub struct IndexFile {
    path: PathBuf,
    mapped: Arc<FrozenFile>,
    checksum: u32,
}

/// A file that an index is written to.
#[derive(Debug, Clone)]
pub struct Draft {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl Draft {
    /// Its path, for FAISS.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written to it; it does not change any more.
    ///
    /// Cost: flushes the file and reads it once; the store's thread need not wait for that.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn finish(&self) -> Result<IndexFile> {
        let io = |error| Error::io("cannot flush an index", error).with("path", self.path.display());
        let file = self.files.open(&self.path).map_err(io)?;
        file.sync_data().map_err(io)?;
        let bytes = file.bytes().map_err(io)?;
        let mapped = map(&*file, bytes).map_err(io)?;
        let checksum = crc32c::crc32c(mapped.bytes());
        Ok(IndexFile { path: self.path.clone(), mapped: Arc::new(mapped), checksum })
    }

    /// Removes it, if it is there.
    pub fn discard(&self) {
        if let Err(error) = remove_if_present(&*self.files, &self.path) {
            tracing::warn!(%error, "the draft of an index cannot be removed");
        }
    }
}

/// What the manifest of a snapshot says.
struct Manifest {
    number: u64,
    bytes: u64,
    checksum: u32,
    coverage: Coverage,
}

impl Snapshot {
    /// Its number: a later one has a higher one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it is of.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Its file.
    pub fn file(&self) -> &IndexFile {
        &self.file
    }

    /// The bytes of its file.
    pub fn bytes(&self) -> &[u8] {
        self.file.as_ref()
    }
}

impl AsRef<[u8]> for Snapshot {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl IndexFile {
    /// Where it lay when it was mapped or kept last.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRef<[u8]> for IndexFile {
    fn as_ref(&self) -> &[u8] {
        self.mapped.bytes()
    }
}

impl Manifest {
    fn encode(&self, salt: &Salt) -> Vec<u8> {
        let Coverage { factory, version, segments } = &self.coverage;
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((factory.len() as u32).to_le_bytes());
        bytes.extend(salt);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.bytes.to_le_bytes());
        bytes.extend(version.to_le_bytes());
        bytes.extend(self.checksum.to_le_bytes());
        bytes.extend((segments.len() as u32).to_le_bytes());
        bytes.extend(factory.as_bytes());
        for segment in segments {
            bytes.extend(segment.number.to_le_bytes());
            bytes.extend(segment.rows.to_le_bytes());
            bytes.extend((segment.left_out.len() as u32).to_le_bytes());
            bytes.extend(&segment.left_out);
        }
        push_trailer(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8], salt: &Salt) -> Result<Manifest> {
        let corrupt =
            |what: &str| Error::new(Kind::Corrupt, format!("cannot read a snapshot's manifest: {what}"));
        let cut = || corrupt("it ends early");
        if !has_valid_trailer(bytes) || array_at::<8>(bytes, 0) != Some(MAGIC) {
            return Err(corrupt("its checksum does not hold"));
        }
        let version = u32_at(bytes, 8).ok_or_else(cut)?;
        if version > VERSION {
            return Err(Error::new(
                Kind::Format,
                format!("a snapshot of version {version} is newer than this program"),
            ));
        }
        if array_at(bytes, 16) != Some(*salt) {
            return Err(corrupt("it belongs to another collection"));
        }
        let body = &bytes[..bytes.len() - 4];
        let factory_end = HEAD_BYTES + u32_at(body, 12).ok_or_else(cut)? as usize;
        let factory = body.get(HEAD_BYTES..factory_end).ok_or_else(cut)?;
        let factory = String::from_utf8(factory.to_vec()).map_err(|_| corrupt("its kind is no text"))?;
        let mut segments = Vec::new();
        let mut at = factory_end;
        for _ in 0..u32_at(body, 60).ok_or_else(cut)? {
            let number = u64_at(body, at).ok_or_else(cut)?;
            let rows = u32_at(body, at + 8).ok_or_else(cut)?;
            let length = u32_at(body, at + 12).ok_or_else(cut)? as usize;
            at += ENTRY_BYTES;
            let left_out = body.get(at..at + length).ok_or_else(cut)?.to_vec();
            at += length;
            segments.push(Covered { number, rows, left_out });
        }
        Ok(Manifest {
            number: u64_at(body, 32).ok_or_else(cut)?,
            bytes: u64_at(body, 40).ok_or_else(cut)?,
            checksum: u32_at(body, 56).ok_or_else(cut)?,
            coverage: Coverage { factory, version: u64_at(body, 48).ok_or_else(cut)?, segments },
        })
    }
}

impl Place {
    fn snapshot(&self, name: &str, number: u64) -> PathBuf {
        self.path(name, &format!("{number:010}.faiss"))
    }

    fn snapshot_manifest(&self, name: &str, salt: &Salt) -> Result<Manifest> {
        let io = |error| Error::io("cannot read a snapshot's manifest", error).with("collection", name);
        let manifest = read_all(&*self.files, &self.path(name, SNAPSHOT), MANIFEST_BYTES_MAX).map_err(io)?;
        Manifest::decode(&manifest, salt)
    }

    /// The number of the snapshot that there may be; whether it verifies is found when it is opened.
    pub(super) fn snapshot_number(&self, name: &str, salt: &Salt) -> Option<u64> {
        self.snapshot_manifest(name, salt).ok().map(|manifest| manifest.number)
    }

    /// Whether there is the manifest of a snapshot.
    pub(super) fn has_snapshot(&self, name: &str) -> bool {
        // In doubt there is one: what cannot be opened is reported by those who open it.
        exists(&*self.files, &self.path(name, SNAPSHOT)).unwrap_or(true)
    }

    pub(super) fn open_snapshot(&self, name: &str, salt: &Salt) -> Result<Snapshot> {
        let io = |error| Error::io("cannot open a snapshot", error).with("collection", name);
        let manifest = self.snapshot_manifest(name, salt)?;
        let path = self.snapshot(name, manifest.number);
        let file = self.files.open(&path).map_err(io)?;
        let mapped = map(&*file, manifest.bytes).map_err(io)?;
        let checksum = crc32c::crc32c(mapped.bytes());
        if checksum != manifest.checksum {
            return Err(Error::new(Kind::Corrupt, "a snapshot does not verify").with("path", path.display()));
        }
        let file = IndexFile { path, mapped: Arc::new(mapped), checksum };
        Ok(Snapshot { number: manifest.number, coverage: manifest.coverage, file })
    }
}

impl RowStore {
    /// The snapshot of the index, verified; none if there is none.
    ///
    /// Cost: reads the file once.
    ///
    /// # Errors
    /// `Corrupt`, `Format`, `Io`: the index has to be rebuilt.
    pub fn snapshot(&self) -> Result<Option<Arc<Snapshot>>> {
        if !self.place.has_snapshot(&self.name) {
            return Ok(None);
        }
        self.place.open_snapshot(&self.name, &self.manifest.salt).map(Arc::new).map(Some)
    }

    /// Where an index may be written before it is kept. `builder` tells apart who writes; what is left there by one that
    /// was interrupted is removed when the collection is opened.
    pub fn index_draft(&self, builder: u64) -> Draft {
        let path = self.place.path(&self.name, &format!("{builder:010}.draft"));
        Draft { files: Arc::clone(&self.place.files), path }
    }

    /// Keeps an index whose draft is finished, in the place of the one before: durable when this returns.
    ///
    /// Cost: a rename and a small file, both flushed, whatever the index's size.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: the snapshot before, if there is one, still holds, or there is none.
    pub fn keep_index(&mut self, mut file: IndexFile, coverage: Coverage) -> Result<Arc<Snapshot>> {
        self.check_on()?;
        let io = |error| Error::io("cannot keep a snapshot", error).with("collection", &self.name);
        let number = self.index_before + 1;
        let path = self.place.snapshot(&self.name, number);
        let Place { files, dir, .. } = &self.place;
        files.rename(&file.path, &path).map_err(io)?;
        file.path = path;
        files.sync_dir(dir).map_err(io)?;
        let bytes = file.as_ref().len() as u64;
        let manifest = Manifest { number, bytes, checksum: file.checksum, coverage };
        let encoded = manifest.encode(&self.manifest.salt);
        publish(&**files, dir, &format!("{}.{SNAPSHOT}", self.name), &encoded).map_err(io)?;
        self.index = Some(number);
        self.index_before = number;
        self.remove_strays(false);
        Ok(Arc::new(Snapshot { number, coverage: manifest.coverage, file }))
    }

    /// Forgets the snapshot and removes its files: it does not verify, or its rows are gone.
    ///
    /// # Errors
    /// `Io`.
    pub fn drop_index(&mut self) -> Result<()> {
        let io = |error| Error::io("cannot remove a snapshot", error).with("collection", &self.name);
        remove_if_present(&*self.place.files, &self.place.path(&self.name, SNAPSHOT)).map_err(io)?;
        self.index = None;
        self.remove_strays(false);
        Ok(())
    }
}

fn map(file: &dyn StoredFile, bytes: u64) -> std::io::Result<FrozenFile> {
    file.map_frozen(bytes)?.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let covered = |number, left_out: &[u8]| Covered { number, rows: 9, left_out: left_out.to_vec() };
        let segments = vec![covered(3, &[]), covered(7, &[0b101, 1])];
        let coverage = Coverage { factory: "HNSW32,SQ8".into(), version: 42, segments };
        Manifest { number: 11, bytes: 1234, checksum: 99, coverage }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let salt = [5; 16];
        let read = Manifest::decode(&manifest().encode(&salt), &salt).unwrap();
        assert_eq!((read.number, read.bytes, read.checksum), (11, 1234, 99));
        assert_eq!(read.coverage, manifest().coverage);
        assert_eq!(
            Manifest::decode(&manifest().encode(&salt), &[6; 16]).err().unwrap().kind(),
            Kind::Corrupt
        );
    }

    #[test]
    fn every_damaged_manifest_is_an_error() {
        let salt = [5; 16];
        let whole = manifest().encode(&salt);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert!(Manifest::decode(&damaged, &salt).is_err(), "byte {at}");
            // With a checksum that holds, as a stranger would make it.
            let mut forged = damaged[..whole.len() - 4].to_vec();
            push_trailer(&mut forged);
            let _ = Manifest::decode(&forged, &salt);
            assert!(Manifest::decode(&whole[..at], &salt).is_err(), "{at} bytes");
        }
    }
}
