//! Opening: from the files that are there to a table and open segments, whatever happened to the files.
//!
//! A sealed segment with a good index file is not read at all. Every other segment is scanned, and a slot counts only
//! if checksum, salt, number and place hold. Damage is counted and left where it is; only index files and the
//! manifest, which are derived, are rewritten.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::index_file::{self, IndexEntry, index_number};
use super::key_table::{Batch, Location, Table};
use super::manifest::{MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest};
use super::options::Options;
use super::segment::{segment_name, segment_number};
use super::segment_file::{OpenSegment, mark_number, publish_manifest};
use crate::domain::UnixSeconds;
use crate::error::{Error, Kind, Result};
use crate::storage::files::{Files, Listed, read_all};

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments in use.
    pub segments: u64,
    /// Entries that can be found.
    pub entries: u64,
    /// Slots that hold something that does not verify.
    pub bad_slots: u64,
    /// Index files that were missing or bad, and were rewritten.
    pub rebuilt_indexes: u64,
    /// Whether the manifest was missing or bad, or did not agree with the segments, and was rewritten.
    pub is_manifest_rebuilt: bool,
    /// Segments that the manifest names and that are not there.
    pub missing_segments: Vec<u32>,
    /// Files that were left alone, with the reason.
    pub ignored_files: Vec<(String, String)>,
}

/// A segment that takes more slots.
#[derive(Debug)]
pub(crate) struct Unsealed {
    pub segment: Arc<OpenSegment>,
    pub entries: Vec<IndexEntry>,
    pub next_slot: u32,
}

/// Everything that opening brings.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub table: Table,
    pub segments: BTreeMap<u32, Arc<OpenSegment>>,
    /// By payload size.
    pub unsealed: BTreeMap<u32, Unsealed>,
    pub next_number: u64,
    pub report: Recovery,
}

/// Reads the store in `dir`.
///
/// Errors: `Io` if the directory cannot be listed, `Format` if something in it was written by a newer version.
pub(crate) fn recover(
    files: &dyn Files,
    dir: &Path,
    options: &Options,
    now: UnixSeconds,
) -> Result<Recovered> {
    let listed = files
        .list(dir)
        .map_err(|error| Error::io("cannot list segments", error).with("path", dir.display()))?;
    let mut report = Recovery::default();
    let manifest = read_manifest(files, dir, &listed, &mut report)?;
    let mut found = Vec::new();
    for number in segment_numbers(&listed, &mut report) {
        match open_one(files, dir, number, manifest.as_ref(), options) {
            Ok(segment) => found.push(Arc::new(segment)),
            Err(error) if error.kind() == Kind::Format => return Err(error),
            Err(error) => report.ignored_files.push((segment_name(number), error.to_string())),
        }
    }
    let (batch, segments, unsealed) = (Batch::new(), BTreeMap::new(), BTreeMap::new());
    let mut loading = Loading { files, manifest, batch, segments, unsealed, report };
    for segment in found {
        match loading.load(&segment) {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Format => return Err(error),
            Err(error) => {
                loading.report.ignored_files.push((segment_name(segment.header.number), error.to_string()));
            }
        }
    }
    loading.seal_all_but_the_newest(now);
    Ok(loading.finish(dir, now))
}

/// The store while it is being put together.
struct Loading<'a> {
    files: &'a dyn Files,
    manifest: Option<Manifest>,
    batch: Batch,
    segments: BTreeMap<u32, Arc<OpenSegment>>,
    unsealed: BTreeMap<u32, Unsealed>,
    report: Recovery,
}

impl Loading<'_> {
    /// Brings in one segment's entries, from its index file or by a scan. Segments come in the order of their numbers.
    fn load(&mut self, segment: &Arc<OpenSegment>) -> Result<()> {
        let number = segment.header.number;
        let entries = match read_index(self.files, segment) {
            Some(entries) => {
                segment.seal(segment.header.created);
                entries
            }
            None => self.scan(segment)?,
        };
        segment.note_entries(&entries);
        for entry in &entries {
            self.batch.push(Location {
                prefix: entry.prefix(),
                segment: number,
                slot: entry.slot,
                expires: entry.expires,
                last_used: UnixSeconds(0),
            });
        }
        self.segments.insert(number, segment.clone());
        Ok(())
    }

    /// Verifies each slot of a segment without an index file, and decides whether it takes more.
    fn scan(&mut self, segment: &Arc<OpenSegment>) -> Result<Vec<IndexEntry>> {
        let flushed_slots = match segment.flushed_slots(self.files) {
            Err(error) if error.kind() == Kind::Format => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "which slots of a segment were flushed is not known");
                0
            }
            Ok(flushed) => flushed,
        };
        let scanned = segment.scan(flushed_slots)?;
        self.report.bad_slots += scanned.bad_slots;
        let header = &segment.header;
        let listing = self.manifest.as_ref().and_then(|manifest| manifest.find(header.number));
        let is_whole = segment.slots_present == header.slot_count;
        let is_full = scanned.used_slots == header.slot_count;
        // A crash has cut off slots in between. The mark of flushed slots must never cover these.
        let has_gaps = scanned.entries.len() < scanned.used_slots as usize;
        if !is_whole || is_full || has_gaps || listing.is_some_and(|listing| listing.is_sealed) {
            self.rebuild_index(segment, &scanned.entries);
        } else {
            let next = Unsealed {
                segment: segment.clone(),
                entries: scanned.entries.clone(),
                next_slot: scanned.used_slots,
            };
            if let Some(earlier) = self.unsealed.insert(header.payload_bytes, next) {
                self.rebuild_index(&earlier.segment, &earlier.entries);
            }
        }
        Ok(scanned.entries)
    }

    /// Seals a segment and writes its index file. What its slots hold must be durable before the index says so.
    fn rebuild_index(&mut self, segment: &OpenSegment, entries: &[IndexEntry]) {
        segment.seal(segment.header.created);
        let flushed = segment.file.sync_data().map_err(|error| Error::io("cannot flush segment", error));
        match flushed.and_then(|()| segment.write_index(self.files, entries)) {
            Ok(()) => self.report.rebuilt_indexes += 1,
            Err(error) => {
                tracing::warn!(%error, "the index file was not rebuilt: the next start scans the segment again");
            }
        }
    }

    /// Of each payload size only the newest segment takes more slots, since numbers must grow with time. Notes the
    /// start as the moment of sealing, so that carrying over counts only what was used since.
    fn seal_all_but_the_newest(&mut self, now: UnixSeconds) {
        let mut newest = BTreeMap::new();
        for segment in self.segments.values() {
            newest.insert(segment.header.payload_bytes, segment.header.number);
        }
        for (payload_bytes, last) in std::mem::take(&mut self.unsealed) {
            if newest.get(&payload_bytes) == Some(&last.segment.header.number) {
                self.unsealed.insert(payload_bytes, last);
            } else {
                self.rebuild_index(&last.segment, &last.entries);
            }
        }
        for segment in self.segments.values().filter(|segment| segment.is_sealed()) {
            segment.seal(now);
        }
    }

    /// Fills the table, and sets the manifest right.
    fn finish(self, dir: &Path, now: UnixSeconds) -> Recovered {
        let Loading { files, manifest, batch, segments, unsealed, mut report } = self;
        let table = Table::new();
        // Only here: an entry that has expired must not uncover an older one of the same key.
        table.fill(batch, |location| location.expires > now);
        report.segments = segments.len() as u64;
        report.entries = table.entries();
        let manifest_is_missing = manifest.is_none();
        let manifest = manifest.unwrap_or_default();
        let is_gone = |number: &u32| !segments.contains_key(number);
        report.missing_segments =
            manifest.segments.iter().map(|listing| listing.number).filter(is_gone).collect();
        let found_next = segments.last_key_value().map_or(1, |(&number, _)| u64::from(number) + 1);
        let next_number = manifest.next_number.max(found_next);
        let is_incomplete = segments.keys().any(|&number| manifest.find(number).is_none());
        let is_new = manifest_is_missing && segments.is_empty();
        if is_incomplete || !report.missing_segments.is_empty() || (manifest_is_missing && !is_new) {
            report.is_manifest_rebuilt = true;
            if let Err(error) = publish_manifest(files, dir, next_number, segments.values()) {
                // The segments describe themselves, and the next one that is created publishes it again.
                tracing::warn!(%error, "the manifest was not rebuilt");
            }
        }
        Recovered { table, segments, unsealed, next_number, report }
    }
}

fn read_manifest(
    files: &dyn Files,
    dir: &Path,
    listed: &[Listed],
    report: &mut Recovery,
) -> Result<Option<Manifest>> {
    if !listed.iter().any(|file| file.name == MANIFEST_NAME) {
        return Ok(None);
    }
    let manifest = read_all(files, &dir.join(MANIFEST_NAME), MANIFEST_BYTES_MAX)
        .map_err(|error| Error::io("cannot read manifest", error))
        .and_then(|bytes| Manifest::decode(&bytes));
    match manifest {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if error.kind() == Kind::Format => Err(error.with("path", dir.display())),
        Err(error) => {
            report.ignored_files.push((MANIFEST_NAME.into(), error.to_string()));
            Ok(None)
        }
    }
}

/// The numbers of all segments, ascending; what is not ours is reported.
fn segment_numbers(listed: &[Listed], report: &mut Recovery) -> Vec<u32> {
    let mut numbers = Vec::new();
    for Listed { name, .. } in listed {
        if let Some(number) = segment_number(name) {
            numbers.push(number);
        } else if name != MANIFEST_NAME
            && !name.ends_with(".tmp")
            && index_number(name).is_none()
            && mark_number(name).is_none()
        {
            report.ignored_files.push((name.clone(), "not a file of this store".into()));
        }
    }
    numbers.sort_unstable();
    numbers
}

fn open_one(
    files: &dyn Files,
    dir: &Path,
    number: u32,
    manifest: Option<&Manifest>,
    options: &Options,
) -> Result<OpenSegment> {
    let segment = OpenSegment::open(files, dir.join(segment_name(number)), options.read)?;
    let mistaken = |what: &str| Err(Error::new(Kind::Corrupt, what).with("path", segment.path.display()));
    if segment.header.number != number {
        return mistaken("cannot use a segment under another segment's name");
    }
    match manifest.and_then(|manifest| manifest.find(number)) {
        Some(listing) if listing.salt != segment.header.salt => {
            mistaken("cannot use a segment that is not the one in the manifest")
        }
        Some(_) | None => Ok(segment),
    }
}

/// The entries of a good index file. One that names slots which the segment's file is too short for is not good.
fn read_index(files: &dyn Files, segment: &OpenSegment) -> Option<Vec<IndexEntry>> {
    let bytes = read_all(files, &segment.index_path(), index_file::bytes_max(&segment.header)).ok()?;
    let entries = index_file::decode(&bytes, &segment.header).ok()?;
    let is_inside = entries.last().is_none_or(|last| last.slot < segment.slots_present);
    segment.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    is_inside.then_some(entries)
}
