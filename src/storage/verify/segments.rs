//! The segments of vectors: what is damage in them, and how it is taken out.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use fs_err as fs;

use super::report::{Report, State};
use crate::error::{Error, Kind, Result};
use crate::storage::directory::vectors_in;
use crate::storage::files::{Files, OsFiles, ReadMode, read_all};
use crate::storage::vectors::index_file::{self, IndexEntry, index_number};
use crate::storage::vectors::manifest::{MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest};
use crate::storage::vectors::segment::{HEADER_BYTES, SLOT_HEADER_BYTES, Slot, segment_name, segment_number};
use crate::storage::vectors::segment_file::{OpenSegment, Scanned, mark_number};

/// What devices write whole: a write that a crash has cut off is whole or missing in each sector.
const SECTOR_BYTES: usize = 512;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
const CREATION_CUT_OFF: &str = "a crash has cut off its creation; it holds nothing";

pub(super) fn check(root: &Path, report: &mut Report) -> Result<()> {
    let dir = vectors_in(root);
    if !dir.is_dir() {
        return Ok(());
    }
    let folder = Path::new("vectors");
    let listed = OsFiles.list(&dir).map_err(|error| Error::io("cannot list segments", error))?;
    let manifest = check_manifest(&dir, &folder.join(MANIFEST_NAME), report)?;
    let mut numbers = Vec::new();
    for file in &listed {
        let name = folder.join(&file.name);
        if let Some(number) = segment_number(&file.name) {
            numbers.push(number);
            check_segment(&dir, folder, number, manifest.as_ref(), report)?;
        } else if file.name.ends_with(".tmp") {
            report.add(name, State::Note, "left by a crash; the next start overwrites it");
        } else if file.name != MANIFEST_NAME && beside_segment(&file.name).is_none() {
            report.add(name, State::Note, "not a file of this store; left alone");
        }
    }
    let orphans =
        listed.iter().filter(|file| beside_segment(&file.name).is_some_and(|n| !numbers.contains(&n)));
    for file in orphans {
        report.add(folder.join(&file.name), State::Note, "of a segment that has gone");
    }
    for listing in manifest.iter().flat_map(|manifest| &manifest.segments) {
        let index = index_file::index_name(listing.number);
        if !numbers.contains(&listing.number) {
            let what = format!("names segment {}, which is missing", listing.number);
            report.add(folder.join(MANIFEST_NAME), State::Damaged, what);
        } else if listing.is_sealed && !listed.iter().any(|file| file.name == index) {
            report.add(folder.join(index), State::Note, "missing; the next start writes it");
        }
    }
    if !dir.join(MANIFEST_NAME).exists() {
        // A crash may come between the first segment and the manifest, and before anything is stored in it.
        let is_used = report.findings.iter().any(|finding| finding.entries > 0);
        let state = if is_used { State::Damaged } else { State::Note };
        report.add(folder.join(MANIFEST_NAME), state, "missing; a repair or the next start makes it");
    }
    Ok(())
}

/// The number in the name of a file that belongs to a segment.
fn beside_segment(name: &str) -> Option<u32> {
    index_number(name).or_else(|| mark_number(name))
}

fn check_manifest(dir: &Path, name: &Path, report: &mut Report) -> Result<Option<Manifest>> {
    let path = dir.join(MANIFEST_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let manifest = read_all(&OsFiles, &path, MANIFEST_BYTES_MAX)
        .map_err(|error| Error::io("cannot read manifest", error))
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
    let file = folder.join(segment_name(number));
    let Some(segment) = open_segment(dir, &file, number, manifest, report)? else {
        return Ok(());
    };
    let flushed_slots = check_mark(folder, &segment, report)?;
    let scanned = match segment.scan(flushed_slots.min(segment.slots_present)) {
        Ok(scanned) => scanned,
        Err(error) => {
            report.add(file, State::Damaged, error.to_string());
            return Ok(());
        }
    };
    // The file has its length before anything is stored in it.
    if segment.slots_present < segment.header.slot_count && flushed_slots == 0 && scanned.used_slots == 0 {
        report.add(file, State::Note, CREATION_CUT_OFF);
    } else {
        report_slots(&file, &segment, &scanned, flushed_slots, report)?;
    }
    check_index(folder, &segment, &scanned.entries, report);
    Ok(())
}

/// Opens the segment of this number. `None` if it cannot be checked further; then the report says why.
fn open_segment(
    dir: &Path,
    file: &Path,
    number: u32,
    manifest: Option<&Manifest>,
    report: &mut Report,
) -> Result<Option<OpenSegment>> {
    let path = dir.join(segment_name(number));
    let listing = manifest.and_then(|manifest| manifest.find(number));
    let (state, what) = match OpenSegment::open(&OsFiles, path.clone(), ReadMode::Pread) {
        Err(error) if error.kind() == Kind::Format => return Err(error),
        Err(_) if manifest.is_some() && listing.is_none() && is_without_slots(&path)? => {
            (State::Note, CREATION_CUT_OFF.to_owned())
        }
        Err(error) => (State::Damaged, error.to_string()),
        Ok(segment) if segment.header.number != number => {
            (State::Damaged, format!("is segment {} under another name", segment.header.number))
        }
        Ok(segment) if listing.is_some_and(|listing| listing.salt != segment.header.salt) => {
            (State::Damaged, "is not the segment that the manifest names".to_owned())
        }
        Ok(segment) => return Ok(Some(segment)),
    };
    report.add(file, state, what);
    Ok(None)
}

/// Reports the slots of a segment: those in use, those that a crash has cut off, the damaged and the missing ones.
fn report_slots(
    file: &Path,
    segment: &OpenSegment,
    scanned: &Scanned,
    flushed_slots: u32,
    report: &mut Report,
) -> Result<()> {
    let (present, count) = (segment.slots_present, segment.header.slot_count);
    let bad = bad_slots(segment, scanned)?;
    let mut what = format!("{} entries", scanned.entries.len());
    if !bad.torn.is_empty() {
        what += &format!(", {} slots that a crash has cut off and that are not used", bad.torn.len());
    }
    if !bad.damaged.is_empty() {
        what += &format!(", {} slots that do not verify any more", bad.damaged.len());
    }
    if present < count {
        what += &format!(", the file ends after {present} of {count} slots");
    }
    let slots: Vec<u32> = bad.damaged.into_iter().chain(present..count).collect();
    let state = match (slots.is_empty(), scanned.bad_slots) {
        (false, _) => State::Damaged,
        (true, 0) => State::Whole,
        (true, _) => State::Note,
    };
    report.add(file, state, what);
    if let Some(finding) = report.findings.last_mut() {
        finding.slots = slots;
        finding.flushed_slots = flushed_slots;
        finding.entries = scanned.entries.len();
    }
    Ok(())
}

/// Whether a file has nothing but zeros in the place of slots: it never held an entry.
fn is_without_slots(path: &Path) -> Result<bool> {
    let failed = |error| Error::io("cannot read a segment", error).with("path", path.display());
    let mut file = fs::File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(HEADER_BYTES as u64)).map_err(failed)?;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match file.read(&mut bytes).map_err(failed)? {
            0 => return Ok(true),
            count if bytes[..count].iter().any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// How many slots were flushed, as the mark beside the segment says; zero if it does not.
fn check_mark(folder: &Path, segment: &OpenSegment, report: &mut Report) -> Result<u32> {
    let mark = folder.join(segment.mark_path().file_name().unwrap_or_default());
    if !segment.mark_path().exists() {
        report.add(
            mark,
            State::Note,
            "missing: damage in the segment may look like writes that were cut off",
        );
        return Ok(0);
    }
    match segment.flushed_slots(&OsFiles) {
        Err(error) if error.kind() == Kind::Format => Err(error),
        Err(error) => {
            report.add(mark, State::Damaged, error.to_string());
            Ok(0)
        }
        Ok(flushed) => Ok(flushed),
    }
}

/// Slots that do not verify.
#[derive(Debug, Default)]
struct BadSlots {
    /// Written in part, before a loss of power: no client was promised them.
    torn: Vec<u32>,
    /// Written whole, and changed since.
    damaged: Vec<u32>,
}

/// Sorts the slots that do not verify. One that was flushed was whole once. Files are preallocated with zeros, so another
/// that a crash has cut off has a sector of zeros; one without was whole too. A vector that is mostly zeros may be taken for
/// a torn one: then its one wrong bit, if it is one, still tells.
fn bad_slots(segment: &OpenSegment, scanned: &Scanned) -> Result<BadSlots> {
    let mut bad = BadSlots::default();
    let mut bytes = Vec::new();
    for slot in 0..scanned.used_slots {
        if scanned.entries.binary_search_by_key(&slot, |entry| entry.slot).is_ok() {
            continue;
        }
        segment.read_slot(slot, &mut bytes)?;
        match segment.header.decode_slot(slot, &bytes) {
            Slot::Good(_) => {}
            Slot::Empty | Slot::Bad if slot < scanned.flushed_slots => bad.damaged.push(slot),
            Slot::Empty => {}
            Slot::Bad
                if is_torn(segment.header.slot_offset(slot), segment.header.payload_bytes, &bytes)
                    && !segment.header.is_one_bit_off(slot, &bytes) =>
            {
                bad.torn.push(slot);
            }
            Slot::Bad => bad.damaged.push(slot),
        }
    }
    Ok(bad)
}

/// Whether a sector's part of the slot is zero. What pads the slot is zero in whole ones too, and is not looked at.
fn is_torn(offset: u64, payload_bytes: u32, slot: &[u8]) -> bool {
    let used = slot.get(..SLOT_HEADER_BYTES + payload_bytes as usize).unwrap_or(slot);
    let first = SECTOR_BYTES - usize::try_from(offset % SECTOR_BYTES as u64).unwrap_or_default();
    let (head, rest) = used.split_at(first.min(used.len()));
    std::iter::once(head).chain(rest.chunks(SECTOR_BYTES)).any(|part| part.iter().all(|&byte| byte == 0))
}

/// Copies the segment at `path` to `copy`, then clears `slots` of it, and makes the file as long as its header says. Of the
/// first `flushed_slots` none may be empty.
pub(super) fn clear_slots(path: &Path, copy: &Path, slots: &[u32], flushed_slots: u32) -> Result<()> {
    let failed = |error| Error::io("cannot clear damaged slots", error).with("path", path.display());
    fs::copy(path, copy).map_err(failed)?;
    let segment = OpenSegment::open(&OsFiles, path.to_path_buf(), ReadMode::Pread)?;
    let (header, file) = (&segment.header, &segment.file);
    let zeros = vec![0; usize::try_from(header.slot_bytes()).unwrap_or_default()];
    for &slot in slots {
        let cleared = if slot < flushed_slots { header.encode_cleared(slot) } else { zeros.clone() };
        file.write_all_at(&cleared, header.slot_offset(slot)).map_err(failed)?;
    }
    file.sync_data().map_err(failed)
}

/// An index file that names a slot which does not verify tells that the slot was good once: that is damage, and
/// rewriting the index file repairs it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_with_a_sector_of_zeros_is_torn_whatever_pads_it() {
        let whole = [vec![7; SLOT_HEADER_BYTES + 1536], vec![0; 64]].concat();
        assert!(!is_torn(4096, 1536, &whole));
        for (offset, from, to) in
            [(4096, 0, 512), (4096, 1024, 1536), (4096 + 1664, 0, 384), (4096 + 1664, 384, 896)]
        {
            let mut torn = whole.clone();
            torn[from..to].fill(0);
            assert!(is_torn(offset, 1536, &torn), "{offset} {from}");
        }
        let mut gap = whole;
        gap[500..1000].fill(0);
        assert!(!is_torn(4096, 1536, &gap), "no sector is zero");
    }
}
