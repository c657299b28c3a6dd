//! The names of an entry as its client gave them. Everything else stores hashes of them.

use std::sync::Arc;

/// The names by which an entry is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryNames {
    /// The namespace, never an alias.
    pub namespace: Arc<str>,
    /// The key of an object; empty for an entry that its content identifies.
    pub key: String,
    /// The tags. Those that an entry inherits from the one it replaces have no name here.
    pub tags: Vec<String>,
}
