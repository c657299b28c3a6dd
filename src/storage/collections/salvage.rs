//! The rows of a damaged segment that still verify.

use std::path::Path;

use super::manifest::{Listing, Manifest};
use super::segment::{ENTRY_BYTES, HEADER_BYTES, Header, Row, checksum};
use crate::error::{Error, Result};
use crate::storage::files::{Files, read_all};
use crate::storage::le_bytes::{u32_at, u64_at};

/// Rows of a segment with their documents.
#[derive(Debug, Default)]
pub(super) struct Salvaged(Vec<(Vec<f32>, Vec<u8>)>);

impl Salvaged {
    /// The live rows whose checksums hold. Neither the header nor the checksum of the table is believed or needed: the manifest
    /// says how many rows there are, and each has a checksum of its own.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn read(
        files: &dyn Files,
        path: &Path,
        manifest: &Manifest,
        listing: &Listing,
    ) -> Result<Salvaged> {
        let bytes = match read_all(files, path, isize::MAX as u64) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Salvaged::default()),
            read => read.map_err(|error| Error::io("cannot read a damaged segment of rows", error))?,
        };
        let header = Header {
            number: listing.number,
            salt: manifest.salt,
            dim: manifest.dim,
            rows: listing.rows,
            document_bytes: 0,
        };
        let is_dead = |row: usize| listing.dead.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1);
        let live = (0..listing.rows as usize).filter(|&row| !is_dead(row));
        Ok(Salvaged(live.filter_map(|row| row_at(&header, &bytes, row)).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> + Clone {
        self.0.iter().map(|(vector, document)| Row { vector, document })
    }
}

fn row_at(header: &Header, bytes: &[u8], row: usize) -> Option<(Vec<f32>, Vec<u8>)> {
    let (table_at, documents_at) = (header.table_at()? as usize, header.documents_at()? as usize);
    let vector_bytes = header.dim as usize * 4;
    let vector = bytes.get(HEADER_BYTES + row * vector_bytes..)?.get(..vector_bytes)?;
    let entry = bytes.get(table_at + row * ENTRY_BYTES..)?.get(..ENTRY_BYTES)?;
    let documents = bytes.get(documents_at..)?;
    let start = usize::try_from(u64_at(entry, 0)?).ok()?;
    let document = documents.get(start..)?.get(..u32_at(entry, 8)? as usize)?;
    let holds = checksum(header, row as u32, vector, document) == u32_at(entry, 12)?;
    let numbers = vector.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number));
    holds.then(|| (numbers.collect(), document.to_vec()))
}
