//! A write-ahead log: changes that were acknowledged and are not written elsewhere yet.
//!
//! Records are appended and flushed; none is written twice. Beside the log lies the mark of its end, which says how much
//! of it was acknowledged: what does not verify before that is damaged, and stays where it is; what lies behind it was
//! being written when the process or the machine died. The byte tables are in `docs/internals/store-format.md`.

mod replay;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use replay::Replay;

use self::replay::{HEAD_BYTES, checksum, replay};
use super::end_mark::{self, EndMark, Owner};
use super::{Files, StoredFile, publish, read_all};
use crate::error::{Error, Kind, Result};

/// The longest log that is read.
const LOG_BYTES_MAX: u64 = 8 << 30;
/// What the name of the mark of a log's end ends with.
pub(crate) const MARK: &str = "end";
/// What the names of files end with that hold what did not verify of a log.
pub(crate) const DAMAGED_SUFFIX: &str = "damaged";
/// Different contents of one place of a log of which there are copies at the same time.
const COPIES_MAX: u32 = 8;

/// A log that takes records.
#[derive(Debug)]
pub(crate) struct Log {
    file: Arc<dyn StoredFile>,
    owner: Owner,
    end: u64,
    /// Missing only if it could not be created.
    mark: Option<EndMark>,
}

impl Log {
    /// A new, empty log, flushed. Its name is durable once its directory is.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub(crate) fn create(files: &dyn Files, path: &Path, number: u64, salt: [u8; 16]) -> Result<Log> {
        let file = files.create(path, 0).map_err(|error| Error::io("cannot create a log", error))?;
        let owner = Owner { number, salt };
        let mark = create_mark(files, path, owner);
        Ok(Log { file, owner, end: 0, mark })
    }

    /// Reads a log. What does not verify of it is copied aside, if there is room. The next record goes where what was
    /// acknowledged ends.
    ///
    /// # Errors
    /// `Io`, also if there is none: its name was durable before anything was acknowledged in it.
    pub(crate) fn open(files: &dyn Files, path: &Path, number: u64, salt: [u8; 16]) -> Result<(Log, Replay)> {
        let failed = |error| Error::io("cannot read a log", error).with("path", path.display());
        let owner = Owner { number, salt };
        let acknowledged = match end_mark::read(files, &mark_path(path), owner) {
            Err(error) if error.kind() == Kind::Format => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the end of a log is where its last good record ends");
                None
            }
            Ok(acknowledged) => acknowledged,
        };
        let bytes = bytes_of(files, path)?;
        let replay = replay(&bytes, owner, acknowledged);
        for gap in &replay.gaps {
            // Nothing of it is overwritten: it stays in the log too.
            copy_aside(files, path, &bytes, gap);
        }
        let file = files.open(path).map_err(failed)?;
        if replay.torn_bytes > 0 {
            let torn = replay.end..bytes.len();
            copy_aside(files, path, &bytes, &torn);
            // Records that were torn must not be replayed behind new ones.
            let zeros = vec![0; torn.len()];
            file.write_all_at(&zeros, torn.start as u64).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        let mut mark = match acknowledged {
            Some(_) => EndMark::open(files, &mark_path(path), owner).ok(),
            None => create_mark(files, path, owner),
        };
        let end = replay.end as u64;
        if acknowledged != Some(end)
            && let Some(mark) = &mut mark
        {
            // A process that was killed may have written the last record without flushing it.
            file.sync_data().map_err(failed)?;
            mark.set(end);
        }
        Ok((Log { file, owner, end, mark }, replay))
    }

    /// What a log holds, and what the mark of its end says. Changes nothing.
    ///
    /// # Errors
    /// As [`Log::open`]; of the mark as [`end_mark::read`].
    pub(crate) fn read(
        files: &dyn Files,
        path: &Path,
        number: u64,
        salt: &[u8; 16],
    ) -> Result<(Replay, Result<Option<u64>>)> {
        let owner = Owner { number, salt: *salt };
        let mark = end_mark::read(files, &mark_path(path), owner);
        let acknowledged = mark.as_ref().ok().copied().flatten();
        Ok((replay(&bytes_of(files, path)?, owner, acknowledged), mark))
    }

    pub(crate) fn number(&self) -> u64 {
        self.owner.number
    }

    /// Bytes of its records.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends a record; it is durable when this returns. After an error nothing is known of it.
    ///
    /// Cost: one write, one flush, and one write of the mark.
    pub(crate) fn append(&mut self, body: &[u8]) -> Result<()> {
        let failed = |error| Error::io("cannot append to a log", error);
        let length = u32::try_from(body.len())
            .map_err(|_| Error::new(Kind::TooLarge, "a record of a log has less than 4 GiB"))?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(checksum(self.owner, self.end, body).to_le_bytes());
        bytes.extend_from_slice(body);
        self.file.write_all_at(&bytes, self.end).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        self.end += bytes.len() as u64;
        if let Some(mark) = &mut self.mark {
            mark.set(self.end);
        }
        Ok(())
    }

    /// Makes the mark of the end survive a loss of power.
    pub(crate) fn close(&mut self) {
        if let Some(mark) = &mut self.mark {
            mark.sync();
        }
    }
}

/// Where the mark of a log's end lies.
pub(crate) fn mark_path(log: &Path) -> PathBuf {
    log.with_extension(MARK)
}

/// A log without its mark is as good, but that damage at its end is taken for a write that was cut off.
fn create_mark(files: &dyn Files, log: &Path, owner: Owner) -> Option<EndMark> {
    let created = EndMark::create(files, &mark_path(log), owner);
    created.inspect_err(|error| tracing::warn!(%error, "the mark of a log's end cannot be created")).ok()
}

fn bytes_of(files: &dyn Files, path: &Path) -> Result<Bytes> {
    let failed = |error| Error::io("cannot read a log", error).with("path", path.display());
    Ok(Bytes::from(read_all(files, path, LOG_BYTES_MAX).map_err(failed)?))
}

/// The number of the log to which a file belongs whose name ends with `what`: the log itself, its mark, or a copy of damaged
/// bytes.
pub(crate) fn log_number(what: &str) -> Option<u64> {
    match what.split_once('.')? {
        (number, "log" | MARK) => number.parse().ok(),
        (place, kind) if kind.strip_suffix(".tmp").unwrap_or(kind) == DAMAGED_SUFFIX => {
            place.split_once('-')?.0.parse().ok()
        }
        _ => None,
    }
}

/// Copies a part of a log that does not verify into a file beside it, unless an earlier start has.
///
/// A copy that cannot be written is no reason to refuse the log: a full disk cut off the write that is to be copied.
fn copy_aside(files: &dyn Files, log: &Path, bytes: &[u8], part: &Range<usize>) {
    // Of a part that was cut off with its file nothing is left.
    let content = bytes.get(part.start..part.end.min(bytes.len())).unwrap_or_default();
    let (Some(dir), Some(stem)) = (log.parent(), log.file_stem()) else { return };
    let place = format!("{}-{}", stem.to_string_lossy(), part.start);
    if let Err(error) = copy_content(files, dir, &place, content) {
        let (log, bytes) = (log.display(), content.len());
        tracing::warn!(%error, %log, bytes, "a part of a log that does not verify cannot be copied");
    }
}

/// A copy of other content at the same place stays: a crash while that was overwritten leaves less of it in the log.
fn copy_content(files: &dyn Files, dir: &Path, place: &str, content: &[u8]) -> io::Result<()> {
    if content.is_empty() {
        return Ok(());
    }
    for copy in 0..COPIES_MAX {
        let place = if copy == 0 { place.to_owned() } else { format!("{place}-{copy}") };
        let name = format!("{place}.{DAMAGED_SUFFIX}");
        match read_all(files, &dir.join(&name), LOG_BYTES_MAX) {
            Ok(copied) if copied == content => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return publish(files, dir, &name, content);
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "there are too many copies of this place"))
}
