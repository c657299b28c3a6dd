//! NumPy's file format for arrays (NEP 1), as far as vectors need it: two dimensions, little-endian f32, row by row.

use std::io::Read;
use std::path::{Path, PathBuf};

use likewise::error::{Error, Kind, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The shape of an array of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Shape {
    /// Whether so many bytes are the array's numbers.
    ///
    /// # Errors
    /// `InvalidInput` if the file is cut short, or goes on after them.
    pub(super) fn check(self, bytes: u64) -> Result<()> {
        let wanted =
            (self.rows as u64).checked_mul(self.columns as u64).and_then(|count| count.checked_mul(4));
        if wanted == Some(bytes) {
            return Ok(());
        }
        let Shape { rows, columns } = self;
        let message =
            format!("the .npy file has {bytes} bytes of numbers, which are not {rows} x {columns} f32");
        Err(Error::new(Kind::InvalidInput, message))
    }
}

/// Where the documents of the rows of a new array go: a named file, or `ids.jsonl` beside it.
///
/// # Errors
/// `Conflict` if that holds the rows of another array.
pub(super) fn ids_file(array: &Path, named: Option<&Path>) -> Result<PathBuf> {
    let ids = named.map_or_else(|| array.with_file_name("ids.jsonl"), Path::to_owned);
    if named.is_none() && ids.exists() && !array.exists() {
        let message = format!("{} has the rows of another array; name one by --ids", ids.display());
        return Err(Error::new(Kind::Conflict, message));
    }
    Ok(ids)
}

/// The bytes before the numbers: version 1.0, padded to a multiple of 64. Their length is the same for all shapes.
pub(super) fn header(shape: Shape) -> Vec<u8> {
    let Shape { rows, columns } = shape;
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.into_bytes());
    bytes
}

/// Reads what stands before the numbers.
///
/// # Errors
/// `InvalidInput` for anything but two dimensions of little-endian f32, row by row.
pub(super) fn read_header(file: &mut impl Read) -> Result<Shape> {
    let fault = |message: &str| Error::new(Kind::InvalidInput, message);
    let cut = |error| fault("cannot read the .npy file: it is truncated").source(error);
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(cut)?;
    if !start.starts_with(MAGIC) {
        return Err(fault("the file is not in NumPy's format"));
    }
    let length = if start[6] == 1 {
        let mut length = [0; 2];
        file.read_exact(&mut length).map_err(cut)?;
        usize::from(u16::from_le_bytes(length))
    } else {
        let mut length = [0; 4];
        file.read_exact(&mut length).map_err(cut)?;
        u32::from_le_bytes(length) as usize
    };
    if length > 1 << 16 {
        return Err(fault("the header of the .npy file is too long"));
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(cut)?;
    let text = String::from_utf8_lossy(&text);
    let value = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    if !value("descr").is_some_and(|descr| descr.starts_with("'<f4'")) {
        return Err(fault("the numbers of the .npy file are not little-endian f32 (<f4)"));
    }
    if !value("fortran_order").is_some_and(|order| order.starts_with("False")) {
        return Err(fault("the numbers of the .npy file stand column by column"));
    }
    let shape = value("shape").and_then(|shape| shape.strip_prefix('(')?.split_once(')'));
    let lengths: Vec<usize> = shape
        .iter()
        .flat_map(|(inside, _)| inside.split(','))
        .filter_map(|part| part.trim().parse().ok())
        .collect();
    match lengths[..] {
        [rows, columns] => Ok(Shape { rows, columns }),
        _ => Err(fault("the array of the .npy file has not two dimensions")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_others_are_refused() {
        let shape = Shape { rows: 1_234_567, columns: 384 };
        let bytes = header(shape);
        assert!(bytes.len().is_multiple_of(64) && bytes.ends_with(b"\n"));
        assert_eq!(read_header(&mut &bytes[..]).unwrap(), shape);
        for (rows, columns) in [(0, 0), (usize::MAX, usize::MAX)] {
            assert_eq!(header(Shape { rows, columns }).len(), bytes.len());
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for (from, to) in [("<f4", "<f8"), ("False", "True "), ("384)", "3,4)")] {
            let changed: Vec<u8> = text
                .replace(from, to)
                .chars()
                .map(|c| if c == '\u{fffd}' { 0x93 } else { c as u8 })
                .collect();
            assert_eq!(read_header(&mut &changed[..]).unwrap_err().kind(), Kind::InvalidInput, "{to}");
        }
        assert_eq!(read_header(&mut &bytes[..20]).unwrap_err().kind(), Kind::InvalidInput);
        let small = Shape { rows: 2, columns: 3 };
        assert!(small.check(24).is_ok() && small.check(23).is_err() && small.check(28).is_err());
        assert!(Shape { rows: usize::MAX, columns: 8 }.check(0).is_err());
    }
}
