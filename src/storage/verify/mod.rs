//! Checking a whole data directory, and setting it right. Both hold the directory's lock.
//!
//! Checking changes nothing but the lock file. Repair never deletes: what is damaged is moved or copied into
//! `damaged-<time>/` inside the data directory, what can be derived from the rest is written again, and what can still be
//! read of damaged records is brought back.

mod layout;
mod records;
mod report;
mod salvage;
mod segments;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

pub use self::report::{Finding, Report, State};
use crate::domain::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};
use crate::storage::collections::{Checked, Place};
use crate::storage::directory::{
    COLLECTIONS, FORMAT_BYTES_MAX, FORMAT_NAME, Lock, collections_in, decode_format, records_in, vectors_in,
    write_format,
};
use crate::storage::files::ReadMode;
use crate::storage::files::{OsFiles, create_private_dir, read_all};
use crate::storage::hot_keys_file::{HOT_KEYS_NAME, HotKeysFile};
use crate::storage::records::RECORDS_NAME;
use crate::storage::records::header_copy;
use crate::storage::vectors::options::Options;
use crate::storage::vectors::recovery::recover;

/// Checks everything in the data directory `root`: format, manifest, every slot, every index file, the records.
///
/// Errors: `NotFound` if there is no such directory, `Locked` if a server uses it, `Format` if it was written by a
/// newer version, `Io`. Damage is no error, it is in the report.
///
/// Cost: reads every byte once, those of the records twice.
pub fn verify(root: &Path) -> Result<Report> {
    let _lock = lock_existing(root)?;
    check(root)
}

/// Moves damaged files into `damaged-<time>/`, then rewrites manifest and index files from the segments. Of a segment
/// with damaged slots a copy goes there, and the slots are emptied. What damaged records still hold is brought back.
/// What is left of damaged collections is written into new files. Returns what was found before, and what is found now.
///
/// Errors: as [`verify`].
pub fn repair(root: &Path) -> Result<(Report, Report)> {
    let _lock = lock_existing(root)?;
    let before = check(root)?;
    let aside = layout::unused(root, format!("damaged-{}", SystemClock.now()).as_ref());
    for misplaced in layout::misplaced(root)? {
        move_aside(root, &aside, &misplaced)?;
    }
    // The files of a collection mean something only together: they have a repair of their own.
    let is_collection = |finding: &&Finding| finding.file.starts_with(COLLECTIONS);
    let damaged = before.findings.iter().filter(|finding| finding.state == State::Damaged);
    let mut salvaged = None;
    for finding in damaged.filter(|finding| !is_collection(finding)) {
        let from = root.join(&finding.file);
        if !finding.slots.is_empty() {
            let copy = place_aside(&aside, &finding.file)?;
            segments::clear_slots(&from, &copy, &finding.slots, finding.flushed_slots)?;
            // It names what was there before.
            move_aside(root, &aside, &finding.file.with_extension("idx"))?;
        } else if from == records_in(root).join(RECORDS_NAME) {
            salvaged = Some((finding.file.clone(), salvage::salvage(&from)?));
            move_aside(root, &aside, &finding.file)?;
            move_aside(root, &aside, &header_copy::path_of(&finding.file))?;
            salvage::publish_salvaged(&from)?;
        } else {
            move_aside(root, &aside, &finding.file)?;
        }
    }
    if !root.join(FORMAT_NAME).exists() {
        write_format(root)?;
    }
    let vectors = vectors_in(root);
    if layout::is_used(root) {
        create_private_dir(&vectors)
            .map_err(|error| Error::io("cannot create the folder of the vectors", error))?;
        recover(&OsFiles, &vectors, &Options::default(), SystemClock.now())?;
    }
    let place = collections_at(root);
    if place.dir.is_dir() {
        place.repair(&aside.join(COLLECTIONS))?;
    }
    let mut after = check(root)?;
    if let Some((file, salvaged)) = salvaged {
        after.add(file, State::Note, salvaged.to_string());
    }
    Ok((before, after))
}

fn lock_existing(root: &Path) -> Result<Lock> {
    if !root.is_dir() {
        return Err(Error::new(Kind::NotFound, "cannot find the data directory").with("path", root.display()));
    }
    Lock::take(root)
}

fn move_aside(root: &Path, aside: &Path, file: &Path) -> Result<()> {
    let from = root.join(file);
    if !from.exists() {
        return Ok(());
    }
    let to = place_aside(aside, file)?;
    fs::rename(&from, &to).map_err(|error| Error::io("cannot move a damaged file aside", error))
}

/// Where a damaged file goes.
fn place_aside(aside: &Path, file: &Path) -> Result<PathBuf> {
    let to = aside.join(file);
    let (Some(folder), Some(name)) = (to.parent(), to.file_name()) else { return Ok(to) };
    create_private_dir(folder)
        .map_err(|error| Error::io("cannot create a folder for damaged files", error))?;
    Ok(layout::unused(folder, name))
}

fn check(root: &Path) -> Result<Report> {
    let mut report = Report::default();
    layout::check(root, &mut report)?;
    let misplaced = report.findings.len();
    check_format(root, &mut report)?;
    check_hot_keys(root, &mut report);
    segments::check(root, &mut report)?;
    check_collections(root, &mut report)?;
    records::check(root, &mut report)?;
    // What a file is said to be that is none at all adds nothing.
    let (misplaced, others) = report.findings.split_at(misplaced);
    let is_new = |finding: &&Finding| !misplaced.iter().any(|known| known.file == finding.file);
    let others: Vec<Finding> = others.iter().filter(is_new).cloned().collect();
    report.findings.truncate(misplaced.len());
    report.findings.extend(others);
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

/// A server starts without the list, and replaces it, whatever it is.
fn check_hot_keys(root: &Path, report: &mut Report) {
    match HotKeysFile::new(Arc::new(OsFiles), root).read() {
        Ok(None) => {}
        Ok(Some(_)) => report.add(HOT_KEYS_NAME, State::Whole, "everything verifies"),
        Err(error) if error.kind() == Kind::Format => {
            report.add(HOT_KEYS_NAME, State::Note, error.to_string());
        }
        Err(error) => report.add(HOT_KEYS_NAME, State::Damaged, error.to_string()),
    }
}

fn collections_at(root: &Path) -> Place {
    Place { files: Arc::new(OsFiles), dir: collections_in(root), read: ReadMode::Pread }
}

fn check_collections(root: &Path, report: &mut Report) -> Result<()> {
    let place = collections_at(root);
    if !place.dir.is_dir() {
        return Ok(());
    }
    for Checked { file, damage, note } in place.check()? {
        let file = Path::new(COLLECTIONS).join(file);
        match (damage, note) {
            (None, None) => report.add(file, State::Whole, "everything verifies"),
            (None, Some(note)) => report.add(file, State::Note, note),
            (Some(damage), _) if damage.kind() == Kind::Format => return Err(damage),
            (Some(damage), _) => report.add(file, State::Damaged, damage.to_string()),
        }
    }
    Ok(())
}
