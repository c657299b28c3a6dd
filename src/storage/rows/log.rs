//! The write-ahead log of a store of rows: what was acknowledged and is in no segment yet.
//!
//! Records are appended and flushed; none is written twice. The byte table is in `docs/store-format.md`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::Salt;
use crate::error::{Error, Kind, Result};
use crate::storage::fields::u32_at;
use crate::storage::files::{Files, StoredFile, read_all};

/// Length (4), CRC-32C (4).
const HEAD_BYTES: usize = 8;
/// The longest log that is read.
const LOG_BYTES_MAX: u64 = 8 << 30;
/// Lengths that must lead to each other where a record is looked for behind a damaged one.
const CHAINED_RECORDS: usize = 3;

/// A log that takes records.
#[derive(Debug)]
pub(super) struct Log {
    file: Arc<dyn StoredFile>,
    number: u64,
    salt: Salt,
    end: u64,
}

/// What a log held.
#[derive(Debug, Default)]
pub struct Replay {
    /// The bodies of its good records, in order.
    pub records: Vec<Bytes>,
    /// Places in the middle that hold no good record.
    pub damaged: u64,
    /// Bytes after the last good record: what was being written when the process or the machine died.
    pub torn_bytes: u64,
}

impl Log {
    /// A new, empty log, flushed. Its name is durable once its directory is.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub(super) fn create(files: &dyn Files, path: &Path, number: u64, salt: Salt) -> Result<Log> {
        let file = files.create(path, 0).map_err(|error| Error::io("create a log", error))?;
        Ok(Log { file, number, salt, end: 0 })
    }

    /// Reads a log. What follows its last good record is overwritten by the next one.
    ///
    /// # Errors
    /// `Io`, also if there is none: its name was durable before anything was acknowledged in it.
    pub(super) fn open(files: &dyn Files, path: &Path, number: u64, salt: Salt) -> Result<(Log, Replay)> {
        let failed = |error| Error::io("read a log", error).with("path", path.display());
        let (replay, end) = Log::read(files, path, number, &salt)?;
        let file = files.open(path).map_err(failed)?;
        if replay.torn_bytes > 0 {
            // Records that were torn must not come to life behind new ones.
            let zeros = vec![0; replay.torn_bytes as usize];
            file.write_all_at(&zeros, end as u64).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        Ok((Log { file, number, salt, end: end as u64 }, replay))
    }

    /// What a log holds, and where its last good record ends. Changes nothing.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub(super) fn read(files: &dyn Files, path: &Path, number: u64, salt: &Salt) -> Result<(Replay, usize)> {
        let failed = |error| Error::io("read a log", error).with("path", path.display());
        let bytes = Bytes::from(read_all(files, path, LOG_BYTES_MAX).map_err(failed)?);
        Ok(replay(&bytes, number, salt))
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of its records.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends a record; it is durable when this returns. After an error nothing is known of it.
    ///
    /// Cost: one write, one flush.
    pub(super) fn append(&mut self, body: &[u8]) -> Result<()> {
        let failed = |error| Error::io("append to a log", error);
        let length = u32::try_from(body.len())
            .map_err(|_| Error::new(Kind::TooLarge, "a record of a log has less than 4 GiB"))?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(checksum(self.number, &self.salt, self.end, body).to_le_bytes());
        bytes.extend_from_slice(body);
        self.file.write_all_at(&bytes, self.end).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// The good records, and where the last of them ends.
fn replay(bytes: &Bytes, number: u64, salt: &Salt) -> (Replay, usize) {
    let good = |at: usize| {
        record_at(bytes, at)
            .filter(|(body, _)| Some(checksum(number, salt, at as u64, body)) == u32_at(bytes, at + 4))
    };
    let zeros_from = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count();
    let mut replay = Replay::default();
    let (mut at, mut end) = (0, 0);
    loop {
        while let Some((body, next)) = good(at) {
            replay.records.push(body);
            (at, end) = (next, next);
        }
        // A bad record with a good one behind it was damaged later; without one it was never complete. Its own length may be
        // what is damaged.
        let by_length = record_at(bytes, at).map(|(_, next)| next).filter(|&next| good(next).is_some());
        let behind =
            || (at + 1..zeros_from).find(|&at| is_chained(bytes, zeros_from, at) && good(at).is_some());
        let Some(next) = by_length.or_else(behind) else { break };
        replay.damaged += 1;
        at = next;
    }
    if bytes[end..].iter().any(|&byte| byte != 0) {
        replay.torn_bytes = (bytes.len() - end) as u64;
    }
    (replay, end)
}

/// Whether lengths that lead to each other begin at `at`: hardly any bytes do by chance, and only then a checksum is worth its
/// time.
fn is_chained(bytes: &Bytes, zeros_from: usize, at: usize) -> bool {
    let mut at = at;
    for _ in 0..CHAINED_RECORDS {
        match next_of(bytes, at) {
            None => return false,
            Some(next) if next >= zeros_from => return true,
            Some(next) => at = next,
        }
    }
    true
}

/// The record at `at`, by its own word, and where the next one begins.
fn record_at(bytes: &Bytes, at: usize) -> Option<(Bytes, usize)> {
    let next = next_of(bytes, at)?;
    Some((bytes.slice(at + HEAD_BYTES..next), next))
}

fn next_of(bytes: &Bytes, at: usize) -> Option<usize> {
    let length = u32_at(bytes, at)? as usize;
    (at + HEAD_BYTES).checked_add(length).filter(|&next| length > 0 && next <= bytes.len())
}

/// With the place in it, so that a record found elsewhere does not hold.
fn checksum(number: u64, salt: &Salt, at: u64, body: &[u8]) -> u32 {
    let mut place = [0; 32];
    place[..16].copy_from_slice(salt);
    place[16..24].copy_from_slice(&number.to_le_bytes());
    place[24..].copy_from_slice(&at.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::recording::RecordingFiles;

    #[test]
    fn a_flipped_bit_takes_one_record_whichever_byte_it_is_in() {
        let (files, path, salt) = (RecordingFiles::new(), Path::new("/log"), [3; 16]);
        let mut log = Log::create(&files, path, 1, salt).unwrap();
        let bodies: Vec<Vec<u8>> = (1..9_u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        bodies.iter().for_each(|body| log.append(body).unwrap());
        let whole = read_all(&files, path, LOG_BYTES_MAX).unwrap();
        let last = whole.len() - HEAD_BYTES - bodies[7].len();
        for bit in 0..whole.len() * 8 {
            for zeros in [0, 4096] {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes.resize(whole.len() + zeros, 0);
                let (replay, end) = replay(&bytes.into(), 1, &salt);
                assert_eq!(replay.records.len(), 7, "bit {bit}");
                assert!(replay.records.iter().all(|record| bodies.contains(&record.to_vec())));
                let is_last = bit / 8 >= last;
                assert_eq!(
                    (replay.damaged, end),
                    if is_last { (0, last) } else { (1, whole.len()) },
                    "bit {bit}"
                );
            }
        }
    }
}
