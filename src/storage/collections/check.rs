//! Checking every byte of the collections, without changing any.

use std::path::PathBuf;

use super::manifest::{Listing, Manifest};
use super::place::{BUILD, DROPPED, MANIFEST, MANIFEST_COPY, Place, SNAPSHOT};
use super::segment::RowSegment;
use crate::error::{Error, Kind, Result};
use crate::storage::files::exists;
use crate::storage::files::log::{DAMAGED_SUFFIX, Log, mark_path};

/// A file of a collection, checked.
#[derive(Debug)]
pub struct Checked {
    /// Its name.
    pub file: PathBuf,
    /// What is wrong with it, if anything is.
    pub damage: Option<Error>,
    /// What else there is to know of it.
    pub note: Option<&'static str>,
}

impl Place {
    /// Checks every byte of every collection, and changes nothing.
    ///
    /// # Errors
    /// `Io`. Damage is no error, it is in what is returned.
    pub fn check(&self) -> Result<Vec<Checked>> {
        let mut checked = Vec::new();
        for name in self.all_names()? {
            CheckOne { place: self, name: &name, checked: &mut checked }.run()?;
        }
        for file in self.orphans()? {
            let damage =
                Error::new(Kind::Corrupt, "belongs to a collection whose manifest and its copy are missing");
            checked.push(Checked { file: file.into(), damage: Some(damage), note: None });
        }
        Ok(checked)
    }

    /// Files that hold something of collections that have neither a manifest nor a copy of it.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn orphans(&self) -> Result<Vec<String>> {
        let io = |error| Error::io("cannot list the collections", error).with("path", self.dir.display());
        let listed = self.files.list(&self.dir).map_err(io)?;
        let has_head = |name: &str| {
            let heads = [MANIFEST, MANIFEST_COPY, DROPPED].map(|what| format!("{name}.{what}"));
            listed.iter().any(|file| heads.contains(&file.name))
        };
        let is_orphan = |file: &str, bytes: u64| {
            let Some((name, what)) = file.split_once('.') else { return false };
            // A creation that a crash interrupted leaves a log without a record.
            let holds_something = matches!(what.split_once('.'), Some((_, "rows" | "log")) if bytes > 0);
            holds_something && !has_head(name)
        };
        let orphans = listed.iter().filter(|file| is_orphan(&file.name, file.bytes));
        Ok(orphans.map(|file| file.name.clone()).collect())
    }
}

struct CheckOne<'a> {
    place: &'a Place,
    name: &'a str,
    checked: &'a mut Vec<Checked>,
}

impl CheckOne<'_> {
    fn run(mut self) -> Result<()> {
        let Some(manifest) = self.check_manifest()? else { return Ok(()) };
        for listing in &manifest.segments {
            self.check_segment(&manifest, listing);
        }
        self.check_log(&manifest);
        self.check_derived(&manifest);
        self.note_copies()
    }

    fn add(&mut self, path: PathBuf, damage: Option<Error>) {
        self.note(path, damage, None);
    }

    fn note(&mut self, path: PathBuf, damage: Option<Error>, note: Option<&'static str>) {
        let file = path.file_name().map(PathBuf::from).unwrap_or_default();
        self.checked.push(Checked { file, damage, note });
    }

    /// The manifest, if it verifies.
    fn check_manifest(&mut self) -> Result<Option<Manifest>> {
        let io = |error| Error::io("look for a file of a collection", error).with("collection", self.name);
        let copy = self.place.path(self.name, MANIFEST_COPY);
        let is_copied = exists(&*self.place.files, &copy).map_err(io)?;
        let note = (!is_copied).then_some("missing; the next start writes it");
        let read = is_copied.then(|| self.place.manifest(self.name, MANIFEST_COPY));
        let (copied, damage) = match read {
            None => (None, None),
            Some(Ok(copied)) => (Some(copied), None),
            Some(Err(error)) => (None, Some(error)),
        };
        let path = self.place.path(self.name, MANIFEST);
        let (manifest, manifest_damage) = match self.place.manifest(self.name, MANIFEST) {
            Ok(manifest) => (Some(manifest), None),
            Err(error) => (None, Some(error)),
        };
        let differs = matches!((&manifest, &copied), (Some(manifest), Some(copied)) if manifest != copied);
        let note = if differs { Some("is of another time; the next start replaces it") } else { note };
        self.note(copy, damage, note);
        self.add(path, manifest_damage);
        Ok(manifest)
    }

    fn check_segment(&mut self, manifest: &Manifest, listing: &Listing) {
        let path = self.place.segment(self.name, listing.number);
        let (files, read) = (&*self.place.files, self.place.read);
        let opened = RowSegment::open(files, &path, read, listing.number, manifest.salt);
        let damage = |segment: RowSegment| {
            let bad = segment.bad_rows().len();
            let what = if segment.rows() != listing.rows as usize {
                format!("{} rows, and the manifest says {}", segment.rows(), listing.rows)
            } else if bad > 0 {
                format!("{bad} of {} rows do not verify", segment.rows())
            } else {
                return None;
            };
            Some(Error::new(Kind::Corrupt, what))
        };
        self.add(path, opened.map_or_else(Some, damage));
    }

    fn check_log(&mut self, manifest: &Manifest) {
        let path = self.place.log(self.name, manifest.log);
        let mark = mark_path(&path);
        match Log::read(&*self.place.files, &path, manifest.log, &manifest.salt) {
            Err(error) => self.add(path, Some(error)),
            Ok((replay, acknowledged)) => {
                let damage = |count| Error::new(Kind::Corrupt, format!("{count} records do not verify"));
                let damage = (replay.damaged > 0).then(|| damage(replay.damaged));
                let is_torn = replay.torn_bytes > 0;
                let note =
                    is_torn.then_some("ends with a write that was cut off, which the next start takes out");
                self.note(path, damage, note);
                match acknowledged {
                    Ok(Some(_)) => self.add(mark, None),
                    Ok(None) => {
                        let note =
                            "missing or empty: damage of the last record looks like a write that was cut off";
                        self.note(mark, None, Some(note));
                    }
                    Err(error) => self.add(mark, Some(error)),
                }
            }
        }
    }

    fn check_derived(&mut self, manifest: &Manifest) {
        if self.place.has_snapshot(self.name) {
            let opened = self.place.open_snapshot(self.name, &manifest.salt);
            self.add(self.place.path(self.name, SNAPSHOT), opened.err());
        }
        if let Some(record) = self.place.build_record(self.name, &manifest.salt) {
            let corrupt = || Error::new(Kind::Corrupt, "the record of a build does not verify");
            self.add(self.place.path(self.name, BUILD), record.is_none().then(corrupt));
        }
    }

    /// What starts of the server have copied of logs that were damaged.
    fn note_copies(&mut self) -> Result<()> {
        let io = |error| Error::io("cannot list the collections", error).with("collection", self.name);
        for file in self.place.files.list(&self.place.dir).map_err(io)? {
            let of_this = file.name.split_once('.').filter(|(name, _)| *name == self.name);
            if of_this.is_some_and(|(_, what)| what.ends_with(DAMAGED_SUFFIX)) {
                self.note(
                    file.name.into(),
                    None,
                    Some("a copy of what does not verify of a log; removed with the log"),
                );
            }
        }
        Ok(())
    }
}
