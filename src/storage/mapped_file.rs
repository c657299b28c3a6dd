//! A read-only mapping that gives out copies, never references.
#![expect(unsafe_code, reason = "copying out of a mapping is the one thing std cannot do safely")]

use std::io;
use std::ptr;

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
