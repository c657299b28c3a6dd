//! Checking a whole data directory, and setting it right. Both hold the directory's lock.
//!
//! Repair never deletes: what is damaged is moved into `damaged-<time>/` inside the data directory, and what can be
//! derived from the rest is written anew.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::directory::{
    COLLECTIONS, FORMAT_BYTES_MAX, FORMAT_NAME, Lock, collections_in, decode_format, records_in, vectors_in,
    write_format,
};
use super::files::{Files, OsFiles, read_all};
use super::index_file::{self, IndexEntry, index_number};
use super::manifest::{MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest};
use super::open_segment::OpenSegment;
use super::options::{Options, ReadMode};
use super::records::{RECORDS_NAME, failed, guarded};
use super::recovery::recover;
use super::rows::{Checked, Place};
use super::segment::segment_number;
use crate::domain::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};

/// How a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it was written.
    Whole,
    /// Nothing is wrong with the data, but there is something to know.
    Note,
    /// Not what was written.
    Damaged,
}

/// One checked file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the data directory.
    pub file: PathBuf,
    /// How it was found.
    pub state: State,
    /// What was found, in words.
    pub what: String,
}

/// What was found in a data directory. Displayed, it is a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One finding per file, in the order of checking.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_whole(&self) -> bool {
        self.findings.iter().all(|finding| finding.state != State::Damaged)
    }

    /// How many files are damaged.
    pub fn damaged(&self) -> usize {
        self.findings.iter().filter(|finding| finding.state == State::Damaged).count()
    }

    fn add(&mut self, file: impl AsRef<Path>, state: State, what: impl Into<String>) {
        self.findings.push(Finding { file: file.as_ref().to_path_buf(), state, what: what.into() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |finding: &Finding| finding.file.display().to_string();
        let width = self.findings.iter().map(|finding| name(finding).len()).max().unwrap_or(0).max(4);
        writeln!(f, "{:width$}  {:7}  found", "file", "state")?;
        for finding in &self.findings {
            let state = match finding.state {
                State::Whole => "whole",
                State::Note => "note",
                State::Damaged => "DAMAGED",
            };
            writeln!(f, "{:width$}  {state:7}  {}", name(finding), finding.what)?;
        }
        write!(f, "{} files checked, {} damaged", self.findings.len(), self.damaged())
    }
}

/// Checks everything in the data directory `root`: format, manifest, every slot, every index file, the records.
///
/// Errors: `NotFound` if there is no such directory, `Locked` if a server uses it, `Format` if it was written by a
/// newer version, `Io`. Damage is no error, it is in the report.
///
/// Cost: reads every byte once. Records that a killed process left are settled first, as by any start.
pub fn verify(root: &Path) -> Result<Report> {
    let _lock = lock_existing(root)?;
    check(root)
}

/// Moves damaged files into `damaged-<time>/`, then writes manifest and index files anew from the segments. Files of
/// collections stay where they are. Returns what was found before, and what is found now.
///
/// Errors: as [`verify`].
pub fn repair(root: &Path) -> Result<(Report, Report)> {
    let _lock = lock_existing(root)?;
    let before = check(root)?;
    let aside = root.join(format!("damaged-{}", SystemClock.now()));
    // A collection is left as it is: its good rows are served, and without its manifest the rest would mean nothing.
    let is_collection = |finding: &&Finding| finding.file.starts_with(COLLECTIONS);
    let damaged = before.findings.iter().filter(|finding| finding.state == State::Damaged);
    for finding in damaged.filter(|finding| !is_collection(finding)) {
        move_aside(root, &aside, &finding.file)?;
    }
    if !root.join(FORMAT_NAME).exists() {
        write_format(root)?;
    }
    let vectors = vectors_in(root);
    if vectors.exists() {
        recover(&OsFiles, &vectors, &Options::default(), SystemClock.now())?;
    }
    let after = check(root)?;
    Ok((before, after))
}

fn lock_existing(root: &Path) -> Result<Lock> {
    if !root.is_dir() {
        return Err(Error::new(Kind::NotFound, "find the data directory").with("path", root.display()));
    }
    Lock::take(root)
}

fn move_aside(root: &Path, aside: &Path, file: &Path) -> Result<()> {
    let failed = |error| Error::io("move a damaged file aside", error);
    let from = root.join(file);
    if !from.exists() {
        return Ok(());
    }
    let to = aside.join(file);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::rename(&from, &to).map_err(failed)
}

fn check(root: &Path) -> Result<Report> {
    let mut report = Report::default();
    check_format(root, &mut report)?;
    check_vectors(root, &mut report)?;
    check_collections(root, &mut report)?;
    check_records(root, &mut report)?;
    Ok(report)
}

fn check_format(root: &Path, report: &mut Report) -> Result<()> {
    match read_all(&OsFiles, &root.join(FORMAT_NAME), FORMAT_BYTES_MAX) {
        Ok(bytes) => match decode_format(&bytes) {
            Ok(version) => report.add(FORMAT_NAME, State::Whole, format!("version {version}")),
            Err(error) if error.kind() == Kind::Format => return Err(error.with("path", root.display())),
            Err(error) => report.add(FORMAT_NAME, State::Damaged, error.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.add(FORMAT_NAME, State::Damaged, "missing");
        }
        Err(error) => report.add(FORMAT_NAME, State::Damaged, error.to_string()),
    }
    Ok(())
}

fn check_vectors(root: &Path, report: &mut Report) -> Result<()> {
    let dir = vectors_in(root);
    if !dir.exists() {
        return Ok(());
    }
    let folder = Path::new("vectors");
    let listed = OsFiles.list(&dir).map_err(|error| Error::io("list segments", error))?;
    let manifest = check_manifest(&dir, &folder.join(MANIFEST_NAME), report)?;
    let mut numbers = Vec::new();
    for file in &listed {
        let name = folder.join(&file.name);
        if let Some(number) = segment_number(&file.name) {
            numbers.push(number);
            check_segment(&dir, folder, number, manifest.as_ref(), report)?;
        } else if file.name.ends_with(".tmp") {
            report.add(name, State::Note, "left by a crash; the next start overwrites it");
        } else if file.name != MANIFEST_NAME && index_number(&file.name).is_none() {
            report.add(name, State::Note, "not a file of this store; left alone");
        }
    }
    let orphans =
        listed.iter().filter(|file| index_number(&file.name).is_some_and(|n| !numbers.contains(&n)));
    for file in orphans {
        report.add(folder.join(&file.name), State::Note, "index file of a segment that has gone");
    }
    for listing in manifest.iter().flat_map(|manifest| &manifest.segments) {
        if !numbers.contains(&listing.number) {
            let what = format!("names segment {}, which is missing", listing.number);
            report.add(folder.join(MANIFEST_NAME), State::Damaged, what);
        }
    }
    Ok(())
}

fn check_manifest(dir: &Path, name: &Path, report: &mut Report) -> Result<Option<Manifest>> {
    let path = dir.join(MANIFEST_NAME);
    if !path.exists() {
        report.add(name, State::Note, "missing; the next start rebuilds it");
        return Ok(None);
    }
    let manifest = read_all(&OsFiles, &path, MANIFEST_BYTES_MAX)
        .map_err(|error| Error::io("read manifest", error))
        .and_then(|bytes| Manifest::decode(&bytes));
    match manifest {
        Ok(manifest) => {
            report.add(name, State::Whole, format!("{} segments", manifest.segments.len()));
            Ok(Some(manifest))
        }
        Err(error) if error.kind() == Kind::Format => Err(error.with("path", path.display())),
        Err(error) => {
            report.add(name, State::Damaged, error.to_string());
            Ok(None)
        }
    }
}

fn check_segment(
    dir: &Path,
    folder: &Path,
    number: u32,
    manifest: Option<&Manifest>,
    report: &mut Report,
) -> Result<()> {
    let name = super::segment::segment_name(number);
    let file = folder.join(&name);
    let segment = match OpenSegment::open(&OsFiles, dir.join(&name), ReadMode::Pread) {
        Ok(segment) => segment,
        Err(error) if error.kind() == Kind::Format => return Err(error),
        Err(error) => {
            report.add(file, State::Damaged, error.to_string());
            return Ok(());
        }
    };
    let listing = manifest.and_then(|manifest| manifest.find(number));
    if segment.header.number != number {
        report.add(file, State::Damaged, format!("is segment {} under another name", segment.header.number));
        return Ok(());
    }
    if listing.is_some_and(|listing| listing.salt != segment.header.salt) {
        report.add(file, State::Damaged, "is not the segment that the manifest names");
        return Ok(());
    }
    let scanned = match segment.scan() {
        Ok(scanned) => scanned,
        Err(error) => {
            report.add(file, State::Damaged, error.to_string());
            return Ok(());
        }
    };
    let is_short = segment.slots_present < segment.header.slot_count;
    let mut what = format!("{} entries", scanned.entries.len());
    if scanned.bad_slots > 0 {
        what += &format!(", {} slots that do not verify and are not used", scanned.bad_slots);
    }
    if is_short {
        what += &format!(
            ", the file ends after {} of {} slots",
            segment.slots_present, segment.header.slot_count
        );
    }
    let state = if scanned.bad_slots > 0 || is_short { State::Note } else { State::Whole };
    report.add(file, state, what);
    check_index(folder, &segment, &scanned.entries, report);
    Ok(())
}

/// An index file that names a slot which does not verify tells that the slot was good once: that is damage, and
/// writing the index file anew sets it right.
fn check_index(folder: &Path, segment: &OpenSegment, entries: &[IndexEntry], report: &mut Report) {
    let file = folder.join(index_file::index_name(segment.header.number));
    match read_all(&OsFiles, &segment.index_path(), index_file::bytes_max(&segment.header)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => report.add(file, State::Damaged, error.to_string()),
        Ok(bytes) => match index_file::decode(&bytes, &segment.header) {
            Ok(indexed) if indexed == entries => {
                report.add(file, State::Whole, format!("{} entries", indexed.len()))
            }
            Ok(indexed) => {
                let is_lost =
                    |entry: &&IndexEntry| entries.binary_search_by_key(&entry.slot, |e| e.slot).is_err();
                let lost = indexed.iter().filter(is_lost).count();
                let what =
                    format!("names {lost} entries whose slots do not verify any more, of {}", indexed.len());
                report.add(file, State::Damaged, what);
            }
            Err(error) => report.add(file, State::Damaged, error.to_string()),
        },
    }
}

fn check_collections(root: &Path, report: &mut Report) -> Result<()> {
    let dir = collections_in(root);
    if !dir.exists() {
        return Ok(());
    }
    let place = Place { files: Arc::new(OsFiles), dir, read: ReadMode::Pread };
    for Checked { file, damage } in place.check()? {
        let file = Path::new(COLLECTIONS).join(file);
        match damage {
            None => report.add(file, State::Whole, "everything verifies"),
            Some(damage) if damage.kind() == Kind::Format => return Err(damage),
            Some(damage) => report.add(file, State::Damaged, damage.to_string()),
        }
    }
    Ok(())
}

fn check_records(root: &Path, report: &mut Report) -> Result<()> {
    let path = records_in(root).join(RECORDS_NAME);
    if !path.exists() {
        return Ok(());
    }
    let checked = guarded(|| {
        let mut database = redb::Database::open(&path)?;
        Ok(database.check_integrity()?)
    });
    let file = Path::new("records").join(RECORDS_NAME);
    match checked {
        Ok(true) => report.add(file, State::Whole, "every page verifies"),
        Ok(false) => report.add(file, State::Note, "was left by a crash, and has been settled"),
        Err(error) => {
            let error = failed("check the records", &path, error);
            if matches!(error.kind(), Kind::Locked | Kind::Format) {
                return Err(error);
            }
            report.add(file, State::Damaged, error.to_string());
        }
    }
    Ok(())
}
