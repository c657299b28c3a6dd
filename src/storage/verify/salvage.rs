//! Bringing back what damaged small records still hold.
//!
//! redb checks its pages only when it is asked to check the whole file, so a table is believed whole only if the file
//! verifies with every other table taken out. What is read of objects otherwise is believed if the record, which carries
//! a checksum over its key and itself, agrees with its head in the other table: a page that was freed long ago may hold
//! records which verify and were deleted since. Objects whose invalidations cannot be shown to be complete are not
//! brought back: that would be serving what was invalidated.
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableHandle as _,
};

use crate::domain::Key;
use crate::error::{Error, Result};
use crate::storage::files::{OsFiles, create_private_dir};
use crate::storage::objects::{HEADS, NAMES, OBJECTS, RecordFrame};
use crate::storage::records::header_copy::{self, HeaderState};
use crate::storage::records::mirror::{self, Table};
use crate::storage::records::overlay::Overlay;
use crate::storage::records::redb_header::{CLOSED_AT, Header, NOT_CLOSED};
use crate::storage::records::{MIRRORED, create_private_file, definition, failed, guarded};

/// Records that are written back in one commit, and bytes of them.
const COMMIT_RECORDS: usize = 4096;
const COMMIT_BYTES: usize = 16 << 20;

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// A damaged file, and the header to read it with, if its own is damaged.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) header: Option<Box<Header>>,
}

impl Source<'_> {
    /// Opens the file without changing it. `patch` changes the byte that says how it was closed.
    pub(super) fn open(&self, patch: impl FnOnce(u8) -> u8) -> Result<Database, redb::Error> {
        let overlay = Overlay::open(self.path)?.in_whole_pages();
        if let Some(header) = &self.header {
            overlay.begin_with(&header[..])?;
        }
        overlay.patch(CLOSED_AT, patch)?;
        Ok(Database::builder().create_with_backend(overlay)?)
    }
}
/// What was brought back of damaged records.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    objects: u64,
    others: u64,
    /// Tables that cannot be shown to be whole.
    lost: Vec<String>,
    /// Whether objects were left out because invalidations may be missing.
    is_distrusted: bool,
}

impl fmt::Display for Salvaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "brought back {} objects and {} other records", self.objects, self.others)?;
        if self.is_distrusted {
            write!(f, "; no objects, because invalidations of them may be lost")?;
        }
        if !self.lost.is_empty() {
            write!(f, "; not whole: {}", self.lost.join(", "))?;
        }
        Ok(())
    }
}

/// Writes what the damaged file at `path` still holds into a file beside it, which [`publish_salvaged`] puts in its
/// place. A file of which nothing can be read leaves an empty one.
pub(super) fn salvage(path: &Path) -> Result<Salvaged> {
    let to = draft_of(path);
    let io = |error| Error::io("cannot write salvaged records", error).with("path", to.display());
    if let Some(folder) = to.parent() {
        create_private_dir(folder).map_err(io)?;
    }
    if to.exists() {
        fs::remove_file(&to).map_err(io)?;
    }
    create_private_file(&to).map_err(io)?;
    let mut salvaged = Salvaged::default();
    let mirrored =
        mirror::find(&OsFiles, path.parent().unwrap_or(path), MIRRORED)?.and_then(|found| found.table.ok());
    let source = Source { path, header: header_copy::check_header(path).ok().and_then(HeaderState::header) };
    let written = guarded(|| {
        let target = Database::create(&to)?;
        fill(&source, &target, mirrored, &mut salvaged)
    });
    written.map_err(|error| failed("cannot write salvaged records", &to, error))?;
    Ok(salvaged)
}

/// Gives the salvaged records their name.
pub(super) fn publish_salvaged(path: &Path) -> Result<()> {
    let io = |error| Error::io("cannot put salvaged records in place", error).with("path", path.display());
    fs::rename(draft_of(path), path).map_err(io)?;
    let folder = path.parent().unwrap_or(path);
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn draft_of(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// `mirrored` is the table of tokens as its copy has it, if the copy is complete.
fn fill(
    from: &Source<'_>,
    target: &Database,
    mirrored: Option<Table>,
    salvaged: &mut Salvaged,
) -> Result<(), redb::Error> {
    let tables = guarded(|| tables(&reopened(from)?)).unwrap_or_else(|_| {
        salvaged.lost.push("the list of tables".into());
        Vec::new()
    });
    let mut has_versions = false;
    for table in tables.iter().filter(|&table| table != OBJECTS && table != HEADS) {
        match verified(from, &tables, table) {
            Some(database) => {
                let count = copy(&database, table, target)?;
                // Names are parts of objects.
                salvaged.others += if table == NAMES { 0 } else { count };
                has_versions |= table == MIRRORED;
            }
            None => salvaged.lost.push(table.clone()),
        }
    }
    if let Some(mirrored) = mirrored.filter(|_| !has_versions) {
        let mut batch = Batch::new(target);
        mirrored.into_iter().try_for_each(|(key, value)| batch.put(MIRRORED, key, value))?;
        salvaged.others += batch.finish()?;
        has_versions = true;
    }
    // Without a single token the entries would be judged by new ones, and all be misses anyway.
    if has_versions || !tables.iter().any(|table| table == MIRRORED) {
        salvaged.objects = fill_objects(from, &tables, target, &mut salvaged.lost)?;
    } else {
        salvaged.is_distrusted = true;
    }
    Ok(())
}

/// The file as redb had it last, whatever it has noted of how it was closed.
fn reopened(source: &Source<'_>) -> Result<Database, redb::Error> {
    match guarded(|| source.open(|byte| byte)) {
        Ok(database) => Ok(database),
        Err(_) => source.open(|byte| byte & !NOT_CLOSED),
    }
}

fn tables(database: &Database) -> Result<Vec<String>, redb::Error> {
    Ok(database.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect())
}

/// The file with nothing but `kept` in it, if that verifies and is what was there before redb verified it.
fn verified(source: &Source<'_>, tables: &[String], kept: &str) -> Option<Database> {
    let checked = guarded(|| {
        let mut database = reopened(source)?;
        let transaction = database.begin_write()?;
        for other in tables.iter().filter(|&table| table != kept) {
            transaction.delete_table(definition(other))?;
        }
        transaction.commit()?;
        let before = shape(&database, kept)?;
        database.check_integrity()?;
        // A check that fails may go back to an earlier commit, in which the others are there too.
        let is_alone = self::tables(&database)? == [kept];
        Ok((is_alone && shape(&database, kept)? == before).then_some(database))
    });
    checked.ok().flatten()
}

/// How many records a table has, and a hash of them.
fn shape(database: &Database, table: &str) -> Result<(u64, blake3::Hash), redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(definition(table))?;
    let mut hasher = blake3::Hasher::new();
    let mut count = 0;
    for record in table.iter()? {
        let (key, value) = record?;
        for part in [key.value(), value.value()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        count += 1;
    }
    if count != table.len()? {
        return Err(redb::Error::Corrupted("the table has another number of records than it says".into()));
    }
    Ok((count, hasher.finalize()))
}

/// Copies a table of which every page verifies.
fn copy(from: &Database, table: &str, target: &Database) -> Result<u64, redb::Error> {
    let transaction = from.begin_read()?;
    let source = transaction.open_table(definition(table))?;
    let mut batch = Batch::new(target);
    for record in source.iter()? {
        let (key, value) = record?;
        batch.put(table, key.value().to_vec(), value.value().to_vec())?;
    }
    batch.finish()
}

/// Copies the objects that are good, and their heads.
fn fill_objects(
    from: &Source<'_>,
    tables: &[String],
    target: &Database,
    lost: &mut Vec<String>,
) -> Result<u64, redb::Error> {
    if !tables.iter().any(|table| table == OBJECTS) {
        return Ok(0);
    }
    let whole = verified(from, tables, OBJECTS);
    // Heads are few bytes each: they fit into memory, as they do in a running server.
    let heads = if whole.is_some() { None } else { verified(from, tables, HEADS) };
    let heads: HashMap<Vec<u8>, Vec<u8>> = match &heads {
        Some(heads) => read_from_both_ends(heads, HEADS, &mut |_, _| true)?.into_iter().collect(),
        None => HashMap::new(),
    };
    let is_wanted = |key: &[u8], record: &[u8]| {
        let head = match &whole {
            Some(_) => head_in(key, record),
            None => heads.get(key).map(Vec::as_slice),
        };
        is_good(key, record, head)
    };
    let source = match whole.as_ref() {
        Some(_) => None,
        None => {
            lost.push(OBJECTS.into());
            guarded(|| reopened(from)).ok()
        }
    };
    let Some(source) = whole.as_ref().or(source.as_ref()) else { return Ok(0) };
    let mut batch = Batch::new(target);
    let mut count = 0;
    let mut fault = None;
    read_from_both_ends(source, OBJECTS, &mut |key, record| {
        if fault.is_none() && is_wanted(key, record) {
            let head = head_in(key, record).unwrap_or_default().to_vec();
            let put = batch.put(HEADS, key.to_vec(), head);
            fault = put.and_then(|()| batch.put(OBJECTS, key.to_vec(), record.to_vec())).err();
            count += 1;
        }
        false
    })?;
    fault.map_or(Ok(()), Err)?;
    batch.finish()?;
    Ok(count)
}

/// The head that a record begins with.
fn head_in<'a>(key: &[u8], record: &'a [u8]) -> Option<&'a [u8]> {
    let key = Key(<[u8; 32]>::try_from(key).ok()?);
    record.get(..RecordFrame::read(&key, record)?.head_bytes)
}

/// Reads a table forwards until something in the way cannot be read, then backwards to it. Returns the records for which
/// `visit` says so. A record may be visited twice.
fn read_from_both_ends(
    database: &Database,
    table: &str,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<Records, redb::Error> {
    let mut kept = Vec::new();
    let forwards = guarded(|| {
        let transaction = database.begin_read()?;
        for record in transaction.open_table(definition(table))?.iter()? {
            let (key, value) = record?;
            if visit(key.value(), value.value()) {
                kept.push((key.value().to_vec(), value.value().to_vec()));
            }
        }
        Ok(())
    });
    if forwards.is_ok() {
        return Ok(kept);
    }
    // What stops this pass is what stopped the first.
    let _ = guarded(|| {
        let transaction = database.begin_read()?;
        for record in transaction.open_table(definition(table))?.iter()?.rev() {
            let (key, value) = record?;
            if visit(key.value(), value.value()) {
                kept.push((key.value().to_vec(), value.value().to_vec()));
            }
        }
        Ok(())
    });
    Ok(kept)
}

/// Writes records in commits of some.
struct Batch<'a> {
    target: &'a Database,
    waiting: Vec<(String, Vec<u8>, Vec<u8>)>,
    bytes: usize,
    count: u64,
}

impl<'a> Batch<'a> {
    fn new(target: &'a Database) -> Batch<'a> {
        Batch { target, waiting: Vec::new(), bytes: 0, count: 0 }
    }

    fn put(&mut self, table: &str, key: Vec<u8>, value: Vec<u8>) -> Result<(), redb::Error> {
        self.bytes += key.len() + value.len();
        self.count += 1;
        self.waiting.push((table.to_owned(), key, value));
        if self.waiting.len() >= COMMIT_RECORDS || self.bytes >= COMMIT_BYTES {
            self.commit()
        } else {
            Ok(())
        }
    }

    fn commit(&mut self) -> Result<(), redb::Error> {
        let transaction = self.target.begin_write()?;
        for (table, key, value) in self.waiting.drain(..) {
            transaction.open_table(definition(&table))?.insert(key.as_slice(), value.as_slice())?;
        }
        transaction.commit()?;
        self.bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<u64, redb::Error> {
        self.commit()?;
        Ok(self.count)
    }
}

/// Whether a record verifies and begins with the head that the other table has of it.
pub(super) fn is_good(key: &[u8], record: &[u8], head: Option<&[u8]>) -> bool {
    let Ok(key) = <[u8; 32]>::try_from(key).map(Key) else { return false };
    head.is_some_and(|head| record.starts_with(head)) && RecordFrame::of_record(&key, record).is_some()
}
