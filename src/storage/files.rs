//! The file layer: every operation on files of the data directory goes through here, so that a test can put a failing
//! or recording twin in its place.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err::os::unix::fs::OpenOptionsExt as _;

use super::mapped_file::MappedFile;

/// The operations on directories.
pub trait Files: Send + Sync + 'static {
    /// Creates a file of `bytes` bytes that did not exist, its blocks reserved.
    ///
    /// # Errors
    /// `StorageFull` if the disk has no room for all of it; then nothing is left behind.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// Those of the operating system.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;

    /// Writes a small file under a temporary name, flushes it, renames it to `path` and flushes the directory: after a
    /// crash `path` is the old file or the new one, whole.
    ///
    /// # Errors
    /// Those of the operating system; `path` is then what it was.
    fn publish(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// The whole of a small file.
    ///
    /// # Errors
    /// Those of the operating system.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the operating system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The files of a directory, in no order.
    ///
    /// # Errors
    /// Those of the operating system.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes creations, renames and removals in a directory survive a loss of power.
    ///
    /// # Errors
    /// Those of the operating system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The operations on one open file.
pub trait StoredFile: Send + Sync {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end, or those of the operating system.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, inside the reserved length.
    ///
    /// # Errors
    /// Those of the operating system; any part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written survive a loss of power. After an error nothing may be assumed of what was written since
    /// the last success, and trying again tells nothing: the kernel may have dropped it
    /// (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
    ///
    /// # Errors
    /// Those of the operating system.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Those of the operating system.
    fn size(&self) -> io::Result<u64>;

    /// A read-only mapping of the whole file, or none where there is no such thing. The file must never be truncated.
    ///
    /// # Errors
    /// Those of the operating system.
    fn map(&self) -> io::Result<Option<MappedFile>>;
}

/// The files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

impl Files for OsFiles {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        let file =
            fs_err::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(error) = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // Best effort: what remains is an empty file that no manifest names.
            let _ = fs_err::remove_file(path);
            return Err(error.into());
        }
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(OsFile(fs_err::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn publish(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        fs_err::write(&temporary, bytes)?;
        fs_err::File::open(&temporary)?.sync_all()?;
        fs_err::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs_err::read(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs_err::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs_err::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs_err::File::open(dir)?.sync_all()
    }
}

struct OsFile(fs_err::File);

impl StoredFile for OsFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.file().read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.file().write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn map(&self) -> io::Result<Option<MappedFile>> {
        MappedFile::new(self.0.file()).map(Some)
    }
}
