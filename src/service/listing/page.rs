//! Pages of entries.

use super::kind::EntryKind;
use crate::cache::{Position, ScanScope, ScannedEntry};
use crate::error::{Error, Result};

/// Entries that one page may have.
pub const ENTRIES_MAX: usize = 1000;

/// Which page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// Entries of the page at most.
    pub limit: usize,
    /// [`Page::next`] of the page before.
    pub after: Option<Position>,
}

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Its entries.
    pub entries: Vec<ListedEntry>,
    /// Records that were read for it.
    pub scanned: usize,
    /// Bytes that its entries take as they are sent, about.
    pub bytes: usize,
    /// Where the next page begins. `None` if this is the last one. A page that is not full may have a next one: it reads a bounded
    /// number of records.
    pub next: Option<Position>,
}

/// An entry that a lookup would serve.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedEntry {
    /// Names and metadata.
    pub entry: ScannedEntry,
    /// What it is.
    pub kind: EntryKind,
    /// Whether it would be served stale, while one request refreshes it.
    pub is_stale: bool,
    /// Seconds since it was stored.
    pub age_seconds: u32,
    /// Seconds until it expires.
    pub ttl_seconds: u32,
}

/// Bytes of an entry as it is sent, but for its names.
const ENTRY_BYTES: usize = 384;

impl ListedEntry {
    /// Bytes that the entry takes as it is sent, about.
    pub(super) fn bytes(&self) -> usize {
        let (names, meta) = (&self.entry.names, &self.entry.meta);
        let tags: usize = names.tags.iter().map(String::len).sum();
        ENTRY_BYTES + names.namespace.len() + names.key.len() + tags + meta.content_type.len()
    }
}

impl PageRequest {
    /// Refuses a limit out of range, and a position outside `scope`.
    pub(super) fn check(&self, scope: &ScanScope) -> Result<()> {
        if !(1..=ENTRIES_MAX).contains(&self.limit) {
            let message = format!("limit must be 1 to {ENTRIES_MAX}, got {}", self.limit);
            return Err(Error::invalid("limit", message));
        }
        if self.after.is_some_and(|after| !scope.contains(&after)) {
            let message = "after must be the next of an earlier page of the same listing";
            return Err(Error::invalid("after", message));
        }
        Ok(())
    }
}
