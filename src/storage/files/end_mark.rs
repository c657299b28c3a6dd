//! How far a file holds what was acknowledged, written beside it: what does not verify before that place is damaged, and
//! only what lies behind it may be a write that a crash cut off.
//!
//! The mark is written after the bytes it covers were flushed, and is not flushed itself until the file is closed: it costs
//! no flush for each write. So it may be older than the file after a loss of power, and never covers more than the
//! file had. It fits into one sector, so a crash leaves one mark or another, never a mixture.
//!
//! The byte table is in `docs/internals/store-format.md` and changes together with this file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Files, StoredFile, read_all, remove_if_present};
use crate::error::{Error, Kind, Result};
use crate::storage::le_bytes::{array_at, has_valid_trailer, push_trailer, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"LKWSENDS";
const VERSION: u32 = 1;
/// Length of a mark.
const MARK_BYTES: usize = 64;

/// Which file a mark belongs to: its number, and the salt of its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub number: u64,
    pub salt: [u8; 16],
}

/// The mark of a file that is being written.
#[derive(Debug)]
pub(crate) struct EndMark {
    file: Arc<dyn StoredFile>,
    owner: Owner,
    /// Whether it was set since it was flushed last.
    is_dirty: bool,
    /// Set by the first write that failed: what the mark holds is unknown from then on.
    has_failed: bool,
}

impl EndMark {
    /// A mark in the place of whatever has its name. It says nothing until it is set.
    pub(crate) fn create(files: &dyn Files, path: &Path, owner: Owner) -> io::Result<EndMark> {
        remove_if_present(files, path)?;
        let file = files.create(path, MARK_BYTES as u64)?;
        Ok(EndMark { file, owner, is_dirty: false, has_failed: false })
    }

    /// The mark that is there, to be set.
    pub(crate) fn open(files: &dyn Files, path: &Path, owner: Owner) -> io::Result<EndMark> {
        Ok(EndMark { file: files.open(path)?, owner, is_dirty: false, has_failed: false })
    }

    /// Notes that what lies before `end` was acknowledged; it must have been flushed.
    ///
    /// Cost: one write of 64 bytes, no flush.
    pub(crate) fn set(&mut self, end: u64) {
        if self.has_failed {
            return;
        }
        self.is_dirty = true;
        if let Err(error) = self.file.write_all_at(&encode(self.owner, end), 0) {
            self.has_failed = true;
            tracing::warn!(%error, "the mark of a file's end cannot be written; the file itself is as it should be");
        }
    }

    /// Makes the mark survive a loss of power. A failure costs no more than the mark.
    pub(crate) fn sync(&mut self) {
        if std::mem::take(&mut self.is_dirty)
            && !self.has_failed
            && let Err(error) = self.file.sync_data()
        {
            tracing::warn!(%error, "the mark of a file's end cannot be flushed");
        }
    }
}

/// Where what was acknowledged ends, if the mark at `path` says so. `None` if there is no mark, or nothing in it: the file
/// was written by a version without marks, or a crash came before the first one.
///
/// # Errors
/// `Corrupt` for a mark that does not verify or belongs to another file, `Format` for a newer one, `Io`.
pub(crate) fn read(files: &dyn Files, path: &Path, owner: Owner) -> Result<Option<u64>> {
    match read_all(files, path, MARK_BYTES as u64) {
        Ok(bytes) if bytes.iter().all(|&byte| byte == 0) => Ok(None),
        Ok(bytes) => decode(&bytes, owner).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(corrupt("it is too long")),
        Err(error) => Err(Error::io("cannot read the mark of a file's end", error)),
    }
    .map_err(|error| error.with("path", path.display()))
}

fn encode(owner: Owner, end: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MARK_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(owner.salt);
    bytes.extend(owner.number.to_le_bytes());
    bytes.extend(end.to_le_bytes());
    bytes.resize(MARK_BYTES - 4, 0);
    push_trailer(&mut bytes);
    bytes
}

fn decode(bytes: &[u8], owner: Owner) -> Result<u64> {
    if bytes.len() != MARK_BYTES || array_at(bytes, 0) != Some(MAGIC) || !has_valid_trailer(bytes) {
        return Err(corrupt("its checksum does not hold"));
    }
    match u32_at(bytes, 8) {
        Some(VERSION) => {}
        version => {
            let message = "the mark of a file's end has another version than this program reads";
            return Err(Error::new(Kind::Format, message).with("version", version.unwrap_or_default()));
        }
    }
    if (u64_at(bytes, 32), array_at(bytes, 16)) != (Some(owner.number), Some(owner.salt)) {
        return Err(corrupt("it belongs to another file"));
    }
    u64_at(bytes, 40).ok_or_else(|| corrupt("it ends early"))
}

fn corrupt(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("cannot read the mark of a file's end: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::files::recording::RecordingFiles;

    const OWNER: Owner = Owner { number: 7, salt: [3; 16] };

    #[test]
    fn a_mark_is_read_as_it_was_set_and_nothing_else_is() {
        let (files, path) = (RecordingFiles::new(), Path::new("/a.end"));
        assert_eq!(read(&files, path, OWNER).unwrap(), None);
        let mut mark = EndMark::create(&files, path, OWNER).unwrap();
        assert_eq!(read(&files, path, OWNER).unwrap(), None, "a crash came before it was set");
        mark.set(1234);
        mark.set(5678);
        assert_eq!(read(&files, path, OWNER).unwrap(), Some(5678));
        for other in [Owner { number: 8, ..OWNER }, Owner { salt: [4; 16], ..OWNER }] {
            assert_eq!(read(&files, path, other).unwrap_err().kind(), Kind::Corrupt);
        }
        let whole = encode(OWNER, 5678);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged, OWNER).unwrap_err().kind(), Kind::Corrupt, "byte {at}");
            assert_eq!(decode(&whole[..at], OWNER).unwrap_err().kind(), Kind::Corrupt, "{at} bytes");
        }
        let mut newer = whole[..MARK_BYTES - 4].to_vec();
        newer[8] = 2;
        push_trailer(&mut newer);
        assert_eq!(decode(&newer, OWNER).unwrap_err().kind(), Kind::Format);
    }
}
