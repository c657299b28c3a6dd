//! The names of tiers, as data: metrics, headers, options and statistics take theirs from here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::labels::label_enum;

label_enum! {
    /// The name of a tier in headers, metrics and statistics. Ordered from the fastest to the slowest.
    #[derive(PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum TierName {
        /// The memory of this process.
        Memory = "memory",
        /// The files of this node.
        Disk = "disk",
        /// The Redis or Valkey that nodes share.
        Redis = "redis",
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
