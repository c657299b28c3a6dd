//! The small records, checked without changing any.

use std::path::Path;

use fs_err as fs;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};

use super::layout::is_used;
use super::report::{Report, State};
use super::salvage::{Source, is_good};
use crate::error::{Error, Kind, Result};
use crate::storage::directory::{RECORDS, records_in};
use crate::storage::files::OsFiles;
use crate::storage::files::log::mark_path;
use crate::storage::objects::{HEADS, OBJECTS};
use crate::storage::records::header_copy::{self, HeaderState};
use crate::storage::records::mirror::{self, Found};
use crate::storage::records::overlay::Overlay;
use crate::storage::records::redb_header::{CLOSED_AT, NOT_CLOSED};
use crate::storage::records::{MIRRORED, RECORDS_NAME, definition, failed, guarded};

pub(super) fn check(root: &Path, report: &mut Report) -> Result<()> {
    check_mirror(root, report)?;
    let path = records_in(root).join(RECORDS_NAME);
    let file = Path::new(RECORDS).join(RECORDS_NAME);
    if !path.exists() {
        if is_used(root) {
            report.add(file, State::Damaged, "missing");
        } else {
            report.add(file, State::Note, "missing; the next start creates it");
        }
        return Ok(());
    }
    let bytes = fs::metadata(&path)
        .map_err(|error| Error::io("cannot read the records", error).with("path", path.display()))?
        .len();
    if bytes == 0 && is_used(root) {
        report.add(file, State::Damaged, "empty");
        return Ok(());
    }
    if check_header(&path, &file, report)? {
        return Ok(());
    }
    let checked = guarded(|| {
        let mut database = Source { path: &path, header: None }.open(|byte| byte)?;
        let is_whole = database.check_integrity()?;
        Ok((is_whole, count_bad_objects(&database)?))
    });
    let ends_within_a_page = Overlay::ends_within_a_page(&path)
        .map_err(|error| Error::io("cannot read the records", error).with("path", path.display()))?;
    match checked {
        Ok(_) if ends_within_a_page => report.add(file, State::Damaged, "it ends within a page"),
        Ok((_, bad)) if bad > 0 => {
            report.add(file, State::Damaged, format!("{bad} objects do not verify"));
        }
        Ok((true, _)) => report.add(file, State::Whole, "every page verifies"),
        Ok((false, _)) if was_closed(&path)? => {
            report.add(file, State::Damaged, "the last commit does not verify");
        }
        Ok((false, _)) => report.add(file, State::Note, "was left by a crash; the next start settles it"),
        Err(error) => {
            let error = failed("cannot check the records", &path, error);
            if matches!(error.kind(), Kind::Locked | Kind::Format) {
                return Err(error);
            }
            report.add(file, State::Damaged, error.to_string());
        }
    }
    Ok(())
}

/// Whether the header was reported as damaged; its copy is a file of its own.
fn check_header(path: &Path, file: &Path, report: &mut Report) -> Result<bool> {
    if path.is_dir() {
        // Reported as misplaced; its copy may be that of the file that was there.
        return Ok(true);
    }
    let copy = header_copy::path_of(file);
    match header_copy::check_header(path)? {
        HeaderState::Damaged(_) => {
            report.add(file, State::Damaged, "its header is not that of the last commit");
            return Ok(true);
        }
        HeaderState::OlderSlotDamaged(_) => {
            report.add(file, State::Damaged, "the slot of its last commit but one does not verify");
            return Ok(true);
        }
        HeaderState::Unknown(error) => report.add(copy, State::Damaged, error.to_string()),
        HeaderState::Valid if header_copy::path_of(path).exists() => {
            report.add(copy, State::Whole, "agrees with the records");
        }
        HeaderState::Valid => report.add(copy, State::Note, "missing; the next start writes it"),
    }
    Ok(false)
}

/// The copy of the tokens.
fn check_mirror(root: &Path, report: &mut Report) -> Result<()> {
    let dir = records_in(root);
    let name = |number| {
        let path = mirror::path_of(&dir, MIRRORED, number);
        Path::new(RECORDS).join(path.file_name().unwrap_or_default())
    };
    if !dir.join(RECORDS_NAME).exists() && !dir.is_dir() {
        return Ok(());
    }
    match mirror::find(&OsFiles, &dir, MIRRORED)? {
        None => report.add(name(1), State::Note, "missing; the next start writes it"),
        Some(Found { table: Err(error), .. }) if error.kind() == Kind::Format => return Err(error),
        Some(Found { number, is_empty: true, .. }) => {
            report.add(name(number), State::Note, "was left by a crash; the next start replaces it");
        }
        Some(Found { number, table: Err(error), .. }) => {
            report.add(name(number), State::Damaged, error.to_string());
        }
        Some(Found { number, is_marked, table: Ok(table), .. }) => {
            report.add(name(number), State::Whole, format!("{} records", table.len()));
            if !is_marked {
                let what = "missing or empty: damage of the last record looks like a write that was cut off";
                report.add(mark_path(&name(number)), State::Note, what);
            }
        }
    }
    Ok(())
}

/// Whether redb closed the file: then nothing in it was left unfinished.
fn was_closed(path: &Path) -> Result<bool> {
    let mut byte = 0;
    let read = Overlay::open(path).and_then(|overlay| {
        overlay.patch(CLOSED_AT, |found| {
            byte = found;
            found
        })
    });
    read.map_err(|error| Error::io("cannot read the records", error).with("path", path.display()))?;
    Ok(byte & NOT_CLOSED == 0)
}

/// Objects whose record does not verify, or has no head that agrees, and heads without a record.
fn count_bad_objects(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_read()?;
    let (objects, heads) =
        match (transaction.open_table(definition(OBJECTS)), transaction.open_table(definition(HEADS))) {
            (Ok(objects), Ok(heads)) => (objects, heads),
            (Err(redb::TableError::TableDoesNotExist(_)), Err(redb::TableError::TableDoesNotExist(_))) => {
                return Ok(0);
            }
            (Err(redb::TableError::TableDoesNotExist(_)), Ok(heads)) => return Ok(heads.len()?),
            (Ok(objects), Err(redb::TableError::TableDoesNotExist(_))) => return Ok(objects.len()?),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        };
    let mut good = 0;
    for record in objects.iter()? {
        let (key, record) = record?;
        let head = heads.get(key.value())?;
        good += u64::from(is_good(key.value(), record.value(), head.as_ref().map(|head| head.value())));
    }
    Ok(objects.len()?.max(heads.len()?).saturating_sub(good))
}
