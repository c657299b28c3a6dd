//! Ids of documents that have none: UUIDs of version 7 (RFC 9562, section 5.7), so that they are in the order of their creation.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Kind, Result};
use crate::sync::lock;

/// Bits of a UUID behind its time, without those of version and variant.
const COUNTER_BITS: u32 = 74;
/// A new counter leaves its first bit to the ids of the same millisecond.
const COUNTER_START_MAX: u128 = COUNTER_MAX >> 1;
/// The last counter of a millisecond.
const COUNTER_MAX: u128 = (1 << COUNTER_BITS) - 1;

/// Makes ids. Each is greater than the one before, also if the clock is set back.
#[derive(Debug, Default)]
pub(super) struct DocumentIds(Mutex<LastId>);

/// What the last id was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct LastId {
    unix_ms: u64,
    counter: u128,
}

impl DocumentIds {
    /// New ids, in their order.
    ///
    /// # Errors
    /// `Io` if the system has no random numbers.
    pub(super) fn take(&self, count: usize) -> Result<Vec<String>> {
        // A clock before 1970 reads as 1970; the ids are unique all the same.
        let unix_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
        self.take_at(unix_ms, count)
    }

    fn take_at(&self, unix_ms: u64, count: usize) -> Result<Vec<String>> {
        let mut last = lock(&self.0);
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            *last = if unix_ms > last.unix_ms {
                LastId { unix_ms, counter: random_counter()? }
            } else if last.counter < COUNTER_MAX {
                LastId { counter: last.counter + 1, ..*last }
            } else {
                LastId { unix_ms: last.unix_ms + 1, counter: random_counter()? }
            };
            ids.push(uuid(*last));
        }
        Ok(ids)
    }
}

/// Where the counter of a millisecond starts.
fn random_counter() -> Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(Kind::Io, "cannot draw the id of a document").source(std::io::Error::from(error))
    })?;
    Ok(u128::from_le_bytes(bytes) & COUNTER_START_MAX)
}

/// 48 bits of time, the version, 12 bits of the counter, the variant, 62 bits of the counter.
fn uuid(last: LastId) -> String {
    let time = u128::from(last.unix_ms & ((1 << 48) - 1)) << 80;
    let (high, low) = (last.counter >> 62 & 0xfff, last.counter & ((1 << 62) - 1));
    let bits = time | 7 << 76 | high << 64 | 0b10 << 62 | low;
    let digits = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (from, to) in [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)] {
        let dash = if from > 0 { "-" } else { "" };
        let _ = write!(text, "{dash}{}", &digits[from..to]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_greater_than_the_one_before_also_if_the_clock_is_set_back() {
        let ids = DocumentIds::default();
        let mut taken = Vec::new();
        for unix_ms in [5_000, 5_000, 4_000, 5_001, 1, 1_800_000_000_000] {
            taken.extend(ids.take_at(unix_ms, 3).unwrap());
        }
        assert!(taken.is_sorted_by(|one, two| one < two), "{taken:?}");
        assert!(ids.take(1).unwrap()[0] > taken[17], "and after the clock has caught up");
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        let ids = DocumentIds::default().take_at(0x0123_4567_89ab, 1).unwrap();
        let [time, time_low, version, variant, node] =
            ids[0].split('-').collect::<Vec<_>>()[..].try_into().unwrap();
        assert_eq!((time, time_low, &version[..1]), ("01234567", "89ab", "7"));
        assert!(version.len() == 4 && variant.len() == 4 && node.len() == 12, "{}", ids[0]);
        assert!(matches!(&variant[..1], "8" | "9" | "a" | "b"), "{}", ids[0]);
    }

    #[test]
    fn a_full_counter_goes_on_in_the_next_millisecond() {
        let full = LastId { unix_ms: 7, counter: COUNTER_MAX };
        let ids = DocumentIds(Mutex::new(full));
        let next = ids.take_at(7, 2).unwrap();
        assert!(uuid(full) < next[0] && next[0] < next[1], "{next:?}");
    }
}
