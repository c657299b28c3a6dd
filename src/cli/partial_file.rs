//! A file that has its name only once it is whole.

use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use likewise::error::{Error, Kind, Result};

/// What the name of a file ends in until it is whole.
const ENDING: &str = ".partial";

/// A file that is written beside its name, and renamed at the end. One that is not finished is removed, if the process lives to do so; the
/// next one of that name overwrites it.
pub(super) struct PartialFile {
    writer: BufWriter<File>,
    path: PathBuf,
    /// Where it is meanwhile; `None` for what is no file, such as a pipe, which is written in place.
    partial: Option<PathBuf>,
}

impl PartialFile {
    /// Creates the file. What a link names is replaced, and not the link.
    ///
    /// # Errors
    /// `Config` if it cannot be created.
    pub(super) fn create(path: &Path) -> Result<PartialFile> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let partial = (!path.exists() || path.is_file()).then(|| {
            let mut name = path.clone().into_os_string();
            name.push(ENDING);
            PathBuf::from(name)
        });
        let file = File::create(partial.as_ref().unwrap_or(&path))
            .map_err(|error| Error::new(Kind::Config, "cannot create the output").source(error))?;
        Ok(PartialFile { writer: BufWriter::new(file), path, partial })
    }

    /// Writes over the first bytes; what follows goes to the end again.
    ///
    /// # Errors
    /// `Io` or `DiskFull`.
    pub(super) fn rewrite_start(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rewrite = || {
            self.writer.seek(SeekFrom::Start(0))?;
            self.writer.write_all(bytes)?;
            self.writer.seek(SeekFrom::End(0)).map(|_| ())
        };
        rewrite().map_err(unwritten)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// `Io` or `DiskFull`.
    pub(super) fn finish(mut self) -> Result<()> {
        self.writer.flush().map_err(unwritten)?;
        if let Some(partial) = &self.partial {
            self.writer.get_ref().sync_data().map_err(unwritten)?;
            fs_err::rename(partial, &self.path).map_err(unwritten)?;
            self.partial = None;
        }
        Ok(())
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // It has no name that could be taken for the whole.
            let _ = fs_err::remove_file(partial);
        }
    }
}

fn unwritten(error: io::Error) -> Error {
    Error::io("cannot write the output", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        fs_err::write(&path, "before").unwrap();
        let names = || fs_err::read_dir(dir.path()).unwrap().count();
        let mut file = PartialFile::create(&path).unwrap();
        file.write_all(b"..cd").unwrap();
        assert_eq!((names(), fs_err::read_to_string(&path).unwrap().as_str()), (2, "before"));
        drop(file);
        assert_eq!((names(), fs_err::read_to_string(&path).unwrap().as_str()), (1, "before"));
        let mut file = PartialFile::create(&path).unwrap();
        file.write_all(b"..cd").unwrap();
        file.rewrite_start(b"ab").unwrap();
        file.write_all(b"ef").unwrap();
        file.finish().unwrap();
        assert_eq!((names(), fs_err::read_to_string(&path).unwrap().as_str()), (1, "abcdef"));
    }

    #[test]
    fn what_is_no_file_is_written_in_place() {
        let mut file = PartialFile::create(Path::new("/dev/null")).unwrap();
        file.write_all(b"a").unwrap();
        file.finish().unwrap();
        assert!(!Path::new("/dev/null").is_file());
    }
}
