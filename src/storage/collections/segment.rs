//! A segment of rows: vectors that are scanned in place, and beside each the bytes of its document. Written once, whole;
//! the byte table is in `docs/internals/store-format.md` and changes together with this file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::salt::Salt;
use crate::error::{Error, Kind, Result};
use crate::storage::files::FrozenFile;
use crate::storage::files::ReadMode;
use crate::storage::files::{Files, StoredFile};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"LKWSROWS";
/// The version of segments that is written.
const VERSION: u32 = 1;
/// Length of the header; the vectors begin after it.
pub const HEADER_BYTES: usize = 4096;
/// Place of a document (8), its length (4), CRC-32C of the row (4).
pub(super) const ENTRY_BYTES: usize = 16;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its number; equal to the number in the file's name.
    pub number: u64,
    /// The salt of its store.
    pub salt: Salt,
    /// Length of its vectors.
    pub dim: u32,
    /// Its rows.
    pub rows: u32,
    /// Bytes of all its documents together.
    pub document_bytes: u64,
}

impl Header {
    /// The header's bytes, without the zeros between fields and checksum.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((HEADER_BYTES as u32).to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.salt);
        bytes.extend(self.dim.to_le_bytes());
        bytes.extend(self.rows.to_le_bytes());
        bytes.extend(self.document_bytes.to_le_bytes());
        bytes.resize(HEADER_BYTES - 4, 0);
        push_trailer(&mut bytes);
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// `Format` for a version that is newer than this code, `Corrupt` for everything else.
    pub fn decode(bytes: &[u8]) -> Result<Header> {
        let corrupt = || Error::new(Kind::Corrupt, "cannot read the header of a segment of rows");
        let header =
            bytes.get(..HEADER_BYTES).filter(|header| has_valid_trailer(header)).ok_or_else(corrupt)?;
        if array_at(header, 0) != Some(MAGIC) {
            return Err(corrupt());
        }
        match u32_at(header, 8) {
            Some(VERSION) => Header::try_decode(header).ok_or_else(corrupt),
            Some(newer) if newer > VERSION => {
                Err(Error::new(Kind::Format, "cannot read the header of a segment of rows")
                    .with("version", newer))
            }
            _ => Err(corrupt()),
        }
    }

    fn try_decode(header: &[u8]) -> Option<Header> {
        let read = Header {
            number: u64_at(header, 16)?,
            salt: array_at(header, 24)?,
            dim: u32_at(header, 40)?,
            rows: u32_at(header, 44)?,
            document_bytes: u64_at(header, 48)?,
        };
        (read.dim > 0 && read.rows > 0 && read.file_bytes().is_some()).then_some(read)
    }

    fn vector_bytes(&self) -> Option<u64> {
        u64::from(self.rows).checked_mul(u64::from(self.dim))?.checked_mul(4)
    }

    pub(super) fn table_at(&self) -> Option<u64> {
        self.vector_bytes()?.checked_add(HEADER_BYTES as u64)
    }

    pub(super) fn documents_at(&self) -> Option<u64> {
        // The table ends with its own checksum.
        self.table_at()?.checked_add(u64::from(self.rows) * ENTRY_BYTES as u64 + 4)
    }

    fn file_bytes(&self) -> Option<u64> {
        self.documents_at()?.checked_add(self.document_bytes)
    }
}

/// A row on its way into a segment.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The vector.
    pub vector: &'a [f32],
    /// The document, as the search room encodes it.
    pub document: &'a [u8],
}

/// A segment that is open. Its rows never change.
#[derive(Debug)]
pub struct RowSegment {
    header: Header,
    content: Content,
    places: Vec<Place>,
    /// Rows whose checksum does not hold, ascending. Nothing of them may be used.
    bad_rows: Vec<u32>,
}

/// Where a document lies among the documents: start, and length.
type Place = (u64, u32);

#[derive(Debug)]
enum Content {
    Mapped { file: FrozenFile, documents_at: usize },
    Read { vectors: Vec<f32>, documents: Vec<u8> },
}

impl RowSegment {
    /// Writes and flushes a segment that does not belong to the store yet.
    ///
    /// # Errors
    /// `Io`, `DiskFull`; then no file is left behind unless removing it failed too.
    pub(super) fn write<'a>(
        files: &dyn Files,
        path: &Path,
        read: ReadMode,
        (number, salt, dim): (u64, Salt, u32),
        rows: impl ExactSizeIterator<Item = Row<'a>> + Clone,
    ) -> Result<RowSegment> {
        let header = Header {
            number,
            salt,
            dim,
            rows: rows.len() as u32,
            document_bytes: rows.clone().map(|row| row.document.len() as u64).sum(),
        };
        let written = write(files, path, &header, rows);
        if let Err(error) = &written {
            tracing::warn!(%error, path = %path.display(), "a segment of rows could not be written");
            // The first error is the one that matters; a name that stays is removed at the next start.
            let _ = files.remove(path);
        }
        let file = written.map_err(|error| Error::io("cannot write a segment of rows", error))?;
        RowSegment::read(&*file, header, read).map_err(|error| error.with("path", path.display()))
    }

    /// Opens a segment and verifies every row of it.
    ///
    /// Cost: reads the file once.
    ///
    /// # Errors
    /// `Io`; `Corrupt` if the header or the table of rows is damaged, or if it is another store's; `Format`.
    pub(super) fn open(
        files: &dyn Files,
        path: &Path,
        read: ReadMode,
        number: u64,
        salt: Salt,
    ) -> Result<RowSegment> {
        let at = |error: Error| error.with("path", path.display());
        let io = |error| Error::io("cannot open a segment of rows", error);
        let file = files.open(path).map_err(io).map_err(at)?;
        let mut header = vec![0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(io).map_err(at)?;
        let header = Header::decode(&header).map_err(at)?;
        if (header.number, header.salt) != (number, salt) {
            return Err(at(Error::new(Kind::Corrupt, "the segment of rows belongs to another store")));
        }
        RowSegment::read(&*file, header, read).map_err(at)
    }

    fn read(file: &dyn StoredFile, header: Header, read: ReadMode) -> Result<RowSegment> {
        let io = |error| Error::io("cannot read a segment of rows", error);
        let corrupt = || Error::new(Kind::Corrupt, "the table of a segment of rows is damaged");
        let length = header.file_bytes().filter(|&length| length <= isize::MAX as u64).ok_or_else(corrupt)?;
        if file.bytes().map_err(io)? < length {
            return Err(Error::new(Kind::Corrupt, "the segment of rows was cut short"));
        }
        let mapped = match read {
            ReadMode::Mmap => file.map_frozen(length).map_err(io)?,
            ReadMode::Pread => None,
        };
        let copied = match &mapped {
            Some(_) => Vec::new(),
            None => {
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, 0).map_err(io)?;
                bytes
            }
        };
        let bytes = mapped.as_ref().map_or(&copied[..], FrozenFile::bytes);
        let (places, bad_rows) = verify(&header, bytes).ok_or_else(corrupt)?;
        let documents_at = header.documents_at().ok_or_else(corrupt)? as usize;
        let content = match mapped {
            Some(file) => Content::Mapped { file, documents_at },
            None => {
                let vectors = &copied[HEADER_BYTES..][..header.vector_bytes().ok_or_else(corrupt)? as usize];
                let (numbers, _) = vectors.as_chunks::<4>();
                let vectors = numbers.iter().map(|&number| f32::from_le_bytes(number)).collect();
                Content::Read { vectors, documents: copied[documents_at..].to_vec() }
            }
        };
        Ok(RowSegment { header, content, places, bad_rows })
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// How many rows it has, bad ones included.
    pub fn rows(&self) -> usize {
        self.header.rows as usize
    }

    /// Rows whose checksum did not hold when the segment was opened, ascending.
    pub fn bad_rows(&self) -> &[u32] {
        &self.bad_rows
    }

    /// Bytes of its file.
    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes().unwrap_or(0)
    }

    /// All vectors, one after the other.
    pub fn vectors(&self) -> &[f32] {
        match &self.content {
            Content::Mapped { file, .. } => {
                let count = self.rows() * self.header.dim as usize;
                file.floats(HEADER_BYTES, count).expect("checked when it was opened: this is a bug")
            }
            Content::Read { vectors, .. } => vectors,
        }
    }

    /// The document of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn document(&self, row: usize) -> &[u8] {
        let (start, length) = self.places[row];
        let documents = match &self.content {
            Content::Mapped { file, documents_at } => &file.bytes()[*documents_at..],
            Content::Read { documents, .. } => documents,
        };
        &documents[start as usize..][..length as usize]
    }
}

/// Where documents lie, and which rows are bad; none if the table cannot be believed.
fn verify(header: &Header, bytes: &[u8]) -> Option<(Vec<Place>, Vec<u32>)> {
    let (table_at, documents_at) = (header.table_at()? as usize, header.documents_at()? as usize);
    let table = bytes.get(table_at..documents_at)?;
    if !has_valid_trailer(table) {
        return None;
    }
    let vectors = bytes.get(HEADER_BYTES..table_at)?;
    let documents = bytes.get(documents_at..)?;
    let mut places = Vec::with_capacity(header.rows as usize);
    let mut bad_rows = Vec::new();
    let entries = table.chunks_exact(ENTRY_BYTES).zip(vectors.chunks_exact(header.dim as usize * 4));
    for (row, (entry, vector)) in entries.enumerate() {
        let (start, length) = (u64_at(entry, 0)?, u32_at(entry, 8)?);
        let end = start.checked_add(u64::from(length)).filter(|&end| end <= header.document_bytes)?;
        let document = documents.get(start as usize..end as usize)?;
        if checksum(header, row as u32, vector, document) != u32_at(entry, 12)? {
            bad_rows.push(row as u32);
        }
        places.push((start, length));
    }
    Some((places, bad_rows))
}

fn write<'a>(
    files: &dyn Files,
    path: &Path,
    header: &Header,
    rows: impl Iterator<Item = Row<'a>> + Clone,
) -> io::Result<Arc<dyn StoredFile>> {
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the segment would be too large");
    let file = files.create(path, header.file_bytes().ok_or_else(too_large)?)?;
    file.write_all_at(&header.encode(), 0)?;
    let mut table = Vec::with_capacity(header.rows as usize * ENTRY_BYTES + 4);
    let mut vectors = Appender::new(&*file, HEADER_BYTES as u64);
    let mut documents = Appender::new(&*file, header.documents_at().ok_or_else(too_large)?);
    let (mut vector, mut start) = (Vec::new(), 0_u64);
    for (row, Row { vector: numbers, document }) in rows.enumerate() {
        vector.clear();
        vector.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        table.extend(start.to_le_bytes());
        table.extend((document.len() as u32).to_le_bytes());
        table.extend(checksum(header, row as u32, &vector, document).to_le_bytes());
        vectors.push(&vector)?;
        documents.push(document)?;
        start += document.len() as u64;
    }
    vectors.flush()?;
    documents.flush()?;
    push_trailer(&mut table);
    file.write_all_at(&table, header.table_at().ok_or_else(too_large)?)?;
    file.sync_data()?;
    Ok(file)
}

/// Gathers small pieces into large writes.
struct Appender<'a> {
    file: &'a dyn StoredFile,
    at: u64,
    pending: Vec<u8>,
}

impl<'a> Appender<'a> {
    const BYTES: usize = 1 << 20;

    fn new(file: &'a dyn StoredFile, at: u64) -> Appender<'a> {
        Appender { file, at, pending: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() < Appender::BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all_at(&self.pending, self.at)?;
            self.at += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }
}

pub(super) fn checksum(header: &Header, row: u32, vector: &[u8], document: &[u8]) -> u32 {
    let mut place = [0; 28];
    place[..16].copy_from_slice(&header.salt);
    place[16..24].copy_from_slice(&header.number.to_le_bytes());
    place[24..].copy_from_slice(&row.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&place), vector), document)
}
