//! Files of lines, as commands read them. Empty lines are skipped, and byte order marks are no part of a line.

use std::io::{BufRead, BufReader};
use std::path::Path;

use fs_err::File;
use likewise::error::{Error, Kind, Result};
use serde::de::DeserializeOwned;

/// The byte order mark that editors of Windows write. Files that were joined have one before the lines of each.
const MARK: char = '\u{feff}';

/// The lines of a file, each as it is needed.
///
/// # Errors
/// `Config` if the file cannot be opened. A line that cannot be read is `InvalidInput` in its place, with its number.
pub(super) fn json_lines<T: DeserializeOwned>(
    path: &Path,
) -> Result<impl Iterator<Item = Result<T>> + use<T>> {
    let shown = path.display().to_string();
    let read = move |(number, line): (usize, Result<String>)| {
        let fault = |error: Error| error.with("file", &shown).with("line", number);
        line.and_then(|line| parsed(&line)).map_err(fault)
    };
    Ok(lines(path)?.map(read))
}

/// What a line says.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn parsed<T: DeserializeOwned>(line: &str) -> Result<T> {
    let unreadable = |error| Error::new(Kind::InvalidInput, format!("cannot read a line: {error}"));
    serde_json::from_str(line).map_err(unreadable)
}

/// How many lines [`lines`] gives.
pub(super) fn count(path: &Path) -> Result<usize> {
    lines(path).map(Iterator::count)
}

/// The lines of a file that are not empty, with their numbers, which count from 1.
///
/// # Errors
/// `Config` if the file cannot be opened; a line that cannot be read is `InvalidInput` in its place.
pub(super) fn lines(path: &Path) -> Result<impl Iterator<Item = (usize, Result<String>)> + use<>> {
    let file =
        File::open(path).map_err(|error| Error::new(Kind::Config, "cannot open a file").source(error))?;
    Ok(lines_of(BufReader::new(file)))
}

/// The same of what is open.
pub(super) fn lines_of<R: BufRead>(reader: R) -> impl Iterator<Item = (usize, Result<String>)> + use<R> {
    let unreadable = |error| Error::new(Kind::InvalidInput, "cannot read a line").source(error);
    let unmarked = move |(place, line): (usize, std::io::Result<String>)| {
        (place + 1, line.map(|line| line.trim_start_matches(MARK).to_owned()).map_err(unreadable))
    };
    let is_filled =
        |line: &(usize, Result<String>)| !line.1.as_ref().is_ok_and(|line| line.trim().is_empty());
    reader.lines().enumerate().map(unmarked).filter(is_filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_are_skipped_and_others_keep_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.jsonl");
        fs_err::write(&path, "\u{feff}1\n\n  \r\n\u{feff}2\nx\n\u{feff}\n").unwrap();
        let read: Vec<Result<u32>> = json_lines(&path).unwrap().collect();
        assert_eq!(count(&path).unwrap(), 3);
        assert!(matches!(read[..], [Ok(1), Ok(2), Err(_)]), "{read:?}");
        assert!(read[2].as_ref().unwrap_err().to_string().contains("line: 5"), "{read:?}");
    }
}
