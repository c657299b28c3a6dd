//! Read-only mappings: one that gives out copies, of files that still grow; one that gives out references, of files that
//! no process writes to any more.
#![expect(unsafe_code, reason = "reading out of a mapping is the one thing std cannot do safely")]

use std::io;
use std::{ptr, slice};

use memmap2::{Advice, MmapOptions, MmapRaw};

/// The bytes of a file that is never truncated while it is mapped.
///
/// The store maps a file only when it has its full length, and neither shortens a file nor writes to a slot that can
/// be read. A device that fails to deliver a page kills the process with SIGBUS: where that is feared, `read = "pread"`
/// turns it into an error.
#[derive(Debug)]
pub struct MappedFile {
    map: MmapRaw,
}

impl MappedFile {
    /// Maps the first `bytes` of `file`, which must be that long.
    #[expect(clippy::disallowed_types, reason = "memmap2 knows the file of std")]
    pub(super) fn new(file: &std::fs::File, bytes: u64) -> io::Result<MappedFile> {
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        if length == 0 || file.metadata()?.len() < bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let map = MmapOptions::new().len(length).map_raw_read_only(file)?;
        // Lookups are random: reading ahead would only push other pages out.
        map.advise(Advice::Random)?;
        Ok(MappedFile { map })
    }

    /// Copies the bytes from `offset` on into `buffer`; false if the mapping does not hold all of them.
    ///
    /// Cost: one copy of the buffer's length, and a page fault for each page that is not in memory.
    #[must_use]
    pub fn copy_to(&self, buffer: &mut [u8], offset: u64) -> bool {
        let Ok(start) = usize::try_from(offset) else { return false };
        let is_inside = start.checked_add(buffer.len()).is_some_and(|end| end <= self.map.len());
        if is_inside {
            // SAFETY: `start..start + buffer.len()` lies inside the mapping, as checked above, and the mapping lives as
            // long as `self`. `buffer` is ours alone, so the two do not overlap. No reference into the mapping is made:
            // should another process write to the file, the copy holds some bytes or others, and the checksum over the
            // copy decides whether they are used. The file is not shortened while mapped: the store never truncates,
            // and the data directory's lock keeps other servers out.
            unsafe {
                ptr::copy_nonoverlapping(self.map.as_ptr().add(start), buffer.as_mut_ptr(), buffer.len())
            };
        }
        is_inside
    }
}

/// The bytes of a file that no process writes to, shortens or extends any more, for as long as any process has it open.
///
/// What [`MappedFile`] says of devices that fail holds here too.
#[derive(Debug)]
pub struct FrozenFile(MmapRaw);

impl FrozenFile {
    /// Maps the first `bytes` of `file`, which must be that long and complete.
    #[expect(clippy::disallowed_types, reason = "memmap2 knows the file of std")]
    pub(super) fn new(file: &std::fs::File, bytes: u64) -> io::Result<FrozenFile> {
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        if length == 0 || file.metadata()?.len() < bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let map = MmapOptions::new().len(length).map_raw_read_only(file)?;
        // Such files are read from front to back.
        map.advise(Advice::WillNeed)?;
        Ok(FrozenFile(map))
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable over its whole length and lives as long as the reference. No process writes to the
        // file while it is mapped: the store publishes such files complete and never opens them for writing again, and
        // the data directory's lock keeps other servers out.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }

    /// `count` little-endian f32 from byte `from` on; none if they do not lie inside, or not at a multiple of four.
    pub fn floats(&self, from: usize, count: usize) -> Option<&[f32]> {
        const { assert!(cfg!(target_endian = "little"), "the files are little-endian, and read in place") };
        let bytes = self.bytes().get(from..from.checked_add(count.checked_mul(4)?)?)?;
        if !from.is_multiple_of(align_of::<f32>()) {
            return None;
        }
        // SAFETY: the bytes lie inside the mapping, as above. A mapping begins at a page, so a multiple of four in it is
        // aligned for f32, and every bit pattern is an f32.
        Some(unsafe { slice::from_raw_parts(bytes.as_ptr().cast(), count) })
    }
}
