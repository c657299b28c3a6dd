//! A copy of the header of redb's file, in a file of its own: without its header nothing of that file can be read, and a
//! commit whose slot is damaged would be given up for the one before it.
//!
//! The copy is written whenever redb has flushed its file, and flushed itself only when the file is opened and when it is
//! closed. It is used if it was closed, or if the machine has not been started since it was written: then the system
//! has had all of it. It fits into one sector. The byte table is in `docs/internals/store-format.md`.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fs_err as fs;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::redb_header::{
    HEADER_BYTES, Header, has_damaged_slot, is_initialized, is_same_file, last_commit, with_commits_of,
};
use crate::error::{Error, Kind, Result};
use crate::storage::files::{Files, OsFiles, StoredFile, read_all};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at};
use crate::sync::lock;

const MAGIC: [u8; 8] = *b"LKWSHEAD";
const VERSION: u32 = 1;
const COPY_BYTES: usize = 512;
const IS_CLOSED: u32 = 1;
const HEADER_AT: usize = 32;
/// Names one start of the machine: random(4).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where the copy of a file's header lies.
pub(crate) fn path_of(file: &Path) -> PathBuf {
    file.with_extension("header")
}

/// A copy that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Copy {
    header: Header,
    /// Whether it is of the file's last flush for certain.
    is_current: bool,
}

/// What the comparison of a file's header with its copy shows.
#[derive(Debug, Clone)]
pub(crate) enum HeaderState {
    /// No fault was found, or there is no copy.
    Valid,
    /// The copy cannot be read or does not verify: nothing is known of the header.
    Unknown(Error),
    /// The last commit verifies, but not the one before it. The header is the one that was there.
    OlderSlotDamaged(Box<Header>),
    /// The last commit or the description of the whole file is damaged. The header is the one that was there, as far as it
    /// is known.
    Damaged(Box<Header>),
}

impl HeaderState {
    /// The header to read the file with, if its own is damaged.
    pub(crate) fn header(self) -> Option<Box<Header>> {
        match self {
            HeaderState::Valid | HeaderState::Unknown(_) => None,
            HeaderState::OlderSlotDamaged(header) | HeaderState::Damaged(header) => Some(header),
        }
    }
}

/// Compares the header of the file at `path` with its copy.
///
/// # Errors
/// `Io` if the file itself cannot be read, `Format` for a newer version of the copy.
pub(crate) fn check_header(path: &Path) -> Result<HeaderState> {
    let copy = read(&path_of(path));
    let io = |error| Error::io("cannot read the header of the records", error).with("path", path.display());
    let file = OsFiles.open(path).map_err(io)?;
    let mut found = [0; HEADER_BYTES];
    let present = file.bytes().map_err(io)?.min(HEADER_BYTES as u64) as usize;
    file.read_exact_at(&mut found[..present], 0).map_err(io)?;
    match copy {
        Ok(Some(copy)) => Ok(copy.check(&found)),
        Ok(None) => Ok(HeaderState::Valid),
        Err(error) if error.kind() == Kind::Format => Err(error),
        Err(error) => Ok(HeaderState::Unknown(error)),
    }
}

impl Copy {
    fn check(&self, found: &Header) -> HeaderState {
        // A later commit is of a program that writes no copies, or was not yet acknowledged.
        let has_last = last_commit(found) >= last_commit(&self.header);
        let header = match (is_same_file(found, &self.header), has_last) {
            (true, true) if self.is_current && has_damaged_slot(found, &self.header) => {
                return HeaderState::OlderSlotDamaged(Box::new(self.header));
            }
            (true, true) => return HeaderState::Valid,
            (false, true) => with_commits_of(&self.header, found),
            // The file was flushed before the copy was written, so its last commit was acknowledged and is lost, also if
            // the copy is not of the last flush.
            (_, false) => self.header,
        };
        HeaderState::Damaged(Box::new(header))
    }
}

/// A file that redb keeps, and the copy of its header.
#[derive(Debug)]
pub(crate) struct CopiedBackend {
    file: FileBackend,
    copy_path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    header: Header,
    /// Whether the header was written since the last flush.
    is_dirty: bool,
    /// Opened with the first flush: before it redb may find that another process has the file.
    copy: Option<Arc<dyn StoredFile>>,
    /// Set once the copy cannot be written.
    is_off: bool,
}

impl CopiedBackend {
    /// The file at `path`, which must be there.
    ///
    /// # Errors
    /// What redb says of the file.
    pub(crate) fn open(path: &Path) -> Result<CopiedBackend, redb::Error> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let file = FileBackend::new(file.into_parts().0)?;
        let mut header = [0; HEADER_BYTES];
        let present = file.len()?.min(HEADER_BYTES as u64) as usize;
        file.read(0, &mut header[..present])?;
        let state = State { header, is_dirty: false, copy: None, is_off: false };
        Ok(CopiedBackend { file, copy_path: path_of(path), state: Mutex::new(state) })
    }

    /// Writes the copy as the file is now.
    fn write_copy(&self, state: &mut State, is_closed: bool) {
        if state.is_off {
            return;
        }
        let written = || {
            let is_first = state.copy.is_none();
            let copy = match &state.copy {
                Some(copy) => Arc::clone(copy),
                None => open_copy(&self.copy_path)?,
            };
            copy.write_all_at(&encode(&state.header, is_closed, boot()), 0)?;
            if is_first || is_closed {
                // One that said it was closed must not come back after a loss of power.
                copy.sync_data()?;
            }
            if is_first && let Some(dir) = self.copy_path.parent() {
                OsFiles.sync_dir(dir)?;
            }
            Ok::<_, io::Error>(copy)
        };
        match written() {
            Ok(copy) => state.copy = Some(copy),
            Err(error) => {
                state.is_off = true;
                tracing::warn!(%error, "the copy of the records' header cannot be written");
                if let Err(error) = OsFiles.remove(&self.copy_path) {
                    tracing::warn!(%error, "the copy of the records' header cannot be removed");
                }
            }
        }
    }
}

impl StorageBackend for CopiedBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        let mut state = lock(&self.state);
        // A new file is flushed once without its magic number: that is no header to read it with.
        if state.is_dirty && is_initialized(&state.header) {
            state.is_dirty = false;
            self.write_copy(&mut state, false);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        if offset < HEADER_BYTES as u64 {
            let mut state = lock(&self.state);
            let place = state.header.get_mut(offset as usize..).unwrap_or_default();
            let count = place.len().min(data.len());
            place[..count].copy_from_slice(&data[..count]);
            state.is_dirty = true;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.copy.is_some() && !state.is_dirty {
            self.write_copy(&mut state, true);
        }
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

fn open_copy(path: &Path) -> io::Result<Arc<dyn StoredFile>> {
    match OsFiles.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => OsFiles.create(path, COPY_BYTES as u64),
        opened => opened,
    }
}

/// Which start of the machine this is; `None` if the system does not say.
fn boot() -> Option<[u8; 16]> {
    let id = fs::read(BOOT_ID).ok()?;
    array_at(blake3::hash(&id).as_bytes(), 0)
}

fn encode(header: &Header, is_closed: bool, boot: Option<[u8; 16]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(COPY_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(if is_closed { IS_CLOSED } else { 0 }.to_le_bytes());
    bytes.extend(boot.unwrap_or_default());
    bytes.extend(header);
    bytes.resize(COPY_BYTES - 4, 0);
    push_trailer(&mut bytes);
    bytes
}

fn read(path: &Path) -> Result<Option<Copy>> {
    let at = |error: Error| error.with("path", path.display());
    match read_all(&OsFiles, path, COPY_BYTES as u64) {
        // A crash came before it was written first.
        Ok(bytes) if bytes.iter().all(|&byte| byte == 0) => Ok(None),
        Ok(bytes) => {
            let copy = decode(&bytes, boot()).map_err(at)?;
            Ok(Some(copy).filter(|copy| is_initialized(&copy.header)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(at(corrupt())),
        Err(error) => Err(at(Error::io("cannot read the copy of the records' header", error))),
    }
}

fn decode(bytes: &[u8], boot: Option<[u8; 16]>) -> Result<Copy> {
    if bytes.len() != COPY_BYTES || array_at(bytes, 0) != Some(MAGIC) || !has_valid_trailer(bytes) {
        return Err(corrupt());
    }
    match u32_at(bytes, 8) {
        Some(VERSION) => {}
        version => {
            let message = "the copy of the records' header has another version than this program reads";
            return Err(Error::new(Kind::Format, message).with("version", version.unwrap_or_default()));
        }
    }
    let is_closed = u32_at(bytes, 12).ok_or_else(corrupt)? & IS_CLOSED != 0;
    let is_of_this_boot = boot.is_some() && array_at(bytes, 16) == boot;
    let header = array_at(bytes, HEADER_AT).ok_or_else(corrupt)?;
    Ok(Copy { header, is_current: is_closed || is_of_this_boot })
}

fn corrupt() -> Error {
    Error::new(Kind::Corrupt, "cannot read the copy of the records' header: it does not verify")
}

#[cfg(test)]
mod tests {
    use redb::{Database, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

    fn commit(database: &Database, n: u8) {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TABLE).unwrap().insert(&[n][..], &[n; 3000][..]).unwrap();
        transaction.commit().unwrap();
    }

    fn header_of(path: &Path) -> Header {
        fs::read(path).unwrap()[..HEADER_BYTES].try_into().unwrap()
    }

    /// Every header that a file has had, after each commit and at its end.
    fn run(path: &Path) -> Vec<Header> {
        fs::write(path, "").unwrap();
        let database = Database::builder().create_with_backend(CopiedBackend::open(path).unwrap()).unwrap();
        let mut headers = Vec::new();
        for n in 0..20 {
            commit(&database, n);
            headers.push(header_of(path));
            let copy = read(&path_of(path)).unwrap().unwrap();
            assert_eq!(copy, Copy { header: header_of(path), is_current: true }, "commit {n}");
        }
        drop(database);
        headers.push(header_of(path));
        headers
    }

    #[test]
    fn the_copy_is_the_header_after_each_commit_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.redb");
        let last = *run(&path).last().unwrap();
        let bytes = fs::read(path_of(&path)).unwrap();
        let elsewhere = decode(&bytes, Some([9; 16])).unwrap();
        assert_eq!(elsewhere, Copy { header: last, is_current: true }, "it was closed");
        let open = encode(&last, false, Some([8; 16]));
        assert!(!decode(&open, Some([9; 16])).unwrap().is_current, "the machine was started since");
        assert!(!decode(&encode(&last, false, None), None).unwrap().is_current);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged, None).is_err(), "byte {at}");
            assert!(decode(&bytes[..at], None).is_err(), "{at} bytes");
        }
        assert!(matches!(check_header(&path), Ok(HeaderState::Valid)));
    }

    /// The bytes of a file, and of its copy if there was one.
    type Image = (Vec<u8>, Option<Vec<u8>>);

    /// A backend that keeps an image after each flush.
    #[derive(Debug)]
    struct Flushed {
        backend: CopiedBackend,
        path: PathBuf,
        images: Arc<Mutex<Vec<Image>>>,
    }

    impl StorageBackend for Flushed {
        fn len(&self) -> io::Result<u64> {
            self.backend.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.backend.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.backend.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.backend.sync_data()?;
            let image = (fs::read(&self.path)?, fs::read(path_of(&self.path)).ok());
            lock(&self.images).push(image);
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.backend.write(offset, data)
        }

        fn close(&self) -> io::Result<()> {
            self.backend.close()
        }
    }

    #[test]
    fn no_copy_of_an_earlier_flush_marks_a_whole_file_as_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.redb");
        fs::write(&path, "").unwrap();
        let images = Arc::default();
        let backend = CopiedBackend::open(&path).unwrap();
        let backend = Flushed { backend, path: path.clone(), images: Arc::clone(&images) };
        let database = Database::builder().create_with_backend(backend).unwrap();
        (0..3).for_each(|n| commit(&database, n));
        drop(database);
        let images = lock(&images).clone();
        assert!(images.len() > 4, "{}", images.len());
        for (file_at, (file, _)) in images.iter().enumerate() {
            for (copy_at, (_, copy)) in images.iter().enumerate().take(file_at + 1) {
                fs::write(&path, file).unwrap();
                match copy {
                    Some(copy) => fs::write(path_of(&path), copy).unwrap(),
                    None => _ = fs::remove_file(path_of(&path)),
                }
                let state = check_header(&path).unwrap();
                assert!(
                    matches!(state, HeaderState::Valid),
                    "file of flush {file_at}, copy of flush {copy_at}: {state:?}"
                );
            }
        }
    }

    fn is_damaged(state: &HeaderState, expected: &Header) -> bool {
        matches!(state, HeaderState::Damaged(header) if **header == *expected)
    }

    #[test]
    fn a_header_older_than_its_copy_is_damaged_and_a_later_one_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.redb");
        let headers = run(&path);
        let (earlier, last) = (headers[10], headers[20]);
        let current = |header| Copy { header, is_current: true };
        let stale = |header| Copy { header, is_current: false };
        for copy in [current(earlier), stale(earlier)] {
            assert!(matches!(copy.check(&last), HeaderState::Valid), "a program without copies wrote on");
        }
        for copy in [current(last), stale(last)] {
            assert!(is_damaged(&copy.check(&earlier), &last), "an acknowledged commit is lost: {copy:?}");
            assert!(is_damaged(&copy.check(&[0; HEADER_BYTES]), &last), "{copy:?}");
        }
        let found = [64, 192].map(|at| {
            let mut damaged = last;
            damaged[at..at + 128].fill(0);
            current(last).check(&damaged)
        });
        let is_older = |state: &HeaderState| matches!(state, HeaderState::OlderSlotDamaged(h) if **h == last);
        assert!(found.iter().any(is_older), "the last commit but one");
        assert!(found.iter().any(|state| is_damaged(state, &last)), "the last commit");
        let mut damaged = last;
        damaged[0] ^= 1;
        let HeaderState::Damaged(repaired) = stale(earlier).check(&damaged) else { panic!("it is damaged") };
        assert_eq!((repaired[0], last_commit(&repaired)), (last[0], last_commit(&last)));
    }

    #[test]
    fn an_error_of_the_file_is_not_one_of_its_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.redb");
        run(&path);
        let copy = fs::read(path_of(&path)).unwrap();
        let mut damaged = copy.clone();
        damaged[40] ^= 1;
        fs::write(path_of(&path), damaged).unwrap();
        assert!(matches!(check_header(&path), Ok(HeaderState::Unknown(_))), "the copy does not verify");
        fs::write(path_of(&path), copy).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(check_header(&path).unwrap_err().kind(), Kind::Io);
    }
}
