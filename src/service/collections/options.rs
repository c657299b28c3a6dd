//! The options of collections.

use serde::{Deserialize, Serialize};

/// What one request may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Results of one query.
    pub k_max: usize,
    /// Queries of one request.
    pub queries_max: usize,
    /// Documents of one request that writes or removes.
    pub documents_max: usize,
    /// Numbers that a vector may have.
    pub dimensions_max: usize,
    /// Bytes of the documents and vectors that one search finds, all queries together.
    pub result_bytes_max: usize,
    /// Nodes that a search may let a graph expand.
    pub ef_max: usize,
    /// The share of the searches by index that are run again exactly, to know what indexes find.
    pub recall_sample: f64,
    /// The share of the exact results below which there is a warning.
    pub recall_target: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            k_max: 1000,
            queries_max: 256,
            documents_max: 4096,
            dimensions_max: 8192,
            result_bytes_max: 64 << 20,
            ef_max: 8192,
            recall_sample: 0.005,
            recall_target: 0.95,
        }
    }
}
