//! A second copy of one table of the small records, as a log of its changes, in a file of its own.
//!
//! The one idea: a change is flushed here before it is committed there, so a copy that verifies lacks nothing that was
//! acknowledged, and what was lost of the table is brought back from it. The byte table is in `docs/internals/store-format.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::change::Change;
use crate::error::{Error, Kind, Result};
use crate::storage::files::log::{Log, Replay, log_number};
use crate::storage::files::{Files, remove_if_present};
use crate::storage::le_bytes::{u16_at, u32_at};

/// Begins every checksum of these logs.
const SALT: [u8; 16] = *b"LKWSTOKENSLKWSTO";
/// In the place of a value's length: the record was deleted.
const DELETED: u32 = u32::MAX;
/// A log is not rewritten before it has as many bytes, and as many times those of the table.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
const REWRITE_FACTOR: u64 = 4;

/// The records of a table.
pub(crate) type Table = HashMap<Vec<u8>, Vec<u8>>;

/// A copy that takes changes.
#[derive(Debug)]
pub(crate) struct Mirror {
    place: Place,
    log: Log,
    /// Bytes of the whole table with which the log begins.
    snapshot_bytes: u64,
    /// A newer log may be complete that could not be removed: at the next start it would hold in the place of this one.
    is_stale: bool,
}

/// Where the copies of a table lie.
#[derive(Debug, Clone)]
struct Place {
    files: Arc<dyn Files>,
    dir: PathBuf,
    table: String,
}

/// A copy as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The number of its log.
    pub number: u64,
    /// Whether there is a mark of the log's end.
    pub is_marked: bool,
    /// Whether a crash left it before its first record was whole: it never held anything.
    pub is_empty: bool,
    /// The table, if the copy can be shown to be complete.
    pub table: Result<Table>,
}

impl Mirror {
    /// The copy that is there, and the table as it says; else a new one of `content`. Without a copy that can be written
    /// there is none at all: one that takes no changes would be believed later.
    ///
    /// # Errors
    /// `Format` for one of a newer version. `Io` if there is one that can be neither written nor removed.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        table: &str,
        content: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<(Option<Mirror>, Option<Table>)> {
        let place = Place { files, dir: dir.into(), table: table.into() };
        let mut held = None;
        match find(&*place.files, dir, table)? {
            Some(Found { table: Err(error), .. }) if error.kind() == Kind::Format => return Err(error),
            Some(Found { table: Err(error), is_empty: false, .. }) => warn(&error),
            Some(Found { number, table: Ok(found), .. }) => {
                match Log::open(&*place.files, &place.log(number), number, SALT) {
                    Ok((log, replay)) => {
                        let snapshot_bytes = replay.records.first().map_or(0, |first| first.len() as u64);
                        let mirror = Mirror { place, log, snapshot_bytes, is_stale: false };
                        mirror.remove_others();
                        return Ok((Some(mirror), Some(found)));
                    }
                    Err(error) => warn(&error),
                }
                held = Some(found);
            }
            Some(Found { table: Err(_), .. }) | None => {}
        }
        match content().and_then(|content| place.create(&content)) {
            Ok(mirror) => {
                mirror.remove_others();
                Ok((Some(mirror), held))
            }
            Err(error) => {
                warn(&error);
                place.remove(|_| true)?;
                Ok((None, held))
            }
        }
    }

    /// Adds changes: durable when this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: the copy is no longer complete, and must be discarded.
    pub(crate) fn append(&mut self, changes: &[&Change]) -> Result<()> {
        if self.is_stale {
            let message = "append to the copy of a table: a newer one cannot be removed";
            return Err(Error::new(Kind::Io, message).with("table", &self.place.table));
        }
        self.log.append(&encode(changes.iter().map(|change| (&change.key[..], change.value.as_deref()))))
    }

    /// Whether it is worth rewriting.
    pub(crate) fn is_long(&self) -> bool {
        self.log.bytes() > REWRITE_BYTES_MIN.max(REWRITE_FACTOR * self.snapshot_bytes)
    }

    /// Puts a copy of `content` in the place of this one.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: this one still holds; if it does not, the next append says so.
    pub(crate) fn rewrite(&mut self, content: &[u8]) -> Result<()> {
        match self.place.create(content) {
            Ok(mirror) => {
                *self = mirror;
                self.remove_others();
                Ok(())
            }
            Err(error) => {
                let number = self.log.number();
                // It may be complete all the same, and would lack what is appended here from now on.
                self.is_stale = self.place.remove(|other| other != number).inspect_err(warn).is_err();
                Err(error)
            }
        }
    }

    /// Removes the copy for good.
    ///
    /// # Errors
    /// `Io`: it may be there at the next start, and would lack changes.
    pub(crate) fn discard(&self) -> Result<()> {
        self.place.remove(|_| true)
    }

    /// Makes the mark of its end survive a loss of power.
    pub(crate) fn close(&mut self) {
        self.log.close();
    }

    /// Removes copies that were replaced by this one, or never became whole. What stays is removed at the next start.
    fn remove_others(&self) {
        let number = self.log.number();
        if let Err(error) = self.place.remove(|other| other != number) {
            tracing::warn!(%error, "a copy of a table that was replaced by a newer one cannot be removed yet");
        }
    }
}

impl Place {
    fn log(&self, number: u64) -> PathBuf {
        path_of(&self.dir, &self.table, number)
    }

    /// A new copy, durable when this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: it may be there all the same.
    fn create(&self, content: &[u8]) -> Result<Mirror> {
        let highest = numbers(&*self.files, &self.dir, &self.table)?.last().copied().unwrap_or(0);
        let number = highest.saturating_add(1);
        let mut log = Log::create(&*self.files, &self.log(number), number, SALT)?;
        log.append(content)?;
        let io = |error| Error::io("cannot flush the folder of the records", error);
        self.files.sync_dir(&self.dir).map_err(io)?;
        let snapshot_bytes = content.len() as u64;
        Ok(Mirror { place: self.clone(), log, snapshot_bytes, is_stale: false })
    }

    /// Removes the copies of some numbers for good. The lowest goes first: the highest that is left holds.
    ///
    /// # Errors
    /// `Io`: some may be there at the next start.
    fn remove(&self, is_chosen: impl Fn(u64) -> bool) -> Result<()> {
        let io = |error| Error::io("cannot remove the copy of a table", error).with("table", &self.table);
        let listed = self.files.list(&self.dir).map_err(io)?;
        let mut chosen: Vec<(u64, PathBuf)> = listed
            .iter()
            .filter_map(|file| {
                let what = file.name.strip_prefix(&self.table)?.strip_prefix('.')?;
                Some((log_number(what)?, self.dir.join(&file.name)))
            })
            .filter(|&(number, _)| is_chosen(number))
            .collect();
        chosen.sort_unstable();
        for (_, path) in &chosen {
            remove_if_present(&*self.files, path).map_err(io)?;
        }
        // Also where nothing was left to remove: a removal before may not be durable yet.
        self.files.sync_dir(&self.dir).map_err(io)
    }
}

/// The copy of a table, if there is one. Changes nothing.
///
/// # Errors
/// `Io` if the folder cannot be listed.
pub(crate) fn find(files: &dyn Files, dir: &Path, table: &str) -> Result<Option<Found>> {
    let mut emptied = None;
    for number in numbers(files, dir, table)?.into_iter().rev() {
        let path = path_of(dir, table, number);
        let corrupt = |what: &str| {
            Error::new(Kind::Corrupt, format!("the copy of a table {what}")).with("path", path.display())
        };
        let bad = |is_empty, error| Found { number, is_marked: true, is_empty, table: Err(error) };
        let read = Log::read(files, &path, number, &SALT).and_then(|(replay, mark)| Ok((replay, mark?)));
        let (replay, mark) = match read {
            Ok(read) => read,
            Err(error) => return Ok(Some(bad(false, error))),
        };
        if replay.damaged == 0 && replay.records.is_empty() {
            // A crash came before the table was in it.
            emptied.get_or_insert(bad(true, corrupt("is empty")));
            continue;
        }
        let is_marked = mark.is_some();
        let table = if replay.damaged > 0 || (replay.torn_bytes > 0 && !is_marked) {
            Err(corrupt("does not verify"))
        } else {
            table_of(&replay).ok_or_else(|| corrupt("holds what no writer wrote"))
        };
        return Ok(Some(Found { number, is_marked, is_empty: false, table }));
    }
    Ok(emptied)
}

fn table_of(replay: &Replay) -> Option<Table> {
    let mut table = Table::new();
    replay.records.iter().try_for_each(|record| apply(record, &mut table))?;
    Some(table)
}

/// Where the log of a copy lies.
pub(crate) fn path_of(dir: &Path, table: &str, number: u64) -> PathBuf {
    dir.join(format!("{table}.{number:010}.log"))
}

/// Records as they lie in the log: the length of the key (2), the key, the length of the value (4), the value.
pub(crate) fn encode<'a>(records: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Vec<u8> {
    let mut bytes = vec![0];
    records.for_each(|(key, value)| push(&mut bytes, key, value));
    bytes
}

/// Adds a record to what [`encode`] has begun.
pub(crate) fn push(bytes: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
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
fn numbers(files: &dyn Files, dir: &Path, table: &str) -> Result<Vec<u64>> {
    let listed = files.list(dir).map_err(|error| {
        Error::io("cannot list the folder of the records", error).with("path", dir.display())
    })?;
    let number = |name: &str| -> Option<u64> {
        let number = name.strip_prefix(table)?.strip_prefix('.')?.strip_suffix(".log")?.parse().ok()?;
        // Others are not our names.
        (path_of(dir, table, number) == dir.join(name)).then_some(number)
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
    use crate::storage::files::log::mark_path;
    use crate::storage::files::recording::{Arrived, Fault, Image, RecordingFiles};

    const TABLE: &str = "tokens";

    fn change(key: &[u8], value: Option<&[u8]>) -> Change {
        Change { table: TABLE.into(), key: key.into(), value: value.map(Into::into) }
    }

    fn encoded(table: &Table) -> Vec<u8> {
        encode(table.iter().map(|(key, value)| (&key[..], Some(&value[..]))))
    }

    fn first_table() -> Table {
        Table::from([(b"a".to_vec(), b"1".to_vec())])
    }

    fn dir() -> &'static Path {
        Path::new("/r")
    }

    fn open(files: &RecordingFiles) -> (Mirror, Option<Table>) {
        let content = || Ok(encoded(&first_table()));
        let (mirror, held) = Mirror::open(Arc::new(files.clone()), dir(), TABLE, content).unwrap();
        (mirror.unwrap(), held)
    }

    fn found(files: &RecordingFiles) -> Option<Table> {
        find(files, dir(), TABLE).unwrap().and_then(|found| found.table.ok())
    }

    fn names(files: &RecordingFiles) -> Vec<String> {
        files.list(dir()).unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn a_copy_holds_what_was_written_to_it_also_after_a_rewrite() {
        let files = RecordingFiles::new();
        let (mut mirror, held) = open(&files);
        assert_eq!(held, None, "there was none");
        let changes = [change(b"b", Some(b"2")), change(b"a", None), change(b"", Some(b""))];
        mirror.append(&changes.iter().collect::<Vec<_>>()).unwrap();
        drop(mirror);
        let expected = Table::from([(b"b".to_vec(), b"2".to_vec()), (Vec::new(), Vec::new())]);
        let (mut mirror, held) = open(&files);
        assert_eq!(held, Some(expected.clone()));
        mirror.rewrite(&encoded(&expected)).unwrap();
        assert_eq!(names(&files), ["tokens.0000000002.end", "tokens.0000000002.log"]);
        mirror.discard().unwrap();
        assert_eq!(names(&files), [""; 0]);
    }

    /// A crash within a rewrite leaves a log without a whole record; it is removed, and the next rewrite works.
    #[test]
    fn a_rewrite_that_a_crash_interrupted_is_taken_back() {
        for left in [&b""[..], &[9; 40]] {
            let files = RecordingFiles::new();
            drop(open(&files));
            let mut image = files.live_image();
            image.insert(path_of(dir(), TABLE, 2), left.into());
            image.insert(mark_path(&path_of(dir(), TABLE, 2)), vec![0; 64]);
            let files = RecordingFiles::from_image(&image);
            let (mut mirror, held) = open(&files);
            assert_eq!(held, Some(first_table()));
            assert_eq!(names(&files), ["tokens.0000000001.end", "tokens.0000000001.log"]);
            mirror.rewrite(&encoded(&first_table())).unwrap();
            assert_eq!(found(&files), Some(first_table()));
        }
    }

    #[test]
    fn a_first_log_without_a_record_is_no_damage_and_is_replaced() {
        let files = RecordingFiles::from_image(&Image::from([(path_of(dir(), TABLE, 1), Vec::new())]));
        assert!(find(&files, dir(), TABLE).unwrap().unwrap().is_empty);
        open(&files);
        assert_eq!(names(&files), ["tokens.0000000002.end", "tokens.0000000002.log"]);
    }

    #[test]
    fn a_long_log_is_still_long_after_it_was_opened_again() {
        let files = RecordingFiles::new();
        let (mut mirror, _) = open(&files);
        assert!(!mirror.is_long());
        mirror.append(&[&change(b"b", Some(&vec![7; REWRITE_BYTES_MIN as usize]))]).unwrap();
        assert!(mirror.is_long());
        drop(mirror);
        assert!(open(&files).0.is_long());
    }

    /// What the writer of the records does with a copy. Gives back the tables that may be found afterwards.
    fn run(files: &RecordingFiles) -> Vec<Table> {
        let mut table = first_table();
        let content = encoded(&table);
        let opened = Mirror::open(Arc::new(files.clone()), dir(), TABLE, || Ok(content));
        let Ok((mut mirror, _)) = opened else { return vec![table] };
        for n in 0..4_u8 {
            let before = table.clone();
            table.insert(b"a".to_vec(), vec![n]);
            if let Some(copy) = &mut mirror {
                if n % 2 == 1 {
                    let _ = copy.rewrite(&encoded(&before));
                }
                if copy.append(&[&change(b"a", Some(&[n]))]).is_err() {
                    if copy.discard().is_err() {
                        // The write fails, and so does every one behind it.
                        return vec![before, table];
                    }
                    mirror = None;
                }
            }
        }
        vec![table]
    }

    /// Whatever fails, and whenever the power does: a copy that verifies lacks nothing that was acknowledged.
    #[test]
    fn no_failure_leaves_a_copy_that_verifies_and_lacks_a_change() {
        let first = RecordingFiles::new();
        drop(open(&first));
        let mut copies = 0;
        for base in [Image::new(), first.live_image()] {
            let whole = RecordingFiles::from_image(&base);
            run(&whole);
            for (call, fault, count) in (0..whole.calls()).flat_map(|call| {
                [Fault::Io, Fault::Full]
                    .into_iter()
                    .flat_map(move |fault| [1, 2, 3, 1000].map(|count| (call, fault, count)))
            }) {
                let files = RecordingFiles::from_image(&base);
                files.fail_at(call, fault, count);
                let expected = run(&files);
                let point = files.crash_point();
                let images = (0..=point.pending_names()).flat_map(|names| {
                    [Arrived::Nothing, Arrived::All]
                        .map(|arrived| point.image(&vec![arrived; point.pending().len()], names))
                });
                for image in images.chain([files.live_image()]) {
                    let table = found(&RecordingFiles::from_image(&image));
                    let is_right = table.as_ref().is_none_or(|table| expected.contains(table));
                    assert!(
                        is_right,
                        "call {call}, {count} x {fault:?}: {table:?} is found, {expected:?} may be"
                    );
                    copies += usize::from(table.is_some());
                }
            }
        }
        assert!(copies > 500, "{copies} copies were found");
    }

    #[test]
    fn a_damaged_or_shortened_copy_is_none() {
        let files = RecordingFiles::new();
        let (mut mirror, _) = open(&files);
        (0..3_u8).for_each(|n| mirror.append(&[&change(&[n], Some(&[n; 20]))]).unwrap());
        drop(mirror);
        let image = files.live_image();
        let path = path_of(dir(), TABLE, 1);
        let with = |bytes: Vec<u8>| {
            let mut image = image.clone();
            image.insert(path.clone(), bytes);
            RecordingFiles::from_image(&image)
        };
        for at in 0..image[&path].len() {
            let mut damaged = image[&path].clone();
            damaged[at] ^= 1;
            assert_eq!(found(&with(damaged)), None, "byte {at}");
            assert_eq!(found(&with(image[&path][..at].to_vec())), None, "{at} bytes");
        }
        let files = with(image[&path][..30].to_vec());
        let (_, held) = open(&files);
        assert_eq!(held, None, "it is written again");
        assert_eq!(found(&files), Some(first_table()));
    }
}
