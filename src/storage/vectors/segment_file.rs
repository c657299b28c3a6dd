//! A segment whose file is open: slots are read from it, by mapping or by system call, and never changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::index_file::{self, IndexEntry};
use super::segment::{HEADER_BYTES, Header, Slot, number_in, segment_name};
use crate::domain::UnixSeconds;
use crate::error::{Error, Kind, Result};
use crate::storage::files::MappedFile;
use crate::storage::files::ReadMode;
use crate::storage::files::end_mark::{self, Owner};
use crate::storage::files::{Files, StoredFile, publish};

/// What the name of the mark of a segment's last flush ends with.
const MARK: &str = "end";
/// Bytes that a scan reads at once.
const SCAN_BYTES: u64 = 1 << 20;

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub entries: Vec<IndexEntry>,
    /// Slots that hold something else than an entry, or nothing although they were flushed with one.
    pub bad_slots: u64,
    /// One past the last slot that holds anything.
    pub used_slots: u32,
    /// Slots that are known to have been flushed: these are not empty.
    pub flushed_slots: u32,
}

/// The open file of a segment. Readers share it, and a dropped segment stays readable for those who hold it.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub header: Header,
    pub path: PathBuf,
    pub file: Arc<dyn StoredFile>,
    map: Option<MappedFile>,
    /// Slots that the file is long enough for.
    pub slots_present: u32,
    /// Length of the segment's file.
    pub file_bytes: u64,
    /// Entries that verified when they were last counted.
    pub good_slots: AtomicU32,
    /// Length of the segment's file and its index file.
    pub bytes: AtomicU64,
    /// When it was sealed, in seconds; zero while it takes slots.
    pub sealed_at: AtomicU32,
    /// The latest expiry among its entries, in seconds.
    pub expires_max: AtomicU32,
}

impl OpenSegment {
    /// Creates the file with its header, durable under its name, but in no manifest yet.
    pub(crate) fn create(
        files: &dyn Files,
        dir: &Path,
        header: Header,
        read: ReadMode,
    ) -> Result<OpenSegment> {
        let path = dir.join(segment_name(header.number));
        let failed = |error| Error::io("cannot create segment", error).with("path", path.display());
        let file = files.create(&path, header.file_bytes()).map_err(failed)?;
        file.write_all_at(&header.encode(), 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        files.sync_dir(dir).map_err(failed)?;
        let bytes = header.file_bytes();
        OpenSegment::with_file(header, path, file, bytes, read)
    }

    /// Opens an existing file. A file that is shorter than its header says is read by system call only, because
    /// touching a mapping past the end of its file kills the process.
    pub(crate) fn open(files: &dyn Files, path: PathBuf, read: ReadMode) -> Result<OpenSegment> {
        let failed = |error| Error::io("cannot open segment", error).with("path", path.display());
        let file = files.open(&path).map_err(failed)?;
        let bytes = file.bytes().map_err(failed)?;
        if bytes < HEADER_BYTES as u64 {
            return Err(Error::new(Kind::Corrupt, "cannot read segment header")
                .with("path", path.display())
                .with("bytes", bytes));
        }
        let mut page = vec![0; HEADER_BYTES];
        file.read_exact_at(&mut page, 0).map_err(failed)?;
        let header = Header::decode(&page).map_err(|error| error.with("path", path.display()))?;
        OpenSegment::with_file(header, path, file, bytes, read)
    }

    fn with_file(
        header: Header,
        path: PathBuf,
        file: Arc<dyn StoredFile>,
        bytes: u64,
        read: ReadMode,
    ) -> Result<OpenSegment> {
        let is_mapped = read == ReadMode::Mmap && bytes >= header.file_bytes();
        let map = if is_mapped {
            file.map(header.file_bytes())
                .map_err(|error| Error::io("cannot map segment", error).with("path", path.display()))?
        } else {
            None
        };
        Ok(OpenSegment {
            slots_present: header.slots_in(bytes),
            file_bytes: bytes,
            good_slots: AtomicU32::new(0),
            bytes: AtomicU64::new(bytes),
            sealed_at: AtomicU32::new(0),
            expires_max: AtomicU32::new(0),
            header,
            path,
            file,
            map,
        })
    }

    /// Copies the bytes of `slot` into `buffer`, which is made a slot long.
    pub(crate) fn read_slot(&self, slot: u32, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.resize(usize::try_from(self.header.slot_bytes()).unwrap_or_default(), 0);
        let offset = self.header.slot_offset(slot);
        if let Some(map) = &self.map
            && map.copy_to(buffer, offset)
        {
            return Ok(());
        }
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            Error::io("cannot read slot", error).with("path", self.path.display()).with("offset", offset)
        })
    }

    /// How many slots were flushed, as the mark beside the segment says; zero if there is none.
    ///
    /// # Errors
    /// As [`end_mark::read`].
    pub(crate) fn flushed_slots(&self, files: &dyn Files) -> Result<u32> {
        let flushed = end_mark::read(files, &self.mark_path(), self.owner())?.unwrap_or_default();
        Ok(u32::try_from(flushed).unwrap_or(u32::MAX).min(self.header.slot_count))
    }

    /// Reads and verifies every slot, of which `flushed_slots` are known to have been flushed. Cost: one pass over the file,
    /// 1 MiB at a time.
    pub(crate) fn scan(&self, flushed_slots: u32) -> Result<Scanned> {
        let mut scanned = Scanned { flushed_slots, ..Scanned::default() };
        let slots_per_read = u32::try_from(SCAN_BYTES / self.header.slot_bytes()).unwrap_or(1).max(1);
        let mut first = 0;
        while first < self.slots_present {
            let count = slots_per_read.min(self.slots_present - first);
            self.scan_part(first, count, &mut scanned)?;
            first += count;
        }
        Ok(scanned)
    }

    /// Reads and verifies `count` slots from `first` on, in one read.
    pub(crate) fn scan_part(&self, first: u32, count: u32, scanned: &mut Scanned) -> Result<()> {
        let slot_bytes = usize::try_from(self.header.slot_bytes()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; slot_bytes.saturating_mul(count as usize)];
        self.file
            .read_exact_at(&mut bytes, self.header.slot_offset(first))
            .map_err(|error| Error::io("cannot scan segment", error).with("path", self.path.display()))?;
        for (slot, bytes) in (first..).zip(bytes.chunks_exact(slot_bytes)) {
            match self.header.decode_slot(slot, bytes) {
                Slot::Empty if slot >= scanned.flushed_slots => continue,
                Slot::Empty | Slot::Bad => scanned.bad_slots += 1,
                Slot::Good(stored) => {
                    scanned.entries.push(IndexEntry::new(&stored.key, stored.expires, slot))
                }
            }
            scanned.used_slots = slot + 1;
        }
        Ok(())
    }

    /// Writes the index file. It is derived and checks itself, so nothing is flushed for it.
    pub(crate) fn write_index(&self, files: &dyn Files, entries: &[IndexEntry]) -> Result<()> {
        let path = self.index_path();
        let bytes = index_file::encode(&self.header, entries);
        let written = crate::storage::files::remove_if_present(files, &path)
            .and_then(|()| files.create(&path, bytes.len() as u64))
            .and_then(|file| file.write_all_at(&bytes, 0));
        written.map_err(|error| Error::io("cannot write index file", error).with("path", path.display()))?;
        self.bytes.store(self.file_bytes.saturating_add(bytes.len() as u64), Ordering::Relaxed);
        Ok(())
    }

    /// Where the mark of its last flush is.
    pub(crate) fn mark_path(&self) -> PathBuf {
        self.path.with_extension(MARK)
    }

    /// The segment's number and salt, as its mark stores them.
    pub(crate) fn owner(&self) -> Owner {
        Owner { number: u64::from(self.header.number), salt: self.header.salt }
    }

    /// Where the index file is.
    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.with_file_name(index_file::index_name(self.header.number))
    }

    /// Whether it takes no more slots.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed_at.load(Ordering::Relaxed) != 0
    }

    /// Notes which entries are known to be good.
    pub(crate) fn note_entries(&self, entries: &[IndexEntry]) {
        let expires_max = entries.iter().map(|entry| entry.expires.0).max().unwrap_or_default();
        self.expires_max.fetch_max(expires_max, Ordering::Relaxed);
        self.good_slots.store(u32::try_from(entries.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Notes that it takes no more slots. A moment that reads as zero still counts as one.
    pub(crate) fn seal(&self, now: UnixSeconds) {
        self.sealed_at.store(now.0.max(1), Ordering::Relaxed);
    }
}

/// The number in the name of a mark, if it is one.
pub(crate) fn mark_number(name: &str) -> Option<u32> {
    number_in(name, &format!(".{MARK}"))
}

/// Publishes the manifest of `segments`.
pub(crate) fn publish_manifest<'a>(
    files: &dyn Files,
    dir: &Path,
    next_number: u64,
    segments: impl Iterator<Item = &'a Arc<OpenSegment>>,
) -> Result<()> {
    let segments = segments
        .map(|segment| super::manifest::Listing {
            number: segment.header.number,
            salt: segment.header.salt,
            payload_bytes: segment.header.payload_bytes,
            is_sealed: segment.is_sealed(),
        })
        .collect();
    let manifest = super::manifest::Manifest { next_number, segments };
    publish(files, dir, super::manifest::MANIFEST_NAME, &manifest.encode())
        .map_err(|error| Error::io("publish manifest", error).with("path", dir.display()))
}
