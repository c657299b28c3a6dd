//! The store of one collection.

use std::sync::Arc;

use super::manifest::{Listing, Manifest};
use super::place::{BUILD, DROPPED, MANIFEST, MANIFEST_COPY, Place, SNAPSHOT};
use super::salt::Salt;
use super::segment::{Row, RowSegment};
use crate::error::{Error, Kind, Result};
use crate::storage::files::log::{Log, Replay, log_number};
use crate::storage::files::{exists, remove_if_present};

/// What becomes of the log when a manifest is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFate {
    /// It goes on: not all that it says is in segments.
    Kept,
    /// All that it says is in segments, so a new one begins.
    Replaced,
}

/// The store of one collection.
#[derive(Debug)]
pub struct RowStore {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) manifest: Manifest,
    pub(super) log: Log,
    /// The number of the index's snapshot, if there may be one.
    pub(super) index: Option<u64>,
    /// The highest number that a snapshot has had since the start.
    pub(super) index_before: u64,
    /// Set by the first write that failed: nothing is known of the files' ends any more.
    pub(super) is_off: bool,
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

impl Drop for RowStore {
    fn drop(&mut self) {
        self.log.close();
    }
}

impl RowStore {
    /// A new, empty store, durable when this returns. `settings` are given back when it is opened.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn create(place: &Place, name: &str, dim: u32, settings: Vec<u8>) -> Result<RowStore> {
        let io = |error| Error::io("cannot create a collection", error).with("collection", name);
        place.files.create_dir(&place.dir).map_err(io)?;
        // Else the next start would take the new collection for the one that was dropped.
        if exists(&*place.files, &place.path(name, DROPPED)).map_err(io)? {
            place.remove_files(name)?;
        }
        let mut salt = Salt::default();
        getrandom::fill(&mut salt).map_err(|error| {
            Error::new(Kind::Io, "cannot draw a salt").source(std::io::Error::from(error))
        })?;
        let manifest =
            Manifest { salt, next_number: 2, log: 1, version: 0, dim, settings, segments: Vec::new() };
        let path = place.log(name, manifest.log);
        // Of a creation that a crash interrupted: what was acknowledged has a manifest.
        remove_if_present(&*place.files, &path).map_err(io)?;
        let log = Log::create(&*place.files, &path, manifest.log, salt)?;
        place.stage(name, &manifest)?.publish(place)?;
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
        let manifest = place.manifest(name, MANIFEST)?;
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
        store.place.renew_copy(&store.name, &store.manifest);
        store.remove_strays(true);
        Ok(Opened { store, segments, replay })
    }

    /// The collection's name.
    pub fn name(&self) -> &str {
        &self.name
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
    /// `TooLarge`; `Io`, `DiskFull`: the store takes no more writes until it is opened again, because nothing is known of
    /// what reached the disk. `Unavailable` after that.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        self.check_on()?;
        let appended = self.log.append(record);
        // One that is too large was not begun.
        self.is_off = appended.as_ref().is_err_and(|error| error.kind() != Kind::TooLarge);
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
    /// `Io`, `DiskFull`: nothing has changed, or, if the manifest may have been replaced, the store is off, and the next start
    /// finds the old manifest or the new one.
    pub fn publish(&mut self, segments: Vec<Listing>, version: u64, fate: LogFate) -> Result<()> {
        self.check_on()?;
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
        let published = self.place.stage(&self.name, &next)?.publish(&self.place);
        self.is_off = published.is_err();
        published?;
        self.manifest = next;
        if let Some(fresh) = fresh {
            self.log = fresh;
        }
        self.remove_strays(false);
        Ok(())
    }

    /// Drops the collection: when this returns it is gone for good. Files that cannot be removed are removed at the next start.
    ///
    /// # Errors
    /// `Io`: it may be there or gone at the next start.
    pub fn drop_collection(self) -> Result<()> {
        self.place.drop_collection(&self.name)
    }

    /// Replaces the settings: durable when this returns.
    ///
    /// # Errors
    /// As [`RowStore::publish`].
    pub fn replace_settings(&mut self, settings: Vec<u8>) -> Result<()> {
        self.check_on()?;
        let next = Manifest { settings, ..self.manifest.clone() };
        let published = self.place.stage(&self.name, &next)?.publish(&self.place);
        self.is_off = published.is_err();
        published?;
        self.manifest = next;
        Ok(())
    }

    pub(super) fn check_on(&self) -> Result<()> {
        if self.is_off {
            let message = "a write of this collection failed; it takes no more until the next start";
            return Err(Error::new(Kind::Unavailable, message).with("collection", &self.name));
        }
        Ok(())
    }

    pub(super) fn take_number(&mut self) -> u64 {
        let number = self.manifest.next_number;
        self.manifest.next_number += 1;
        number
    }

    /// Removes our files that the manifest does not list: of writes that were interrupted, or outlived. Drafts of indexes only
    /// when the store is opened: those that are being built look the same.
    ///
    /// What cannot be listed or removed takes room until the next time, and is no reason to refuse writes.
    pub(super) fn remove_strays(&self, with_drafts: bool) {
        let Place { files, dir, .. } = &self.place;
        let belongs = |what: &str| match what.split_once('.') {
            Some((_, "damaged.tmp")) => false,
            Some(_) if let Some(number) = log_number(what) => number == self.manifest.log,
            Some((number, "rows")) => {
                self.manifest.segments.iter().any(|listing| number.parse() == Ok(listing.number))
            }
            Some((number, "faiss")) => number.parse().ok() == self.index,
            Some((MANIFEST | MANIFEST_COPY | SNAPSHOT | BUILD, "tmp")) => false,
            Some((_, "draft")) => !with_drafts,
            _ => true,
        };
        let remove = || {
            for file in files.list(dir)? {
                let is_stray =
                    file.name.split_once('.').is_some_and(|(name, what)| name == self.name && !belongs(what));
                if is_stray {
                    remove_if_present(&**files, &dir.join(&file.name))?;
                }
            }
            Ok::<(), std::io::Error>(())
        };
        if let Err(error) = remove() {
            let collection = &self.name;
            tracing::warn!(%error, collection, "files that a collection has outlived cannot be removed yet");
        }
    }
}
