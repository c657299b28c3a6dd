//! Files of lines that operators give: read as a stream, each line with its number.
//!
//! Empty lines are skipped, and byte order marks are no part of a line. What a line means is not known here.

mod line_stream;

use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use fs_err::File;
use serde::de::DeserializeOwned;

pub use self::line_stream::LineStream;
use crate::error::{Error, Kind, Result};

/// The byte order mark that editors of Windows write. Files that were joined have one before the lines of each.
const MARK: char = '\u{feff}';

/// Bytes of a line; a longer one is named and skipped.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What a line says.
///
/// # Errors
/// `InvalidInput`.
pub fn parsed<T: DeserializeOwned>(line: &str) -> Result<T> {
    let unreadable = |error| Error::new(Kind::InvalidInput, format!("cannot read a line: {error}"));
    serde_json::from_str(line).map_err(unreadable)
}

/// How many lines [`lines`] gives. Blocks.
///
/// # Errors
/// `Config` if the file cannot be opened.
pub fn count(path: &Path) -> Result<usize> {
    lines(path).map(Iterator::count)
}

/// The lines of a file that are not empty, with their numbers, which count from 1.
///
/// # Errors
/// `Config` if the file cannot be opened; a line that cannot be read is `InvalidInput` in its place.
pub fn lines(path: &Path) -> Result<impl Iterator<Item = (usize, Result<String>)> + use<>> {
    open(path).map(lines_of)
}

/// Opens a file to read its lines. Blocks.
///
/// # Errors
/// `Config` if the file cannot be opened.
pub fn open(path: &Path) -> Result<BufReader<File>> {
    let unreadable = |error| Error::new(Kind::Config, "cannot open a file").source(error);
    File::open(path).map(BufReader::new).map_err(unreadable)
}

/// The same of what is open. It ends behind a read that fails, which is of the kind `Io`.
pub fn lines_of<R: BufRead>(mut reader: R) -> impl Iterator<Item = (usize, Result<String>)> + use<R> {
    let mut number = 0;
    let mut has_failed = false;
    let all = std::iter::from_fn(move || {
        if has_failed {
            return None;
        }
        number += 1;
        match next_line(&mut reader) {
            Ok(line) => line.map(|line| (number, line)),
            Err(error) => {
                has_failed = true;
                Some((number, Err(Error::io("cannot read a line", error))))
            }
        }
    });
    let is_filled =
        |line: &(usize, Result<String>)| !line.1.as_ref().is_ok_and(|line| line.trim().is_empty());
    all.filter(is_filled)
}

/// The next line without its end and its mark; `None` behind the last one.
fn next_line(reader: &mut impl BufRead) -> io::Result<Option<Result<String>>> {
    let mut bytes = Vec::new();
    let read = reader.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    let has_ended = bytes.pop_if(|last| *last == b'\n').is_some();
    if !has_ended && read as u64 > LINE_BYTES_MAX {
        reader.skip_until(b'\n')?;
        let message = format!("cannot read a line: it is longer than {LINE_BYTES_MAX} bytes");
        return Ok(Some(Err(Error::new(Kind::InvalidInput, message))));
    }
    bytes.pop_if(|last| has_ended && *last == b'\r');
    let unreadable = |error| Error::new(Kind::InvalidInput, "cannot read a line").source(error);
    let line = String::from_utf8(bytes).map_err(unreadable);
    Ok(Some(line.map(|line| line.trim_start_matches(MARK).to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_read_is_skipped_and_a_failing_file_ends() {
        let long = vec![b'x'; usize::try_from(LINE_BYTES_MAX).unwrap() + 1];
        let bytes = [&b"1\r\n\xff\n"[..], &long, b"\n2"].concat();
        let read: Vec<(usize, Result<String>)> = lines_of(&bytes[..]).collect();
        let numbers: Vec<usize> = read.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert!(matches!([&read[0].1, &read[3].1], [Ok(first), Ok(last)] if first == "1" && last == "2"));
        assert_eq!(read[1].1.as_ref().unwrap_err().kind(), Kind::InvalidInput);
        assert!(read[2].1.as_ref().unwrap_err().to_string().contains("longer than 67108864 bytes"));

        struct Failing;
        impl io::Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("torn out"))
            }
        }
        let read: Vec<(usize, Result<String>)> = lines_of(BufReader::new(Failing)).collect();
        assert!(matches!(&read[..], [(1, Err(error))] if error.kind() == Kind::Io), "{read:?}");
    }
}
