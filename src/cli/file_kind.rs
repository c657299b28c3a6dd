//! What a file is, by its first bytes: a file that a command does not read is named, instead of read as something else.

use std::io::Read as _;
use std::path::Path;

use fs_err::File;
use likewise::error::{Error, Kind, Result};

/// A kind of file that a command may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Lines of text, as far as the first bytes say.
    Lines,
    /// An array of NumPy.
    Npy,
    /// An index of FAISS.
    Faiss,
    /// A Parquet file.
    Parquet,
}

/// Files that no command reads: how they begin, what they are, and what makes lines of them.
const FOREIGN: [(&[u8], &str); 20] = [
    (b"\x1f\x8b", "a gzip file: unpack it first (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first (zstd -d)"),
    (b"BZh", "a bzip2 file: unpack it first (bunzip2)"),
    (b"\xfd7zXZ\0", "an xz file: unpack it first (unxz)"),
    (b"\x04\x22\x4d\x18", "an lz4 file: unpack it first (lz4 -d)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file: unpack it first"),
    (b"ARROW1", "an Arrow file: write it as JSON lines first"),
    (b"ORC", "an ORC file: write it as JSON lines first"),
    (b"Obj\x01", "an Avro file: write it as JSON lines first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: write its vectors as a .npy file of f32 first"),
    (b"CDF", "a NetCDF file: write its vectors as a .npy file of f32 first"),
    (b"\x80\x02", "a Python pickle: write its vectors as a .npy file of f32 first"),
    (b"\x80\x03", "a Python pickle: write its vectors as a .npy file of f32 first"),
    (b"\x80\x04", "a Python pickle: write its vectors as a .npy file of f32 first"),
    (b"\x80\x05", "a Python pickle: write its vectors as a .npy file of f32 first"),
    (b"SQLite format 3\0", "an SQLite database: write its rows as JSON lines first"),
    (b"%PDF", "a PDF document: write its text as JSON lines first"),
    (b"\xff\xfe", "a text in UTF-16: convert it to UTF-8 first"),
    (b"\xfe\xff", "a text in UTF-16: convert it to UTF-8 first"),
    (b"\x7fELF", "a program"),
];
/// Local file, end of an empty archive, part of a spanned archive.
const ZIP: [&[u8]; 3] = [b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"];
/// The name of the first file in a zip archive stands behind a header of so many bytes.
const ZIP_NAME_AT: usize = 30;
/// How the files of FAISS's indexes begin that hold rows or codes; many more kinds have a tag of four letters.
const FAISS_TAGS: [&[u8]; 4] = [b"Ix", b"IH", b"Iw", b"IB"];
const NUMPY: &[u8] = b"\x93NUMPY";
const PARQUET: &[u8] = b"PAR1";
/// Bytes that are looked at.
const HEAD_BYTES: u64 = 512;

/// What a file is; lines, if it is a pipe.
///
/// # Errors
/// `Config` if it cannot be opened; `InvalidInput` naming a kind that is not read.
pub(super) fn of_file(path: &Path) -> Result<FileKind> {
    let open = |error| Error::new(Kind::Config, "cannot open a file").source(error);
    let mut head = Vec::new();
    let file = File::open(path).map_err(open)?;
    if !file.metadata().map_err(open)?.is_file() {
        // What is read from a pipe is gone.
        return Ok(FileKind::Lines);
    }
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(open)?;
    of_head(&head).map_err(|what| {
        Error::new(Kind::InvalidInput, format!("the file is {what}")).with("file", path.display())
    })
}

fn of_head(head: &[u8]) -> Result<FileKind, String> {
    if head.starts_with(NUMPY) {
        return Ok(FileKind::Npy);
    }
    if head.starts_with(PARQUET) {
        return Ok(FileKind::Parquet);
    }
    if head.len() > 8 && FAISS_TAGS.iter().any(|tag| head.starts_with(tag)) && head.contains(&0) {
        return Ok(FileKind::Faiss);
    }
    if ZIP.iter().any(|magic| head.starts_with(magic)) {
        return Err(zip(head).to_owned());
    }
    if let Some((_, what)) = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err((*what).to_owned());
    }
    if head.get(257..262) == Some(b"ustar") {
        return Err("a tar archive: unpack it first".to_owned());
    }
    // Also where a multi-byte character is cut by the end of the head.
    let is_text =
        !head.contains(&0) && std::str::from_utf8(head).map_or_else(|e| e.error_len().is_none(), |_| true);
    if is_text {
        return Ok(FileKind::Lines);
    }
    let shown: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Err(format!(
        "not text in UTF-8, nor an array of NumPy, nor an index of FAISS; it begins with {}",
        shown.join(" ")
    ))
}

fn zip(head: &[u8]) -> &'static str {
    let name = head.get(ZIP_NAME_AT..).unwrap_or_default();
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    if has(b".npy") {
        "an archive of NumPy (.npz): write each of its arrays as a .npy file first (numpy.save)"
    } else if has(b"/data.pkl") {
        "a file of PyTorch: write its vectors as a .npy file of f32 first"
    } else {
        "a zip archive: unpack it first"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let zipped = |name: &str| [&b"PK\x03\x04"[..], &[0; 26], name.as_bytes(), b"\x93NUMPY"].concat();
        let cases: [(&[u8], &str); 9] = [
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"PK\x05\x06", "zip"),
            (&zipped("vectors.npy"), ".npz"),
            (&zipped("model/data.pkl"), "PyTorch"),
            (&zipped("a.txt"), "zip"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"{\"id\":\"\xff\"}", "UTF-8"),
            (b"a\0b", "61 00 62"),
        ];
        for (head, what) in cases {
            assert!(of_head(head).unwrap_err().contains(what), "{what}");
        }
        let cut = "ñ".as_bytes();
        for lines in [&b""[..], b"{\"id\":\"1\"}\n", b"IxF2 is a tag", "\u{feff}uno".as_bytes(), &cut[..1]] {
            assert_eq!(of_head(lines), Ok(FileKind::Lines));
        }
        assert_eq!(of_head(b"PAR1\x15\x04"), Ok(FileKind::Parquet));
        assert_eq!(of_head(b"\x93NUMPY\x01\0"), Ok(FileKind::Npy));
        assert_eq!(of_head(b"IxM2\x02\0\0\0\x01"), Ok(FileKind::Faiss));
    }
}
