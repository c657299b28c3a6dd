//! Checking every byte of the collections, without changing any.

use std::path::PathBuf;

use super::build_record::BUILD;
use super::log::{Log, Replay};
use super::place::{DROPPED, MANIFEST, MANIFEST_COPY, Place};
use super::segment::RowSegment;
use super::snapshot::SNAPSHOT;
use crate::error::{Error, Kind, Result};
use crate::storage::files::exists;

/// A file of a collection, checked.
#[derive(Debug)]
pub struct Checked {
    /// Its name.
    pub file: PathBuf,
    /// What is wrong with it, if anything is.
    pub damage: Option<Error>,
}

impl Place {
    /// Checks every byte of every collection, and changes nothing.
    ///
    /// # Errors
    /// `Io`. Damage is no error, it is in what is returned.
    pub fn check(&self) -> Result<Vec<Checked>> {
        let mut checked = Vec::new();
        for name in self.all_names()? {
            self.check_one(&name, &mut checked)?;
        }
        Ok(checked)
    }

    /// The names of the collections that are there, also of those of whose manifest only the copy is left.
    pub(super) fn all_names(&self) -> Result<Vec<String>> {
        let io = |error| Error::io("list the collections", error).with("path", self.dir.display());
        let (mut names, mut dropped) = (Vec::new(), Vec::new());
        for file in self.files.list(&self.dir).map_err(io)? {
            match file.name.split_once('.') {
                Some((name, MANIFEST | MANIFEST_COPY)) => names.push(name.to_owned()),
                Some((name, DROPPED)) => dropped.push(name.to_owned()),
                _ => {}
            }
        }
        names.sort();
        names.dedup();
        names.retain(|name| !dropped.contains(name));
        Ok(names)
    }

    fn check_one(&self, name: &str, checked: &mut Vec<Checked>) -> Result<()> {
        let io = |error| Error::io("look for a file of a collection", error).with("collection", name);
        let mut add = |path: PathBuf, damage: Option<Error>| {
            let file = path.file_name().map(PathBuf::from).unwrap_or_default();
            checked.push(Checked { file, damage });
        };
        let copy = self.path(name, MANIFEST_COPY);
        if exists(&*self.files, &copy).map_err(io)? {
            add(copy, self.manifest(name, MANIFEST_COPY).err());
        }
        let path = self.path(name, MANIFEST);
        let manifest = match self.manifest(name, MANIFEST) {
            Ok(manifest) => manifest,
            Err(error) => {
                add(path, Some(error));
                return Ok(());
            }
        };
        add(path, None);
        for listing in &manifest.segments {
            let path = self.segment(name, listing.number);
            let opened = RowSegment::open(&*self.files, &path, self.read, listing.number, manifest.salt);
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
            add(path, opened.map_or_else(Some, damage));
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
        if let Some(record) = self.build_record(name, &manifest.salt) {
            let corrupt = || Error::new(Kind::Corrupt, "the record of a build does not verify");
            add(self.path(name, BUILD), record.is_none().then(corrupt));
        }
        Ok(())
    }
}
