//! The data directory: who may use it, and which format it has.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::error::{Error, Kind, Result};
use crate::storage::files::{FILE_MODE, OsFiles, create_private_dir, publish, read_all};

/// The version of the data directory that is written.
pub const FORMAT_VERSION: u32 = 1;

/// The name of the format file.
pub(super) const FORMAT_NAME: &str = "FORMAT";
const FORMAT_PREFIX: &str = "likewise ";
/// The longest format file that is read.
pub(super) const FORMAT_BYTES_MAX: u64 = 4096;
const LOCK_NAME: &str = "LOCK";
/// How often the lock is tried: [`inspect`] shares it for an instant.
const LOCK_TRIES: u32 = 20;
/// The time between two tries.
const LOCK_WAIT: Duration = Duration::from_millis(10);
/// The longest lock file that is read.
const LOCK_BYTES_MAX: u64 = 32;

/// A data directory that this process holds until the value is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct DataDirectory {
    root: PathBuf,
    /// Never read: held for as long as the directory is open.
    _lock: Lock,
}

impl DataDirectory {
    /// Takes the directory, creating it if it is missing.
    ///
    /// Errors: `Locked` if another process holds it, `Io` if it cannot be created or written, `Format` if it was
    /// written by a newer version, `Corrupt` if its format file is damaged.
    pub fn open(root: &Path) -> Result<DataDirectory> {
        create_private_dir(root).map_err(|error| Error::io("cannot create the data directory", error))?;
        warn_if_open_to_others(root);
        let lock = Lock::take(root)?;
        check_format(root)?;
        Ok(DataDirectory { root: root.to_path_buf(), _lock: lock })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the vectors.
    pub fn vectors(&self) -> PathBuf {
        vectors_in(&self.root)
    }

    /// The folder of the collections.
    pub fn collections(&self) -> PathBuf {
        collections_in(&self.root)
    }

    /// The folder of the small records.
    pub fn records(&self) -> PathBuf {
        records_in(&self.root)
    }
}

/// Whether a data directory is in use, as [`inspect`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryUse {
    /// By no process.
    Free {
        /// The version of its format. `None` for a directory in which no server has been.
        format: Option<u32>,
    },
    /// By a process, whose number is known if it has written itself down.
    Held {
        /// Its number.
        process: Option<u32>,
    },
}

/// Looks at a data directory and changes nothing in it. `None` if it does not exist.
///
/// Its lock is shared for an instant: a process that holds it is not disturbed, and one that wants it waits that long.
///
/// Errors: `Format` if it was written by a newer version, `Corrupt` if its format file is damaged, `Io` if it cannot be read.
pub fn inspect(root: &Path) -> Result<Option<DirectoryUse>> {
    if !root.exists() {
        return Ok(None);
    }
    let unreadable = |error| Error::io("cannot read the data directory", error);
    fs::read_dir(root).map_err(unreadable)?;
    match fs::File::open(root.join(LOCK_NAME)) {
        Ok(file) => match file.file().try_lock_shared() {
            Ok(()) => file.file().unlock().map_err(unreadable)?,
            Err(std::fs::TryLockError::WouldBlock) => {
                return Ok(Some(DirectoryUse::Held { process: holder(&file) }));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(unreadable(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(error)),
    }
    let path = root.join(FORMAT_NAME);
    match read_all(&OsFiles, &path, FORMAT_BYTES_MAX) {
        Ok(bytes) => {
            let version = decode_format(&bytes).map_err(|error| error.with("path", path.display()))?;
            Ok(Some(DirectoryUse::Free { format: Some(version) }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Some(DirectoryUse::Free { format: None }))
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// The name of the folder of the vectors.
pub(super) const VECTORS: &str = "vectors";

/// The folder of the vectors in a data directory.
pub(super) fn vectors_in(root: &Path) -> PathBuf {
    root.join(VECTORS)
}

/// The name of the folder of the collections.
pub(super) const COLLECTIONS: &str = "collections";

/// The folder of the collections in a data directory.
pub(super) fn collections_in(root: &Path) -> PathBuf {
    root.join(COLLECTIONS)
}

/// The name of the folder of the small records.
pub(super) const RECORDS: &str = "records";

/// The folder of the small records in a data directory.
pub(super) fn records_in(root: &Path) -> PathBuf {
    root.join(RECORDS)
}

/// The lock of a data directory, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(fs::File);

impl Lock {
    pub(super) fn take(root: &Path) -> Result<Lock> {
        let path = root.join(LOCK_NAME);
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|error| Error::io("cannot write to the data directory", error))?;
        let wait = || std::thread::sleep(LOCK_WAIT);
        match lock(&file, wait) {
            Ok(()) => {
                write_holder(&file);
                Ok(Lock(file))
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                let error = Error::new(
                    Kind::Locked,
                    "another process uses the data directory; stop it, or choose another one with --data-dir",
                )
                .with("path", path.display());
                Err(match holder(&file) {
                    Some(process) => error.with("process", process),
                    None => error,
                })
            }
            Err(std::fs::TryLockError::Error(error)) => {
                Err(Error::io("cannot lock the data directory", error).with("path", path.display()))
            }
        }
    }
}

/// Locks a file, with `wait` between the tries.
fn lock(file: &fs::File, mut wait: impl FnMut()) -> std::result::Result<(), std::fs::TryLockError> {
    for _ in 1..LOCK_TRIES {
        match file.file().try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => wait(),
            done => return done,
        }
    }
    file.file().try_lock()
}

/// Writes down which process holds the lock, for the message to others. A failure costs that message its number only.
fn write_holder(file: &fs::File) {
    let text = format!("{}\n", std::process::id());
    let mut handle = file.file();
    let _ = handle.set_len(0).and_then(|()| handle.write_all(text.as_bytes()));
}

/// The process that holds the lock, if it has written itself down.
fn holder(file: &fs::File) -> Option<u32> {
    let mut text = String::new();
    file.file().take(LOCK_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Says that other users can read what is stored. An operator may have wanted that, so it is not changed.
fn warn_if_open_to_others(root: &Path) {
    let Ok(metadata) = fs::metadata(root) else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %root.display(),
            mode = format!("{mode:o}"),
            "other users of this machine have access to the data directory; `chmod -R go= DIR` takes it from them"
        );
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone is not enough: a process that is being started just now holds copies of all handles until it
        // has become another program. A failure leaves the lock to the end of this process.
        let _ = self.0.file().unlock();
    }
}

fn check_format(root: &Path) -> Result<()> {
    let path = root.join(FORMAT_NAME);
    match read_all(&OsFiles, &path, FORMAT_BYTES_MAX) {
        Ok(bytes) => {
            let version = decode_format(&bytes).map_err(|error| error.with("path", path.display()))?;
            upgrade(version).map_err(|error| error.with("path", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_format(root),
        Err(error) => Err(Error::io("cannot read the format of the data directory", error)),
    }
}

/// Writes the format file of this version.
pub(super) fn write_format(root: &Path) -> Result<()> {
    publish(&OsFiles, root, FORMAT_NAME, format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n").as_bytes())
        .map_err(|error| Error::io("cannot write the format of the data directory", error))
}

/// The version that a format file names.
///
/// Errors: `Corrupt` if it is not a format file, `Format` if the version is newer than this code.
pub fn decode_format(bytes: &[u8]) -> Result<u32> {
    let corrupt = || {
        Error::new(Kind::Corrupt, "cannot read the format of the data directory")
            .with("expected", "likewise 1")
    };
    let text = str::from_utf8(bytes).map_err(|_| corrupt())?;
    let digits =
        text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.strip_suffix('\n')).ok_or_else(corrupt)?;
    // There is no version 0, and no number begins with one.
    let is_number = (1..=9).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    let version: u32 = if is_number { digits.parse().map_err(|_| corrupt())? } else { return Err(corrupt()) };
    if version > FORMAT_VERSION {
        return Err(Error::new(
            Kind::Format,
            "the data directory was written by a newer version of likewise",
        )
        .with("format", version)
        .with("reads_up_to", FORMAT_VERSION));
    }
    Ok(version)
}

/// Brings a directory of an older version up to this one, a version at a time, before anything in it is opened.
///
/// There is no older version than 1. The next one adds an arm here that rewrites what changed into new files, flushes
/// them, and writes the format file last, so that a crash on the way leaves a directory of the older version.
fn upgrade(version: u32) -> Result<()> {
    match version {
        FORMAT_VERSION => Ok(()),
        older => {
            Err(Error::new(Kind::Format, "the data directory has a format that never was")
                .with("format", older))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_shared_for_an_instant_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_NAME);
        let open = || fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let (looking, starting) = (open(), open());
        looking.file().try_lock_shared().unwrap();
        let mut waits = 0;
        lock(&starting, || {
            waits += 1;
            looking.file().unlock().unwrap();
        })
        .unwrap();
        assert_eq!(waits, 1);
        assert!(matches!(lock(&looking, || ()), Err(std::fs::TryLockError::WouldBlock)));
    }

    #[test]
    fn the_format_file_is_read_strictly_and_a_newer_one_is_reported() {
        assert_eq!(decode_format(b"likewise 1\n").unwrap(), 1);
        let newer = decode_format(b"likewise 2\n").unwrap_err();
        assert_eq!(newer.kind(), Kind::Format);
        assert!(newer.to_string().contains("newer version"));
        for bad in [&b""[..], b"likewise 1", b"likewise +1\n", b"\xff", b"likewise \n"] {
            assert_eq!(decode_format(bad).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
