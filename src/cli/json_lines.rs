//! Files of lines, as commands read them: standard input too, and lines of JSON.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use likewise::error::{Error, Kind, Result};
use likewise::line_files::open;
pub(super) use likewise::line_files::{count, lines, lines_of, parsed};
use serde::de::DeserializeOwned;

use super::file_kind::{self, FileKind};

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

/// What can be read as lines: a file, or with `-` standard input.
///
/// # Errors
/// `Config` if the file cannot be opened; `InvalidInput` naming a kind of file that is not lines.
pub(super) fn open_lines(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    if is_standard_input(path) {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    if file_kind::of_file(path)? != FileKind::Lines {
        let message = "the file holds vectors, and a file of lines was expected";
        return Err(Error::new(Kind::InvalidInput, message).with("file", path.display()));
    }
    Ok(Box::new(open(path)?))
}

/// Whether a path stands for standard input.
pub(super) fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
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
