//! The data directory: who holds it, and what format it has.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// The format that this version writes. Version 1 is the first, so there is nothing older to convert yet.
const FORMAT: u32 = 1;

/// A locked data directory. Dropping it releases the lock, as does the death of the process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: fs_err::File,
}

impl DataDirectory {
    /// Creates the directory if it is missing, locks it, and checks its format.
    ///
    /// # Errors
    /// `Locked` if another process holds it, `Format` if a newer version wrote it, `Io` if it cannot be used.
    pub fn open(path: &Path) -> Result<DataDirectory> {
        let fault = |error: io::Error| Error::io("open the data directory", error);
        fs_err::create_dir_all(path).map_err(fault)?;
        let lock_path = path.join("LOCK");
        let lock = fs_err::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(fault)?;
        match lock.file().try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::new(
                    Kind::Locked,
                    "another process uses the data directory; stop it, or give --data-dir another one",
                )
                .with("path", path.display()));
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(fault(error).with("path", lock_path.display()));
            }
        }
        check_format(&path.join("FORMAT"))?;
        let directory = DataDirectory { path: path.to_owned(), _lock: lock };
        fs_err::create_dir_all(directory.vectors()).map_err(fault)?;
        Ok(directory)
    }

    /// Where the vector store lives.
    pub fn vectors(&self) -> PathBuf {
        self.path.join("vectors")
    }
}

fn check_format(path: &Path) -> Result<()> {
    let fault = |error: io::Error| Error::io("read the format of the data directory", error);
    let text = match fs_err::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut file = fs_err::File::create(path).map_err(fault)?;
            return writeln!(file, "likewise {FORMAT}").and_then(|()| file.sync_all()).map_err(fault);
        }
        outcome => outcome.map_err(fault)?,
    };
    let version = text.strip_prefix("likewise ").and_then(|rest| rest.trim().parse::<u32>().ok());
    match version {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(Error::new(
            Kind::Format,
            "the data directory was written by a newer version; upgrade, or give --data-dir another one",
        )
        .with("path", path.display())
        .with("format", newer)
        .with("supported", FORMAT)),
        Some(_) | None => Err(Error::new(Kind::Format, "this is no data directory of likewise")
            .with("path", path.display())
            .with("format", text.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(dir.path()).unwrap();
        assert_eq!(DataDirectory::open(dir.path()).unwrap_err().kind(), Kind::Locked);
        drop(first);
        DataDirectory::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("FORMAT"), "likewise 7\n").unwrap();
        let error = DataDirectory::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.to_string().contains("newer"), "{error}");
        assert!(!dir.path().join("vectors").exists());
    }
}
