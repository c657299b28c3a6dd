//! What can be configured about the store of vectors.

use serde::{Deserialize, Serialize};

use super::segment::{HEADER_BYTES, SEGMENT_BYTES_MAX};
use crate::error::{Error, Kind, Result};
use crate::storage::files::ReadMode;

/// What an acknowledged write has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It survives the loss of power: it was flushed to the device before it was acknowledged.
    Sync,
    /// It survives the death of the process; a power cut takes at most the last flush interval.
    #[default]
    Async,
}

/// Options of the store of vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What an acknowledgement promises, unless the writer asks for another durability.
    pub durability: Durability,
    /// Length of a segment file; at most 1 GiB.
    pub segment_bytes: u64,
    /// What segments and index files may take on the disk together; at least four segments.
    pub bytes_max: u64,
    /// Under `async`, the longest time that an acknowledged write stays unflushed.
    pub flush_interval_ms: u64,
    /// How long a group of writes waits for more before it is committed. Writes that arrive during a commit share the
    /// next one in any case, so that zero is right unless a flush is much dearer than the wait; at most 2.
    pub group_commit_ms: u64,
    /// Bytes of slots that wait for the writer; who brings more waits for room.
    pub queue_bytes_max: u64,
    /// How slots are read.
    pub read: ReadMode,
    /// How fast sealed segments are read in the background to find rot before a reader does; zero turns it off.
    pub scrub_bytes_per_second: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Async,
            segment_bytes: 32 << 20,
            bytes_max: 16 << 30,
            flush_interval_ms: 1000,
            group_commit_ms: 0,
            queue_bytes_max: 64 << 20,
            read: ReadMode::Mmap,
            scrub_bytes_per_second: 1 << 20,
        }
    }
}

impl Options {
    /// Checks every value against its range.
    ///
    /// Errors: `Config`, naming the key, its value and the range.
    pub fn validate(&self) -> Result<()> {
        let segment_min = HEADER_BYTES as u64 + 128;
        in_range("segment_bytes", self.segment_bytes, segment_min, SEGMENT_BYTES_MAX)?;
        in_range("bytes_max", self.bytes_max, self.segment_bytes.saturating_mul(4), u64::MAX)?;
        in_range("flush_interval_ms", self.flush_interval_ms, 1, 3_600_000)?;
        in_range("group_commit_ms", self.group_commit_ms, 0, 2)?;
        in_range("queue_bytes_max", self.queue_bytes_max, 4096, u64::from(u32::MAX))
    }
}

fn in_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let range = if max == u64::MAX { format!("at least {min}") } else { format!("{min} to {max}") };
    Err(Error::new(Kind::Config, format!("cache.disk.{key} must be {range}, got {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_wrong_value_is_named() {
        assert!(Options::default().validate().is_ok());
        let error = Options { group_commit_ms: 3, ..Options::default() }.validate().unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(
            error.to_string().contains("group_commit_ms")
                && error.to_string().contains("must be 0 to 2, got 3")
        );
    }
}
