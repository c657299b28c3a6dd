//! What of a log verifies, and what is missing between.
//!
//! Each record has a checksum of its own, with its place in it. Where one does not hold, the next one that does is looked
//! for at every byte behind it, since the length that leads there may be what is damaged.

use std::ops::Range;

use bytes::Bytes;

use crate::storage::files::end_mark::Owner;
use crate::storage::files::range_checksums::RangeChecksums;
use crate::storage::le_bytes::u32_at;

/// Length (4), CRC-32C (4).
pub(super) const HEAD_BYTES: usize = 8;

/// What a log held.
#[derive(Debug, Default)]
pub struct Replay {
    /// The bodies of its good records, in order.
    pub records: Vec<Bytes>,
    /// Places that hold no good record, and were acknowledged.
    pub damaged: u64,
    /// Bytes behind them: what was being written when the process or the machine died.
    pub torn_bytes: u64,
    /// The damaged places. The last one may reach behind the end of the file, if that was cut off.
    pub(super) gaps: Vec<Range<usize>>,
    /// Where the next record goes.
    pub(super) end: usize,
}

/// The good records of a log of which the first `acknowledged` bytes are known to have been whole.
pub(super) fn replay(bytes: &Bytes, owner: Owner, acknowledged: Option<u64>) -> Replay {
    let mut replay = Replay::default();
    let mut finder = Finder { bytes, owner, checksums: None };
    let mut at = 0;
    loop {
        while let Some(next) = finder.good(at) {
            replay.records.push(bytes.slice(at + HEAD_BYTES..next));
            at = next;
        }
        replay.end = at;
        // A bad record with a good one behind it was damaged later.
        let Some(next) = finder.next_good(at) else { break };
        replay.gaps.push(at..next);
        at = next;
    }
    let acknowledged = acknowledged.and_then(|end| usize::try_from(end).ok()).unwrap_or_default();
    if acknowledged > replay.end {
        replay.gaps.push(replay.end..acknowledged);
        replay.end = acknowledged;
    }
    let rest = bytes.get(replay.end..).unwrap_or_default();
    if rest.iter().any(|&byte| byte != 0) {
        replay.torn_bytes = rest.len() as u64;
    }
    replay.damaged = replay.gaps.len() as u64;
    replay
}

struct Finder<'a> {
    bytes: &'a Bytes,
    owner: Owner,
    /// Made when they are first needed.
    checksums: Option<RangeChecksums<'a>>,
}

impl<'a> Finder<'a> {
    /// Where the good record at `at` ends, if there is one.
    fn good(&self, at: usize) -> Option<usize> {
        let next = next_of(self.bytes, at)?;
        let found = checksum(self.owner, at as u64, &self.bytes[at + HEAD_BYTES..next]);
        (u32_at(self.bytes, at + 4) == Some(found)).then_some(next)
    }

    /// Where the first good record behind the bad one at `at` begins.
    fn next_good(&mut self, at: usize) -> Option<usize> {
        // Its own length may be what is damaged; if it is not, it is soon found.
        if let Some(next) = next_of(self.bytes, at).filter(|&next| self.good(next).is_some()) {
            return Some(next);
        }
        let (bytes, owner) = (self.bytes, self.owner);
        let checksums: &RangeChecksums<'a> = self.checksums.get_or_insert_with(|| RangeChecksums::new(bytes));
        (at + 1..bytes.len()).find(|&at| {
            next_of(bytes, at).is_some_and(|next| {
                let found = checksums.append(place_checksum(owner, at as u64), at + HEAD_BYTES, next);
                u32_at(bytes, at + 4) == Some(found)
            })
        })
    }
}

/// Where the record at `at` ends, by its own length.
fn next_of(bytes: &[u8], at: usize) -> Option<usize> {
    let length = u32_at(bytes, at)? as usize;
    (at + HEAD_BYTES).checked_add(length).filter(|&next| length > 0 && next <= bytes.len())
}

/// With the place in it, so that a record found elsewhere does not hold.
pub(super) fn checksum(owner: Owner, at: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(place_checksum(owner, at), body)
}

fn place_checksum(owner: Owner, at: u64) -> u32 {
    let mut place = [0; 32];
    place[..16].copy_from_slice(&owner.salt);
    place[16..24].copy_from_slice(&owner.number.to_le_bytes());
    place[24..].copy_from_slice(&at.to_le_bytes());
    crc32c::crc32c(&place)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Log;
    use super::*;
    use crate::storage::files::read_all;
    use crate::storage::files::recording::RecordingFiles;

    const OWNER: Owner = Owner { number: 1, salt: [3; 16] };

    /// A log of eight records, and where each begins; the last place is its end.
    fn log() -> (Vec<u8>, Vec<Vec<u8>>, Vec<usize>) {
        let (files, path) = (RecordingFiles::new(), Path::new("/log"));
        let mut log = Log::create(&files, path, OWNER.number, OWNER.salt).unwrap();
        let bodies: Vec<Vec<u8>> = (1..9_u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        bodies.iter().for_each(|body| log.append(body).unwrap());
        let mut places = vec![0];
        places.extend(bodies.iter().scan(0, |at, body| {
            *at += HEAD_BYTES + body.len();
            Some(*at)
        }));
        (read_all(&files, path, 1 << 20).unwrap(), bodies, places)
    }

    fn found(replay: &Replay) -> Vec<Vec<u8>> {
        replay.records.iter().map(|record| record.to_vec()).collect()
    }

    #[test]
    fn a_flipped_bit_takes_one_record_whichever_byte_it_is_in() {
        let (whole, bodies, places) = log();
        let (last, end) = (places[7], places[8]);
        for bit in 0..whole.len() * 8 {
            for (zeros, mark) in [(0, None), (4096, None), (0, Some(end as u64)), (4096, Some(end as u64))] {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes.resize(whole.len() + zeros, 0);
                let replay = replay(&bytes.into(), OWNER, mark);
                assert_eq!(replay.records.len(), 7, "bit {bit}");
                assert!(found(&replay).iter().all(|record| bodies.contains(record)));
                // Without a mark nothing shows that the last record was ever whole.
                let is_torn = bit / 8 >= last && mark.is_none();
                let expected = if is_torn { (0, last) } else { (1, end) };
                assert_eq!((replay.damaged, replay.end), expected, "bit {bit}");
                assert_eq!(replay.torn_bytes > 0, is_torn, "bit {bit}");
            }
        }
    }

    #[test]
    fn any_number_of_bad_records_take_no_good_one_with_them() {
        let (whole, bodies, places) = log();
        // In the length, in the checksum, in the body.
        for at in [0, 5, HEAD_BYTES] {
            for bad in 0..1_u32 << bodies.len() {
                let mut bytes = whole.clone();
                let is_bad = |n: usize| bad >> n & 1 == 1;
                (0..bodies.len()).filter(|&n| is_bad(n)).for_each(|n| bytes[places[n] + at] ^= 0xA5);
                let replay = replay(&bytes.into(), OWNER, Some(whole.len() as u64));
                let good =
                    bodies.iter().enumerate().filter(|(n, _)| !is_bad(*n)).map(|(_, body)| body.clone());
                assert_eq!(found(&replay), good.collect::<Vec<_>>(), "{bad:b}, byte {at}");
                assert_eq!((replay.end, replay.torn_bytes), (whole.len(), 0));
                assert_eq!(replay.damaged == 0, bad == 0);
            }
        }
    }

    #[test]
    fn a_log_that_was_cut_short_is_damaged_and_goes_on_behind_its_mark() {
        let (whole, bodies, places) = log();
        let end = whole.len();
        for cut in 0..end {
            let bytes = Bytes::from(whole[..cut].to_vec());
            let marked = replay(&bytes, OWNER, Some(end as u64));
            let kept = places.iter().filter(|&&place| place <= cut).count() - 1;
            assert_eq!(found(&marked), bodies[..kept]);
            assert_eq!((marked.damaged, marked.end, marked.torn_bytes), (1, end, 0), "{cut} bytes");
            let unmarked = replay(&bytes, OWNER, None);
            assert_eq!((unmarked.damaged, unmarked.end), (0, places[kept]));
        }
        // What is behind the mark was being written.
        let mut longer = whole.clone();
        longer.extend([7; 100]);
        let torn = replay(&longer.into(), OWNER, Some(end as u64));
        assert_eq!((torn.damaged, torn.end, torn.torn_bytes), (0, end, 100));
        let older = replay(&whole.into(), OWNER, Some(places[3] as u64));
        assert_eq!((older.records.len(), older.damaged, older.end), (8, 0, end));
    }
}
