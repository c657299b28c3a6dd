//! Opening a store: from the manifest, the index files, and where those do not hold, from the slots themselves.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::index_file::{self, Row as IndexRow};
use super::manifest::{self, Listed, Manifest};
use super::segment::Segment;
use super::table::{Place, Row, UNUSED};
use super::vectors::Shared;
use crate::error::{Error, Kind, Result};

/// What was found on opening.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments in use.
    pub segments: usize,
    /// Entries that can be found.
    pub entries: usize,
    /// Segments that were read whole because they had no index file that holds.
    pub scanned: usize,
    /// Slots that carry bytes that do not hold: torn by a crash, or rotten.
    pub bad_slots: usize,
    /// Segments that the manifest names and that cannot be opened.
    pub damaged: usize,
    /// Whether the manifest was missing or damaged and was made anew.
    pub manifest_rebuilt: bool,
}

/// Where the writer goes on.
pub(super) struct WriterState {
    pub(super) manifest: Manifest,
    pub(super) actives: Vec<Active>,
}

/// A segment that takes more slots.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    /// The next free slot.
    pub(super) next: u32,
    /// What its index file will hold: one row for each slot before `next`.
    pub(super) rows: Vec<IndexRow>,
}

/// Fills table and segments of `shared`.
pub(super) fn recover(shared: &Shared) -> Result<(WriterState, Recovery)> {
    let mut report = Recovery::default();
    let mut manifest = read_manifest(shared, &mut report)?;
    let mut actives: Vec<Active> = Vec::new();
    let mut kept = Vec::with_capacity(manifest.segments.len());
    for mut listed in manifest.segments {
        let Some(segment) = open(shared, &listed, &mut report)? else {
            // Left where it is and in the manifest, so that repair can look at it.
            kept.push(listed);
            continue;
        };
        let rows = rows(shared, &segment, listed.is_sealed, &mut report)?;
        let number = segment.header.number;
        fill_table(shared, number, &rows);
        shared.segments.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&segment));
        if !listed.is_sealed {
            let next = rows.len() as u32;
            let is_taken =
                actives.iter().any(|a| a.segment.header.payload_bytes == segment.header.payload_bytes);
            if is_taken || next >= segment.header.slots {
                publish_index(shared, &segment, &rows)?;
                listed.is_sealed = true;
            } else {
                actives.push(Active { segment, next, rows });
            }
        }
        kept.push(listed);
        report.segments += 1;
    }
    manifest.segments = kept;
    publish_manifest(shared, &manifest)?;
    remove_leftovers(shared, &manifest)?;
    report.entries = shared.table.len();
    shared.metrics.bad_slots.inc_by(report.bad_slots as u64);
    Ok((WriterState { manifest, actives }, report))
}

/// Writes the index file of a segment that takes no more slots.
pub(super) fn publish_index(shared: &Shared, segment: &Segment, rows: &[IndexRow]) -> Result<()> {
    let path = index_file::path(&shared.dir, segment.header.number);
    shared
        .files
        .publish(&path, &index_file::encode(&segment.header, rows))
        .map_err(|error| Error::io("write an index file", error))
}

/// Replaces the manifest.
pub(super) fn publish_manifest(shared: &Shared, manifest: &Manifest) -> Result<()> {
    shared
        .files
        .publish(&manifest::path(&shared.dir), &manifest.encode())
        .map_err(|error| Error::io("write the manifest", error))
}

fn read_manifest(shared: &Shared, report: &mut Recovery) -> Result<Manifest> {
    let path = manifest::path(&shared.dir);
    let bytes = match shared.files.read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read the manifest", error)),
    };
    match bytes.as_deref().map(Manifest::decode) {
        Some(Ok(manifest)) => return Ok(manifest),
        // A newer version's store must not be taken for damage.
        Some(Err(error)) if error.kind() == Kind::Format => return Err(error.with("path", path.display())),
        Some(Err(error)) => tracing::warn!(%error, "the manifest is made anew from the segments"),
        None => {}
    }
    let numbers = segment_numbers(shared)?;
    // A directory without manifest and segments is a new store, not a damaged one.
    report.manifest_rebuilt = bytes.is_some() || !numbers.is_empty();
    let mut manifest = Manifest { next_number: 1, segments: Vec::new() };
    for number in numbers {
        manifest.next_number = manifest.next_number.max(number.saturating_add(1));
        // Segments carry their own name; one that cannot be opened is not ours to name.
        if let Ok(segment) = Segment::open(&*shared.files, &shared.dir, number, shared.options.read) {
            manifest.segments.push(Listed { number, salt: segment.header.salt, is_sealed: false });
        }
    }
    Ok(manifest)
}

fn open(shared: &Shared, listed: &Listed, report: &mut Recovery) -> Result<Option<Arc<Segment>>> {
    let opened = Segment::open(&*shared.files, &shared.dir, listed.number, shared.options.read);
    let fault = match opened {
        Ok(segment) if segment.header.salt == listed.salt => return Ok(Some(Arc::new(segment))),
        Ok(segment) => Error::new(Kind::Corrupt, "a segment is not the one that the manifest names")
            .with("path", segment.path.display()),
        Err(error) if error.kind() == Kind::Format => return Err(error),
        Err(error) => error,
    };
    report.damaged += 1;
    tracing::warn!(error = %fault, "a segment cannot be used; its entries are misses");
    Ok(None)
}

/// A row for each slot that was written, from the index file or from the slots.
fn rows(shared: &Shared, segment: &Segment, is_sealed: bool, report: &mut Recovery) -> Result<Vec<IndexRow>> {
    if is_sealed {
        let path = index_file::path(&shared.dir, segment.header.number);
        let stored = shared.files.read(&path).ok();
        if let Some(rows) = stored.and_then(|bytes| index_file::decode(&segment.header, &bytes)) {
            return Ok(rows);
        }
    }
    report.scanned += 1;
    let rows = scan(segment, report)?;
    if is_sealed {
        publish_index(shared, segment, &rows)?;
    }
    Ok(rows)
}

/// Reads every slot. What the disk tore is counted and left out; what stands behind it is found all the same, because
/// writes of a crash need not have arrived in order.
fn scan(segment: &Segment, report: &mut Recovery) -> Result<Vec<IndexRow>> {
    let mut rows = Vec::new();
    for slot in 0..segment.header.slots {
        let read = segment
            .read(slot)
            .map_err(|error| Error::io("scan a segment", error).with("path", segment.path.display()))?;
        if let Some((key, entry)) = read {
            // The slots between the last good one and this one hold nothing that can be believed.
            report.bad_slots += slot as usize - rows.len();
            rows.resize(slot as usize, IndexRow::BAD);
            rows.push(IndexRow { prefix: key.prefix(), expires: entry.meta.expires });
        }
    }
    Ok(rows)
}

fn fill_table(shared: &Shared, segment: u32, rows: &[IndexRow]) {
    let now = shared.clock.now();
    for (slot, row) in (0..).zip(rows) {
        if row.expires > now {
            let place = Place { segment, slot };
            shared.table.insert(Row { prefix: row.prefix, place, expires: row.expires, last_used: UNUSED });
        }
    }
}

/// The numbers of all files that are named like segments.
fn segment_numbers(shared: &Shared) -> Result<BTreeSet<u32>> {
    Ok(list(shared)?.iter().filter_map(|path| numbered(path, "seg")).collect())
}

fn list(shared: &Shared) -> Result<Vec<PathBuf>> {
    shared.files.list(&shared.dir).map_err(|error| Error::io("list the store", error))
}

/// The number in a file name of ours, like `00000007.seg`.
fn numbered(path: &std::path::Path, extension: &str) -> Option<u32> {
    let is_ours = path.extension().is_some_and(|own| own == extension);
    let stem = path.file_stem()?.to_str()?;
    if is_ours && stem.len() == 8 { stem.parse().ok() } else { None }
}

/// Removes what a crash left between two steps: files of ours that the manifest does not name. Nothing acknowledged is
/// in them, because a segment is named before it takes its first slot. Other files are left alone.
fn remove_leftovers(shared: &Shared, manifest: &Manifest) -> Result<()> {
    let named: BTreeSet<u32> = manifest.segments.iter().map(|listed| listed.number).collect();
    for path in list(shared)? {
        let number = ["seg", "idx"].iter().find_map(|extension| numbered(&path, extension));
        let is_temporary = path.extension().is_some_and(|extension| extension == "tmp");
        if is_temporary || number.is_some_and(|number| !named.contains(&number)) {
            shared.files.remove(&path).map_err(|error| Error::io("remove a leftover", error))?;
        }
    }
    Ok(())
}
