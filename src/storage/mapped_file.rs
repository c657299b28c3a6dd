//! Read-only mappings of files that never shrink.
#![expect(unsafe_code, reason = "mapping a file is unsafe: another process may change it under us")]

use std::io;

use memmap2::{Advice, Mmap, MmapOptions};

/// A whole file, mapped read-only. It hands out copies, never a reference: bytes of a mapping may change while somebody
/// looks at them, and nobody may hold them across an await.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps `file`.
    ///
    /// # Errors
    /// Those of the operating system.
    #[expect(clippy::disallowed_types, reason = "a mapping is made of the bare handle")]
    pub(super) fn new(file: &std::fs::File) -> io::Result<MappedFile> {
        // SAFETY: memmap2 asks that the file is not changed while it is mapped. The data directory is locked, so no
        // other process of ours writes to it. This process writes with `pwrite` inside the reserved length, never
        // truncates, and only to slots whose place has not been published to any reader; readers copy published slots
        // (`copy`), which no one writes any more. A foreign program that truncates the file ends this process with
        // SIGBUS; `read = "pread"` is there for those who cannot rule it out.
        let map = unsafe { MmapOptions::new().map(file)? };
        // Slots are asked for one by one: reading ahead would only push other pages out.
        map.advise(Advice::Random)?;
        Ok(MappedFile(map))
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end.
    pub(super) fn copy(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|from| self.0.get(from..from.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}
