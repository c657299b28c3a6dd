//! A second copy of one table of the small records, as a log of its changes, in a file of its own.
//!
//! The one idea: a change is flushed here before it is committed there, so a copy that verifies lacks nothing that was
//! acknowledged, and what was lost of the table is brought back from it. The byte table is in `docs/store-format.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::fields::{u16_at, u32_at};
use super::files::{Files, OsFiles, remove_if_present};
use super::log::{Log, Replay, mark_path};
use super::records::Change;
use crate::error::{Error, Kind, Result};

/// Begins every checksum of these logs.
const SALT: [u8; 16] = *b"LKWSTOKENSLKWSTO";
/// In the place of a value's length: the record was deleted.
const DELETED: u32 = u32::MAX;
/// A log is not written anew before it has as many bytes, and as many times those of the table.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
const REWRITE_FACTOR: u64 = 4;

/// The records of a table.
pub(super) type Table = HashMap<Vec<u8>, Vec<u8>>;

/// A copy that takes changes.
#[derive(Debug)]
pub(super) struct Mirror {
    dir: PathBuf,
    table: String,
    log: Log,
    /// Bytes of the whole table with which the log begins.
    begins_with: u64,
}

/// A copy as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The number of its log.
    pub number: u64,
    /// Whether there is a mark of the log's end.
    pub is_marked: bool,
    /// The table, if the copy can be shown to be complete.
    pub table: Result<Table>,
}

impl Mirror {
    /// The copy that is there, and the table as it says; else a new one of `content`.
    ///
    /// # Errors
    /// `Format` for one of a newer version. Otherwise a copy that cannot be written is none.
    pub(super) fn open(
        dir: &Path,
        table: &str,
        content: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<(Option<Mirror>, Option<Table>)> {
        let found = find(dir, table)?;
        let next = found.as_ref().map_or(1, |found| found.number + 1);
        match found {
            Some(Found { table: Err(error), .. }) if error.kind() == Kind::Format => return Err(error),
            Some(Found { number, table: Ok(held), .. }) => {
                let path = path_of(dir, table, number);
                match Log::open(&OsFiles, &path, number, SALT) {
                    Ok((log, _)) => {
                        let mirror =
                            Mirror { dir: dir.into(), table: table.into(), begins_with: log.bytes(), log };
                        mirror.remove_others();
                        return Ok((Some(mirror), Some(held)));
                    }
                    Err(error) => warn(&error),
                }
            }
            Some(Found { table: Err(error), .. }) => warn(&error),
            None => {}
        }
        let created = content().and_then(|content| Mirror::create(dir, table, next, &content));
        Ok((created.inspect_err(warn).ok(), None))
    }

    fn create(dir: &Path, table: &str, number: u64, content: &[u8]) -> Result<Mirror> {
        let path = path_of(dir, table, number);
        let mut log = Log::create(&OsFiles, &path, number, SALT)?;
        log.append(content)?;
        OsFiles.sync_dir(dir).map_err(|error| Error::io("flush the folder of the records", error))?;
        let mirror = Mirror { dir: dir.into(), table: table.into(), begins_with: log.bytes(), log };
        mirror.remove_others();
        Ok(mirror)
    }

    /// Adds changes: durable when this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: the copy is no longer complete, and must be discarded.
    pub(super) fn append(&mut self, changes: &[&Change]) -> Result<()> {
        self.log.append(&encode(changes.iter().map(|change| (&change.key[..], change.value.as_deref()))))
    }

    /// Whether it is worth writing anew.
    pub(super) fn is_long(&self) -> bool {
        self.log.bytes() > REWRITE_BYTES_MIN.max(REWRITE_FACTOR * self.begins_with)
    }

    /// Puts a copy of `content` in the place of this one.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: this one still holds.
    pub(super) fn rewrite(&mut self, content: &[u8]) -> Result<()> {
        *self = Mirror::create(&self.dir, &self.table, self.log.number() + 1, content)?;
        Ok(())
    }

    /// Removes the copy for good.
    ///
    /// # Errors
    /// `Io`: it may be there at the next start, and would lack changes.
    pub(super) fn discard(&self) -> Result<()> {
        let io = |error| Error::io("remove the copy of a table", error).with("table", &self.table);
        remove_if_present(&OsFiles, &path_of(&self.dir, &self.table, self.log.number())).map_err(io)?;
        OsFiles.sync_dir(&self.dir).map_err(io)
    }

    /// Makes the mark of its end survive a loss of power.
    pub(super) fn close(&mut self) {
        self.log.close();
    }

    /// Removes copies that this one has outlived. What stays is removed at the next start.
    fn remove_others(&self) {
        let others = numbers(&self.dir, &self.table).unwrap_or_default();
        for number in others.into_iter().filter(|&number| number < self.log.number()) {
            let path = path_of(&self.dir, &self.table, number);
            let removed = remove_if_present(&OsFiles, &path)
                .and_then(|()| remove_if_present(&OsFiles, &mark_path(&path)));
            if let Err(error) = removed {
                tracing::warn!(%error, "a copy of a table that was outlived cannot be removed yet");
            }
        }
    }
}

/// The copy of a table, if there is one. Changes nothing.
///
/// # Errors
/// `Io` if the folder cannot be listed.
pub(super) fn find(dir: &Path, table: &str) -> Result<Option<Found>> {
    let mut emptied = None;
    for number in numbers(dir, table)?.into_iter().rev() {
        let path = path_of(dir, table, number);
        let corrupt = |what: &str| {
            Error::new(Kind::Corrupt, format!("the copy of a table {what}")).with("path", path.display())
        };
        let read = Log::read(&OsFiles, &path, number, &SALT).and_then(|(replay, mark)| Ok((replay, mark?)));
        let (replay, mark) = match read {
            Ok(read) => read,
            Err(error) => return Ok(Some(Found { number, is_marked: true, table: Err(error) })),
        };
        if replay.damaged == 0 && replay.records.is_empty() {
            // A crash came while the one before it was written anew.
            emptied.get_or_insert(Found { number, is_marked: true, table: Err(corrupt("is empty")) });
            continue;
        }
        let is_marked = mark.is_some();
        let table = if replay.damaged > 0 || (replay.torn_bytes > 0 && !is_marked) {
            Err(corrupt("does not verify"))
        } else {
            table_of(&replay).ok_or_else(|| corrupt("holds what no writer wrote"))
        };
        return Ok(Some(Found { number, is_marked, table }));
    }
    Ok(emptied)
}

fn table_of(replay: &Replay) -> Option<Table> {
    let mut table = Table::new();
    replay.records.iter().try_for_each(|record| apply(record, &mut table))?;
    Some(table)
}

/// Where the log of a copy lies.
pub(super) fn path_of(dir: &Path, table: &str, number: u64) -> PathBuf {
    dir.join(format!("{table}.{number:010}.log"))
}

/// Records as they lie in the log: the length of the key (2), the key, the length of the value (4), the value.
pub(super) fn encode<'a>(records: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Vec<u8> {
    let mut bytes = vec![0];
    records.for_each(|(key, value)| push(&mut bytes, key, value));
    bytes
}

/// Adds a record to what [`encode`] has begun.
pub(super) fn push(bytes: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    bytes.extend((key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(key);
    bytes.extend(value.map_or(DELETED, |value| value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(value.unwrap_or_default());
}

/// Makes the changes of a record of the log; `None` if it is none.
fn apply(record: &[u8], table: &mut Table) -> Option<()> {
    let (&first, mut rest) = record.split_first()?;
    while !rest.is_empty() {
        let (key, after) = rest.get(2..)?.split_at_checked(usize::from(u16_at(rest, 0)?))?;
        let length = u32_at(after, 0)?;
        rest = after.get(4..)?;
        if length == DELETED {
            table.remove(key);
        } else {
            let (value, after) = rest.split_at_checked(length as usize)?;
            table.insert(key.to_vec(), value.to_vec());
            rest = after;
        }
    }
    // A later version may write records of another kind.
    (first == 0).then_some(())
}

/// The numbers of the logs of a table's copies, ascending.
fn numbers(dir: &Path, table: &str) -> Result<Vec<u64>> {
    let listed = OsFiles
        .list(dir)
        .map_err(|error| Error::io("list the folder of the records", error).with("path", dir.display()))?;
    let number = |name: &str| -> Option<u64> {
        name.strip_prefix(table)?.strip_prefix('.')?.strip_suffix(".log")?.parse().ok()
    };
    let mut numbers: Vec<u64> = listed.iter().filter_map(|file| number(&file.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn warn(error: &Error) {
    tracing::warn!(%error, "the copy of a table of the records cannot be used");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "tokens";

    fn change(key: &[u8], value: Option<&[u8]>) -> Change {
        Change { table: TABLE.into(), key: key.into(), value: value.map(Into::into) }
    }

    fn open(dir: &Path) -> (Mirror, Option<Table>) {
        let content = encode([(&b"a"[..], Some(&b"1"[..]))].into_iter());
        let (mirror, held) = Mirror::open(dir, TABLE, || Ok(content)).unwrap();
        (mirror.unwrap(), held)
    }

    #[test]
    fn a_copy_holds_what_was_written_to_it_also_after_it_was_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (mut mirror, held) = open(dir.path());
        assert_eq!(held, None, "there was none");
        let changes = [change(b"b", Some(b"2")), change(b"a", None), change(b"", Some(b""))];
        mirror.append(&changes.iter().collect::<Vec<_>>()).unwrap();
        drop(mirror);
        let expected = Table::from([(b"b".to_vec(), b"2".to_vec()), (Vec::new(), Vec::new())]);
        let (mut mirror, held) = open(dir.path());
        assert_eq!(held, Some(expected.clone()));
        let content = encode(expected.iter().map(|(key, value)| (&key[..], Some(&value[..]))));
        mirror.rewrite(&content).unwrap();
        assert_eq!(numbers(dir.path(), TABLE).unwrap(), [2]);
        drop(mirror);
        // A crash while it was written anew.
        fs_err::write(path_of(dir.path(), TABLE, 3), [9; 40]).unwrap();
        let (mirror, held) = open(dir.path());
        assert_eq!(held, Some(expected));
        mirror.discard().unwrap();
        assert!(find(dir.path(), TABLE).unwrap().is_none_or(|found| found.table.is_err()));
    }

    #[test]
    fn a_damaged_or_shortened_copy_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (mut mirror, _) = open(dir.path());
        (0..3_u8).for_each(|n| mirror.append(&[&change(&[n], Some(&[n; 20]))]).unwrap());
        drop(mirror);
        let path = path_of(dir.path(), TABLE, 1);
        let whole = fs_err::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs_err::write(&path, damaged).unwrap();
            assert!(find(dir.path(), TABLE).unwrap().unwrap().table.is_err(), "byte {at}");
            fs_err::write(&path, &whole[..at]).unwrap();
            assert!(find(dir.path(), TABLE).unwrap().unwrap().table.is_err(), "{at} bytes");
        }
        let (_, held) = open(dir.path());
        assert_eq!(held, None, "it is made anew");
        assert!(find(dir.path(), TABLE).unwrap().unwrap().table.is_ok());
    }
}
