//! What a node announces of itself.

use serde::{Deserialize, Serialize};

/// What a node is and has, as it announces it. What a program of another version leaves out is zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeReport {
    /// The address at which other nodes reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    pub(super) version: String,
    /// Seconds since 1970.
    pub(super) started_at: u32,
    pub(super) numbers: NodeNumbers,
    /// The last event of each shard that it has applied.
    pub(super) positions: Vec<u64>,
    /// Events in Redis that it has not applied, if that is known.
    pub(super) events_behind: Option<u64>,
    /// All changes of other nodes that are older are applied.
    pub(super) behind_ms: u64,
    /// Changes of its own that wait.
    pub(super) outbox: u64,
}

/// The part of it that other modules measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeNumbers {
    /// Entries in memory.
    pub entries: u64,
    /// Their bytes.
    pub memory_bytes: u64,
    /// Collections.
    pub collections: u64,
    /// As `likewise_load_ratio`.
    pub load_ratio: f64,
}

impl NodeReport {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a report is made of plain values: this is a bug")
    }

    /// The report of another node; an empty one for bytes that are none.
    pub(super) fn decode(bytes: &[u8]) -> NodeReport {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_and_one_of_another_version_is_read_as_far_as_it_goes() {
        let numbers = NodeNumbers { entries: 1, memory_bytes: 2, collections: 3, load_ratio: 0.5 };
        let report = NodeReport { version: "1".into(), numbers, positions: vec![7], ..NodeReport::default() };
        assert_eq!(NodeReport::decode(&report.encode()), report);
        let of_other = NodeReport::decode(br#"{"version":"2","shape":"round","numbers":{"entries":4}}"#);
        assert_eq!((of_other.version.as_str(), of_other.numbers.entries, of_other.address), ("2", 4, None));
        assert_eq!(NodeReport::decode(b"\xff"), NodeReport::default());
    }
}
