//! The recording, failing twin of the file layer, for tests: files in memory, every call recorded, any call made to
//! fail, and the images that a power cut may leave after any of them.
//!
//! The model of the disk: a write is durable once a later flush of its file succeeded; until then any part of it may
//! be there. A name is durable once its directory was flushed; until then any first part of the pending changes may
//! have happened. A failed flush leaves its writes undecided for ever, whatever later flushes say.

mod call;
mod crash_point;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub use call::{Call, Image};
pub use crash_point::{Arrived, CrashPoint, Pending};

use self::crash_point::apply;
use super::{Files, Listed, StoredFile};
use super::{FrozenFile, MappedFile};
use crate::sync::lock;

/// How a call is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `EIO`; of a write, the first half arrives.
    Io,
    /// `ENOSPC`; nothing arrives.
    Full,
}

/// Files in memory that remember every call.
#[derive(Clone, Default)]
pub struct RecordingFiles {
    state: Arc<Mutex<State>>,
    /// What was there before the first call.
    base: Arc<Image>,
    calls: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    files: Vec<Vec<u8>>,
    log: Vec<Call>,
    /// Calls from this number on fail, as many as the last field says.
    fault: Option<(usize, Fault, usize)>,
    /// Nothing is created with space, and no file grows.
    is_full: bool,
}

impl RecordingFiles {
    /// No files at all.
    pub fn new() -> RecordingFiles {
        RecordingFiles::default()
    }

    /// The files of an image, all of them durable.
    pub fn from_image(image: &Image) -> RecordingFiles {
        let twin = RecordingFiles { base: Arc::new(image.clone()), ..RecordingFiles::default() };
        {
            let mut state = lock(&twin.state);
            for (path, bytes) in image {
                let file = state.files.len();
                state.files.push(bytes.clone());
                state.names.insert(path.clone(), file);
            }
        }
        twin
    }

    /// Makes `count` calls fail, from the `first`th on, counted from zero over calls of every kind.
    pub fn fail_at(&self, first: usize, fault: Fault, count: usize) {
        lock(&self.state).fault = Some((first, fault, count));
    }

    /// Fills the disk: what takes no more of it still works.
    pub fn fill_disk(&self) {
        lock(&self.state).is_full = true;
    }

    /// Calls so far, those that only read included.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Leaves a mark in the record.
    pub fn mark(&self, mark: u64) {
        lock(&self.state).log.push(Call::Mark(mark));
    }

    /// Everything that was recorded.
    pub fn log(&self) -> Vec<Call> {
        lock(&self.state).log.clone()
    }

    /// The files as a process sees them that starts now: what a `kill -9` leaves.
    pub fn live_image(&self) -> Image {
        let state = lock(&self.state);
        let content = |file: &usize| state.files.get(*file).cloned().unwrap_or_default();
        state.names.iter().map(|(path, file)| (path.clone(), content(file))).collect()
    }

    /// What is certain to be there after a power cut now.
    pub fn durable_image(&self) -> Image {
        self.crash_point().image(&[], 0)
    }

    /// The moment before the first call.
    pub fn first_point(&self) -> CrashPoint {
        CrashPoint::new(&self.base)
    }

    /// This moment.
    pub fn crash_point(&self) -> CrashPoint {
        let mut point = self.first_point();
        self.log().iter().for_each(|call| point.advance(call));
        point
    }

    /// Counts a call, and fails it if its turn has come.
    fn admit(&self, state: &State) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match state.fault {
            Some((first, fault, count)) if call >= first && call - first < count => Err(match fault {
                Fault::Io => io::Error::from_raw_os_error(5),
                Fault::Full => io::Error::from_raw_os_error(28),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Debug for RecordingFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingFiles").field("calls", &self.calls()).finish_non_exhaustive()
    }
}

impl Files for RecordingFiles {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        let mut state = lock(&self.state);
        self.admit(&state)?;
        if state.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        if state.is_full && bytes > 0 {
            return Err(io::Error::from_raw_os_error(28));
        }
        let file = state.files.len();
        state.files.push(vec![0; usize::try_from(bytes).unwrap_or_default()]);
        state.names.insert(path.into(), file);
        state.log.push(Call::Create { path: path.into(), file, bytes });
        Ok(Arc::new(RecordedFile { files: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let state = lock(&self.state);
        self.admit(&state)?;
        let file = *state.names.get(path).ok_or_else(not_found)?;
        Ok(Arc::new(RecordedFile { files: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        self.admit(&state)?;
        let file = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.into(), file);
        state.log.push(Call::Rename { from: from.into(), to: to.into() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        self.admit(&state)?;
        state.names.remove(path).ok_or_else(not_found)?;
        state.log.push(Call::Remove { path: path.into() });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let state = lock(&self.state);
        self.admit(&state)?;
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|(path, file)| {
                let name = path.file_name()?.to_string_lossy().into_owned();
                Some(Listed { name, bytes: state.files.get(*file)?.len() as u64 })
            })
            .collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.admit(&lock(&self.state))
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        self.admit(&state)?;
        state.log.push(Call::SyncDir);
        Ok(())
    }
}

#[derive(Debug)]
struct RecordedFile {
    files: RecordingFiles,
    file: usize,
}

impl StoredFile for RecordedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = lock(&self.files.state);
        self.files.admit(&state)?;
        let start = usize::try_from(offset).map_err(|_| end_of_file())?;
        let end = start.checked_add(buffer.len()).ok_or_else(end_of_file)?;
        let content = state.files.get(self.file).ok_or_else(not_found)?;
        buffer.copy_from_slice(content.get(start..end).ok_or_else(end_of_file)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.files.state);
        let length = state.files.get(self.file).map_or(0, Vec::len) as u64;
        let admitted = match self.files.admit(&state) {
            Ok(()) if state.is_full && offset.saturating_add(bytes.len() as u64) > length => {
                Err(io::Error::from_raw_os_error(28))
            }
            admitted => admitted,
        };
        let arrived = match &admitted {
            Ok(()) => bytes,
            Err(error) if error.raw_os_error() == Some(5) => bytes.get(..bytes.len() / 2).unwrap_or_default(),
            Err(_) => &[],
        };
        if !arrived.is_empty() {
            if let Some(content) = state.files.get_mut(self.file) {
                apply(content, 0, offset, arrived);
            }
            state.log.push(Call::Write { file: self.file, offset, bytes: arrived.into() });
        }
        admitted
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.files.state);
        let admitted = self.files.admit(&state);
        let file = self.file;
        state.log.push(if admitted.is_ok() { Call::Sync { file } } else { Call::FailedSync { file } });
        admitted
    }

    fn bytes(&self) -> io::Result<u64> {
        let state = lock(&self.files.state);
        self.files.admit(&state)?;
        Ok(state.files.get(self.file).ok_or_else(not_found)?.len() as u64)
    }

    fn map(&self, _bytes: u64) -> io::Result<Option<MappedFile>> {
        Ok(None)
    }

    fn map_frozen(&self, _bytes: u64) -> io::Result<Option<FrozenFile>> {
        Ok(None)
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn end_of_file() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> RecordingFiles {
        let files = RecordingFiles::new();
        let file = files.create(Path::new("/d/a"), 4).unwrap();
        file.write_all_at(b"ab", 0).unwrap();
        file.sync_data().unwrap();
        files.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(b"cd", 2).unwrap();
        files
    }

    #[test]
    fn what_was_flushed_is_durable_and_what_was_not_is_pending() {
        let files = workload();
        assert_eq!(files.durable_image()[Path::new("/d/a")], b"ab\0\0");
        assert_eq!(files.live_image()[Path::new("/d/a")], b"abcd");
        let point = files.crash_point();
        assert_eq!(point.pending().len(), 1);
        assert_eq!(point.image(&[Arrived::Until(1)], 0)[Path::new("/d/a")], b"abc\0");
        assert_eq!(point.image(&[Arrived::From(1)], 0)[Path::new("/d/a")], b"ab\0d");
        assert_eq!(point.image(&[Arrived::UntilAndCut(1)], 0)[Path::new("/d/a")], b"abc");
    }

    #[test]
    fn a_name_is_durable_only_after_its_directory_was_flushed() {
        let files = workload();
        files.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
        assert!(files.durable_image().contains_key(Path::new("/d/a")));
        let point = files.crash_point();
        assert_eq!(point.pending_names(), 1);
        assert!(point.image(&[], 1).contains_key(Path::new("/d/b")));
    }

    #[test]
    fn a_failed_flush_leaves_its_writes_undecided_for_ever() {
        let files = workload();
        let file = files.open(Path::new("/d/a")).unwrap();
        files.fail_at(files.calls(), Fault::Io, 1);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(files.durable_image()[Path::new("/d/a")], b"ab\0\0");
    }
}
