//! A store of rows: the vectors and documents of one collection, which outlive every index that is made of them.
//!
//! What lives here: segments, which are written once and mapped; the log of what is in no segment yet; the manifest that
//! says which of them hold; snapshots of indexes, which are derived. What must never: search, filters, or what a document means. The one idea: a change is
//! acknowledged when its record in the log is flushed; segments and manifest only make the log shorter, and a crash
//! between any two calls leaves the old manifest or the new one, each with all it needs.
//!
//! All calls block: a collection's writer owns its store.

mod log;
mod manifest;
mod segment;
mod snapshot;

use std::path::PathBuf;
use std::sync::Arc;

pub use log::Replay;
pub use manifest::{Listing, Manifest};
pub use segment::{HEADER_BYTES, Header, Row, RowSegment};
pub use snapshot::{Coverage, Covered, Draft, IndexFile, Snapshot};

use self::log::Log;
use self::manifest::MANIFEST_BYTES_MAX;
use self::snapshot::SNAPSHOT;
use super::files::{Files, publish, read_all, remove_if_present};
use super::options::ReadMode;
use crate::error::{Error, Kind, Result};

/// Random bytes that every checksum of a store begins with.
pub type Salt = [u8; 16];

const MANIFEST: &str = "manifest";
/// What the manifest of a collection that is being dropped is called.
const DROPPED: &str = "dropped";

/// What becomes of the log when a manifest is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFate {
    /// It goes on: not all that it says is in segments.
    Kept,
    /// All that it says is in segments, so a new one begins.
    Replaced,
}

/// Where collections lie: all files of one are called `NAME.` and something, in one directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The files.
    pub files: Arc<dyn Files>,
    /// The directory.
    pub dir: PathBuf,
    /// How segments are read.
    pub read: ReadMode,
}

/// The store of one collection.
#[derive(Debug)]
pub struct RowStore {
    place: Place,
    name: String,
    manifest: Manifest,
    log: Log,
    /// The number of the index's snapshot, if there may be one.
    index: Option<u64>,
    /// The highest number that a snapshot has had since the start.
    index_before: u64,
    /// Set by the first write that failed: nothing is known of the files' ends any more.
    is_off: bool,
}

/// A file of a collection, checked.
#[derive(Debug)]
pub struct Checked {
    /// Its name.
    pub file: PathBuf,
    /// What is wrong with it, if anything is.
    pub damage: Option<Error>,
}

/// A store as it was found.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: RowStore,
    /// Its segments, oldest rows first.
    pub segments: Vec<Arc<RowSegment>>,
    /// What the log held beyond them.
    pub replay: Replay,
}

impl Place {
    /// The names of the collections that are there, sorted. What is left of dropped ones is removed.
    ///
    /// # Errors
    /// `Io`.
    pub fn names(&self) -> Result<Vec<String>> {
        let io = |error| Error::io("list the collections", error).with("path", self.dir.display());
        self.files.create_dir(&self.dir).map_err(io)?;
        let mut names = Vec::new();
        for file in self.files.list(&self.dir).map_err(io)? {
            match file.name.split_once('.') {
                Some((name, MANIFEST)) => names.push(name.to_owned()),
                // One that cannot be removed takes nobody else's collections away.
                Some((name, DROPPED)) => {
                    if let Err(error) = self.remove_files(name) {
                        tracing::error!(%error, "what is left of a dropped collection cannot be removed");
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// Checks every byte of every collection, and changes nothing.
    ///
    /// # Errors
    /// `Io`. Damage is no error, it is in what is returned.
    pub fn check(&self) -> Result<Vec<Checked>> {
        let io = |error| Error::io("list the collections", error).with("path", self.dir.display());
        let mut checked = Vec::new();
        for file in self.files.list(&self.dir).map_err(io)? {
            if let Some((name, MANIFEST)) = file.name.split_once('.') {
                self.check_one(name, &mut checked);
            }
        }
        Ok(checked)
    }

    fn check_one(&self, name: &str, checked: &mut Vec<Checked>) {
        let mut add = |path: PathBuf, damage: Option<Error>| {
            let file = path.file_name().map(PathBuf::from).unwrap_or_default();
            checked.push(Checked { file, damage });
        };
        let path = self.path(name, MANIFEST);
        let manifest = read_all(&*self.files, &path, MANIFEST_BYTES_MAX)
            .map_err(|error| Error::io("read the manifest of a collection", error))
            .and_then(|bytes| Manifest::decode(&bytes));
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => return add(path, Some(error)),
        };
        add(path, None);
        for listing in &manifest.segments {
            let path = self.segment(name, listing.number);
            let opened = RowSegment::open(&*self.files, &path, self.read, listing.number, manifest.salt);
            let bad_rows = |segment: RowSegment| {
                let bad = segment.bad_rows().len();
                (bad > 0).then(|| {
                    Error::new(Kind::Corrupt, format!("{bad} of {} rows do not verify", segment.rows()))
                })
            };
            add(path, opened.map_or_else(Some, bad_rows));
        }
        let path = self.log(name, manifest.log);
        let damaged = |(replay, _): (Replay, usize)| {
            let records = replay.damaged;
            (records > 0).then(|| Error::new(Kind::Corrupt, format!("{records} records do not verify")))
        };
        let read = Log::read(&*self.files, &path, manifest.log, &manifest.salt);
        add(path, read.map_or_else(Some, damaged));
        if self.has_snapshot(name) {
            add(self.path(name, SNAPSHOT), self.open_snapshot(name, &manifest.salt).err());
        }
    }

    /// Removes all files of a collection, the mark that it is dropped last.
    fn remove_files(&self, name: &str) -> Result<()> {
        let io =
            |error| Error::io("remove the files of a dropped collection", error).with("collection", name);
        for file in self.files.list(&self.dir).map_err(io)? {
            if file.name.split_once('.').is_some_and(|(of, rest)| of == name && rest != DROPPED) {
                remove_if_present(&*self.files, &self.dir.join(file.name)).map_err(io)?;
            }
        }
        self.files.sync_dir(&self.dir).map_err(io)?;
        remove_if_present(&*self.files, &self.path(name, DROPPED)).map_err(io)
    }

    fn path(&self, name: &str, what: &str) -> PathBuf {
        self.dir.join(format!("{name}.{what}"))
    }

    fn log(&self, name: &str, number: u64) -> PathBuf {
        self.path(name, &format!("{number:010}.log"))
    }

    fn segment(&self, name: &str, number: u64) -> PathBuf {
        self.path(name, &format!("{number:010}.rows"))
    }

    fn publish(&self, name: &str, manifest: &Manifest) -> Result<()> {
        publish(&*self.files, &self.dir, &format!("{name}.{MANIFEST}"), &manifest.encode()).map_err(|error| {
            Error::io("publish the manifest of a collection", error).with("collection", name)
        })
    }
}

impl RowStore {
    /// A new, empty store, durable when this returns. `settings` are given back when it is opened.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn create(place: &Place, name: &str, dim: u32, settings: Vec<u8>) -> Result<RowStore> {
        let io = |error| Error::io("create a collection", error).with("collection", name);
        place.files.create_dir(&place.dir).map_err(io)?;
        // Else the next start would take the new collection for the one that was dropped.
        let listed = place.files.list(&place.dir).map_err(io)?;
        if listed.iter().any(|file| file.name.split_once('.') == Some((name, DROPPED))) {
            place.remove_files(name)?;
        }
        let mut salt = Salt::default();
        getrandom::fill(&mut salt)
            .map_err(|error| Error::new(Kind::Io, "draw a salt").source(std::io::Error::from(error)))?;
        let manifest =
            Manifest { salt, next_number: 2, log: 1, version: 0, dim, settings, segments: Vec::new() };
        let path = place.log(name, manifest.log);
        // Of a creation that a crash interrupted.
        remove_if_present(&*place.files, &path).map_err(io)?;
        let log = Log::create(&*place.files, &path, manifest.log, salt)?;
        place.publish(name, &manifest)?;
        Ok(RowStore {
            place: place.clone(),
            name: name.to_owned(),
            manifest,
            log,
            index: None,
            index_before: 0,
            is_off: false,
        })
    }

    /// Opens a store and verifies every byte of it. Files of interrupted writes are removed.
    ///
    /// # Errors
    /// `Corrupt` for a damaged manifest or segment, `Format`, `Io`.
    pub fn open(place: &Place, name: &str) -> Result<Opened> {
        let at = |error: Error| error.with("collection", name);
        let io = |error| at(Error::io("open a collection", error));
        let path = place.path(name, MANIFEST);
        let manifest = read_all(&*place.files, &path, MANIFEST_BYTES_MAX).map_err(io)?;
        let manifest = Manifest::decode(&manifest).map_err(at)?;
        let open = |listing: &Listing| {
            let path = place.segment(name, listing.number);
            let segment = RowSegment::open(&*place.files, &path, place.read, listing.number, manifest.salt)?;
            if segment.rows() == listing.rows as usize {
                return Ok(Arc::new(segment));
            }
            Err(Error::new(Kind::Corrupt, "a segment of rows has not the rows that its manifest says"))
        };
        let segments = manifest.segments.iter().map(open).collect::<Result<Vec<_>>>().map_err(at)?;
        let path = place.log(name, manifest.log);
        let (log, replay) = Log::open(&*place.files, &path, manifest.log, manifest.salt).map_err(at)?;
        let (place, name) = (place.clone(), name.to_owned());
        let index = place.snapshot_number(&name, &manifest.salt);
        let index_before = index.unwrap_or(0);
        let store = RowStore { place, name, manifest, log, index, index_before, is_off: false };
        store.remove_drafts().map_err(io)?;
        store.remove_strays().map_err(io)?;
        Ok(Opened { store, segments, replay })
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes in the log.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Whether writes are taken.
    pub fn is_on(&self) -> bool {
        !self.is_off
    }

    /// Appends a record to the log; it is durable when this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: the store takes no more writes until it is opened again, because nothing is known of what
    /// reached the disk. `Unavailable` after that.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        self.check_on()?;
        let appended = self.log.append(record);
        self.is_off = appended.is_err();
        appended
    }

    /// Writes a segment and flushes it. It belongs to the store once a manifest lists it.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: nothing has changed. `Unavailable` if the store is off.
    pub fn write_segment<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = Row<'a>> + Clone,
    ) -> Result<Arc<RowSegment>> {
        self.check_on()?;
        let number = self.take_number();
        let path = self.place.segment(&self.name, number);
        let identity = (number, self.manifest.salt, self.manifest.dim);
        RowSegment::write(&*self.place.files, &path, self.place.read, identity, rows).map(Arc::new)
    }

    /// Publishes which segments hold from now on, and removes the files that no longer belong.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: the store is off, and the next start finds the old manifest or the new one.
    pub fn publish(&mut self, segments: Vec<Listing>, version: u64, fate: LogFate) -> Result<()> {
        self.check_on()?;
        let published = self.try_publish(segments, version, fate);
        self.is_off = published.is_err();
        published
    }

    fn try_publish(&mut self, segments: Vec<Listing>, version: u64, fate: LogFate) -> Result<()> {
        let io = |error| Error::io("remove what a collection has outlived", error);
        let fresh = match fate {
            LogFate::Kept => None,
            LogFate::Replaced => {
                let number = self.take_number();
                let path = self.place.log(&self.name, number);
                Some(Log::create(&*self.place.files, &path, number, self.manifest.salt)?)
            }
        };
        let log = fresh.as_ref().map_or(self.log.number(), Log::number);
        let next = Manifest { segments, version, log, ..self.manifest.clone() };
        self.place.publish(&self.name, &next)?;
        self.manifest = next;
        if let Some(fresh) = fresh {
            self.log = fresh;
        }
        self.remove_strays().map_err(io)
    }

    /// Drops the collection: when this returns it is gone for good, and its bytes are removed.
    ///
    /// # Errors
    /// `Io`: it may be there or gone at the next start.
    pub fn drop_collection(self) -> Result<()> {
        let Place { files, dir, .. } = &self.place;
        let from = self.place.path(&self.name, MANIFEST);
        files
            .rename(&from, &self.place.path(&self.name, DROPPED))
            .and_then(|()| files.sync_dir(dir))
            .map_err(|error| Error::io("drop a collection", error).with("collection", &self.name))?;
        self.place.remove_files(&self.name)
    }

    fn check_on(&self) -> Result<()> {
        if self.is_off {
            let message = "a write of this collection failed; it takes no more until the next start";
            return Err(Error::new(Kind::Unavailable, message).with("collection", &self.name));
        }
        Ok(())
    }

    fn take_number(&mut self) -> u64 {
        let number = self.manifest.next_number;
        self.manifest.next_number += 1;
        number
    }

    /// Removes drafts of indexes that were being built when the process ended. Those that are being built now look the same.
    fn remove_drafts(&self) -> std::io::Result<()> {
        let Place { files, dir, .. } = &self.place;
        let is_ours = |file: &str| file.strip_prefix(&*self.name).is_some_and(|rest| rest.starts_with('.'));
        for file in files.list(dir)? {
            if is_ours(&file.name) && file.name.ends_with(".draft") {
                remove_if_present(&**files, &dir.join(&file.name))?;
            }
        }
        Ok(())
    }

    /// Removes our files that the manifest does not list: of writes that were interrupted, or outlived.
    fn remove_strays(&self) -> std::io::Result<()> {
        let Place { files, dir, .. } = &self.place;
        for file in files.list(dir)? {
            let Some((name, what)) = file.name.split_once('.') else { continue };
            let belongs = match what.split_once('.') {
                Some((number, "log")) => number.parse() == Ok(self.manifest.log),
                Some((number, "rows")) => {
                    self.manifest.segments.iter().any(|listing| number.parse() == Ok(listing.number))
                }
                Some((number, "faiss")) => number.parse().ok() == self.index,
                Some((MANIFEST | SNAPSHOT, "tmp")) => false,
                _ => true,
            };
            if name == self.name && !belongs {
                remove_if_present(&**files, &dir.join(&file.name))?;
            }
        }
        Ok(())
    }
}
