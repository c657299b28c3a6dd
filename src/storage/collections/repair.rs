//! Bringing back what damaged collections still hold.
//!
//! The files that are replaced are moved aside, never deleted. A collection of which neither the manifest nor its copy
//! verifies is left as it is: nothing else says which files belong to it, and which of their rows are dead.

use std::path::{Path, PathBuf};

use super::manifest::{Listing, MANIFEST_BYTES_MAX, Manifest};
use super::place::{BUILD, MANIFEST, MANIFEST_COPY, Place, SNAPSHOT};
use super::salvage::Salvaged;
use super::segment::RowSegment;
use crate::error::{Error, Kind, Result};
use crate::storage::files::log::{Log, Replay, mark_path};
use crate::storage::files::{publish, read_all};

impl Place {
    /// Replaces what is damaged of each collection by what of it verifies. The damaged files go to the directory `aside`.
    ///
    /// # Errors
    /// `Format` for files of a newer version; `Io`, `DiskFull`. Each collection is as it was, or repaired.
    pub fn repair(&self, aside: &Path) -> Result<()> {
        for name in self.all_names()? {
            Repair { place: self, name: &name, aside, replaced: Vec::new() }.run()?;
        }
        // Nothing says which of their rows are dead, and no server opens them.
        self.orphans()?.iter().try_for_each(|file| self.move_aside(aside, &self.dir.join(file)))
    }
}

impl Place {
    fn move_aside(&self, aside: &Path, file: &Path) -> Result<()> {
        let io = |error| Error::io("cannot move a damaged file aside", error).with("path", file.display());
        self.files.create_dir(aside).map_err(io)?;
        match self.files.rename(file, &aside.join(file.file_name().unwrap_or_default())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(io),
        }
    }
}

struct Repair<'a> {
    place: &'a Place,
    name: &'a str,
    aside: &'a Path,
    /// Files that the next manifest does not name, because others hold what was left of them.
    replaced: Vec<PathBuf>,
}

impl Repair<'_> {
    fn run(mut self) -> Result<()> {
        let (read, copy) =
            (self.place.manifest(self.name, MANIFEST), self.place.manifest(self.name, MANIFEST_COPY));
        let is_damaged = read.is_err();
        let is_copied = matches!((&read, &copy), (Ok(manifest), Ok(copy)) if manifest == copy);
        let manifest = match (read, copy) {
            (Ok(manifest), _) => manifest,
            (Err(error), _) if error.kind() == Kind::Format => return Err(error),
            (Err(_), Ok(copy)) => copy,
            (Err(error), Err(_)) => {
                tracing::error!(%error, "a collection cannot be repaired: its manifest and the copy are damaged");
                return Ok(());
            }
        };
        let next = self.renewed(&manifest)?;
        if is_damaged {
            self.copy_aside(MANIFEST)?;
        }
        if is_damaged || !is_copied || next != manifest {
            self.place.stage(self.name, &next)?.publish(self.place)?;
        }
        if self.place.has_snapshot(self.name) && self.place.open_snapshot(self.name, &manifest.salt).is_err()
        {
            // It is derived: the index is built again.
            self.replaced.push(self.place.path(self.name, SNAPSHOT));
        }
        if self.place.build_record(self.name, &manifest.salt).is_some_and(|record| record.is_none()) {
            self.replaced.push(self.place.path(self.name, BUILD));
        }
        self.replaced.iter().try_for_each(|file| self.place.move_aside(self.aside, file))
    }

    /// The manifest with segments and a log that verify.
    fn renewed(&mut self, manifest: &Manifest) -> Result<Manifest> {
        let mut next = Manifest { segments: Vec::new(), ..manifest.clone() };
        next.next_number = next.next_number.max(self.number_free()?);
        for listing in &manifest.segments {
            if self.is_whole(manifest, listing)? {
                next.segments.push(listing.clone());
            } else {
                let salvaged = self.salvage(manifest, listing, next.next_number)?;
                next.segments.extend(salvaged);
                next.next_number += 1;
            }
        }
        let path = self.place.log(self.name, manifest.log);
        let read = Log::read(&*self.place.files, &path, manifest.log, &manifest.salt);
        let is_whole = matches!(&read, Ok((Replay { damaged: 0, .. }, _)));
        if is_whole && matches!(&read, Ok((_, Err(_)))) {
            self.replaced.push(mark_path(&path));
        }
        if !is_whole {
            let replay = match read {
                Ok((replay, _)) => replay,
                // A log that cannot be read now may be whole: nothing takes its place.
                Err(error) if error.kind() == Kind::Io && !is_missing(&error) => return Err(error),
                Err(_) => Replay::default(),
            };
            next.log = next.next_number;
            next.next_number += 1;
            let path_of_next = self.place.log(self.name, next.log);
            let mut log = Log::create(&*self.place.files, &path_of_next, next.log, manifest.salt)?;
            replay.records.iter().try_for_each(|record| log.append(record))?;
            log.close();
            self.replaced.extend([mark_path(&path), path]);
        }
        Ok(next)
    }

    /// A number that no file of the collection has, nor any above it: strays count too.
    fn number_free(&self) -> Result<u64> {
        let io = |error| Error::io("cannot list the collections", error);
        let listed = self.place.files.list(&self.place.dir).map_err(io)?;
        let number = |file: &str| -> Option<u64> {
            let (name, rest) = file.split_once('.')?;
            let (number, _) = rest.split_once('.')?;
            number.parse().ok().filter(|_| name == self.name)
        };
        Ok(listed.iter().filter_map(|file| number(&file.name)).max().map_or(0, |highest| highest + 1))
    }

    fn is_whole(&self, manifest: &Manifest, listing: &Listing) -> Result<bool> {
        let path = self.place.segment(self.name, listing.number);
        let (files, read) = (&*self.place.files, self.place.read);
        match RowSegment::open(files, &path, read, listing.number, manifest.salt) {
            Ok(segment) => Ok(segment.bad_rows().is_empty() && segment.rows() == listing.rows as usize),
            Err(error) if error.kind() == Kind::Format => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// A segment of the rows that are left of a damaged one; none if none is.
    fn salvage(&mut self, manifest: &Manifest, listing: &Listing, number: u64) -> Result<Option<Listing>> {
        let path = self.place.segment(self.name, listing.number);
        let salvaged = Salvaged::read(&*self.place.files, &path, manifest, listing)?;
        self.replaced.push(path);
        if salvaged.is_empty() {
            return Ok(None);
        }
        let path = self.place.segment(self.name, number);
        let identity = (number, manifest.salt, manifest.dim);
        let rows = salvaged.rows();
        let written = RowSegment::write(&*self.place.files, &path, self.place.read, identity, rows)?;
        Ok(Some(Listing { number, rows: written.rows() as u32, dead: Vec::new() }))
    }

    fn copy_aside(&self, what: &str) -> Result<()> {
        let io = |error| Error::io("cannot copy a damaged file aside", error).with("collection", self.name);
        let files = &*self.place.files;
        let bytes = match read_all(files, &self.place.path(self.name, what), MANIFEST_BYTES_MAX) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(io)?,
        };
        files.create_dir(self.aside).map_err(io)?;
        publish(files, self.aside, &format!("{}.{what}", self.name), &bytes).map_err(io)
    }
}

/// Whether an error says that there is no such file.
fn is_missing(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::NotFound)
}
