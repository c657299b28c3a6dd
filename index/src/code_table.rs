//! Codes in memory that is quick to read at random: in large pages where the system has them, each row on lines of its own.

use std::io;

use memmap2::{Advice, MmapMut};

/// Bytes that the processor fetches at a time; rows begin at multiples.
const LINE_BYTES: usize = 64;

/// Rows of bytes, padded with zeros to whole lines.
#[derive(Debug)]
pub(crate) struct CodeTable {
    memory: MmapMut,
    dim: usize,
    rows: usize,
}

impl CodeTable {
    /// Bytes from one row to the next.
    pub(crate) fn stride(dim: usize) -> usize {
        if dim < LINE_BYTES { dim.next_multiple_of(LINE_BYTES / 4) } else { dim.next_multiple_of(LINE_BYTES) }
    }

    /// `encode` writes each row's codes.
    ///
    /// # Errors
    /// If the system gives no memory.
    pub(crate) fn new<T>(
        dim: usize,
        rows: usize,
        from: impl Iterator<Item = T>,
        encode: impl Fn(T, &mut [u8]),
    ) -> io::Result<CodeTable> {
        let stride = CodeTable::stride(dim);
        let mut memory = MmapMut::map_anon((rows * stride).max(1))?;
        // Where there are no large pages, small ones do.
        let _ = memory.advise(Advice::HugePage);
        for (row, codes) in from.zip(memory.chunks_exact_mut(stride)) {
            encode(row, &mut codes[..dim]);
        }
        Ok(CodeTable { memory, dim, rows })
    }

    /// All rows, a stride apart.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.rows * CodeTable::stride(self.dim)]
    }

    /// The codes of each row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes().chunks_exact(CodeTable::stride(self.dim)).map(|row| &row[..self.dim])
    }
}
