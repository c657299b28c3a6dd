//! The file layer: the few operations that the stores need of a file system, behind two small traits.
//!
//! Two implementations: [`OsFiles`], and the recording, failing twin in [`recording`] that crash tests run on.
//! Errors are plain `io::Error`s; the stores add what they attempted and where.

pub(crate) mod end_mark;
pub(crate) mod log;
mod mapped_file;
mod range_checksums;
mod read_mode;
pub mod recording;

use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{FallocateFlags, Mode};

pub use mapped_file::{FrozenFile, MappedFile};
pub use read_mode::ReadMode;

/// One file of a listed directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The name inside the directory.
    pub name: String,
    /// The length in bytes.
    pub bytes: u64,
}

/// Operations on names and directories. All block.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// Creates a file that must not exist yet, with `bytes` of real, zeroed space.
    ///
    /// A disk without room fails here and not at a later write. If this fails, no file is left behind.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the name of a file, or of an empty directory. Open handles and mappings stay valid.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The regular files directly in `dir`, sorted by name. A file that is removed meanwhile is listed or not; it is no error.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
    /// Creates a directory with its parents, if it is missing.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Operations on the bytes of one file. All block.
pub trait StoredFile: fmt::Debug + Send + Sync {
    /// Fills `buffer` from `offset` on; the end of the file inside it is `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all bytes written so far durable. After an error nothing is known of them, and asking again proves nothing.
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// A read-only mapping of the first `bytes`, or `None` where files cannot be mapped.
    fn map(&self, bytes: u64) -> io::Result<Option<MappedFile>>;
    /// The same of a file that is not written to any more.
    fn map_frozen(&self, bytes: u64) -> io::Result<Option<FrozenFile>>;
}

/// Reads a whole file, which must not be longer than `bytes_max`.
pub fn read_all(files: &dyn Files, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = files.open(path)?;
    let bytes = file.bytes()?;
    if bytes > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is longer than its format allows"));
    }
    let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// Puts `content` under `name` so that a crash leaves the old content or the new, never a mixture.
///
/// Cost: one fsync of the file, one of the directory.
pub fn publish(files: &dyn Files, dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = stage(files, dir, name, content)?;
    files.rename(&temporary, &dir.join(name))?;
    files.sync_dir(dir)
}

/// Writes and flushes `content` beside `name`, and returns where it lies. Whatever has the name stays as it is, also after an
/// error.
pub fn stage(files: &dyn Files, dir: &Path, name: &str, content: &[u8]) -> io::Result<PathBuf> {
    let temporary = dir.join(format!("{name}.tmp"));
    remove_if_present(files, &temporary)?;
    let file = files.create(&temporary, content.len() as u64)?;
    file.write_all_at(content, 0)?;
    file.sync_data()?;
    Ok(temporary)
}

/// Whether there is a file of this name.
pub fn exists(files: &dyn Files, path: &Path) -> io::Result<bool> {
    match files.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // It has the name, whatever it is.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(true),
        Err(error) => Err(error),
    }
}

/// Removes a name, and is content if nothing has it.
pub fn remove_if_present(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The mode of new files: what users store is read by the server's own user only.
pub(super) const FILE_MODE: u32 = 0o600;
/// The mode of new directories.
const DIRECTORY_MODE: u32 = 0o700;

/// Creates a directory with its parents, if it is missing, for this user only.
pub(super) fn create_private_dir(dir: &Path) -> io::Result<()> {
    let created = std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir);
    created.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))
}

/// Makes every file that this process and its children create from now on private, those of libraries too.
pub fn restrict_new_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// The files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

impl Files for OsFiles {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        let file =
            fs::OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        if let Err(error) = preallocate(&file, bytes) {
            drop(file);
            // The error that matters is the first one; a name that stays behind is reported as foreign.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(OsFile(fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(path),
            removed => removed,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Removed since its name was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_file() {
                listed.push(Listed {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    bytes: metadata.len(),
                });
            }
        }
        listed.sort();
        Ok(listed)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        create_private_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

#[derive(Debug)]
struct OsFile(fs::File);

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

    fn bytes(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn map(&self, bytes: u64) -> io::Result<Option<MappedFile>> {
        MappedFile::new(self.0.file(), bytes).map(Some)
    }

    fn map_frozen(&self, bytes: u64) -> io::Result<Option<FrozenFile>> {
        FrozenFile::new(self.0.file(), bytes).map(Some)
    }
}

/// Gives the file its blocks. Where the file system cannot, zeros are written: slower, and as good a promise.
fn preallocate(file: &fs::File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file.file(), FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_zeros(file, bytes),
        Err(errno) => Err(errno.into()),
    }
}

fn write_zeros(file: &fs::File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < bytes {
        let count = (bytes - offset).min(zeros.len() as u64);
        let piece = zeros.get(..usize::try_from(count).unwrap_or(zeros.len())).unwrap_or(&zeros);
        file.file().write_all_at(piece, offset)?;
        offset += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_directory_is_listed_while_its_files_are_created_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stays"), "x").unwrap();
        let is_done = AtomicBool::new(false);
        let churn = |writer: usize| {
            let mut removed = 0;
            while !is_done.load(Ordering::Relaxed) || removed == 0 {
                let files: Vec<_> = (0..50).map(|n| dir.path().join(format!("{writer}.{n}"))).collect();
                files.iter().for_each(|file| fs::write(file, "x").unwrap());
                files.iter().for_each(|file| fs::remove_file(file).unwrap());
                removed += files.len();
            }
        };
        std::thread::scope(|scope| {
            (0..2).for_each(|writer| _ = scope.spawn(move || churn(writer)));
            let listings: Vec<_> = (0..2000).map(|_| OsFiles.list(dir.path())).collect();
            is_done.store(true, Ordering::Relaxed);
            let is_listed = |listing: Vec<Listed>| listing.iter().any(|file| file.name == "stays");
            listings.into_iter().for_each(|listing| assert!(is_listed(listing.unwrap())));
        });
    }
}
