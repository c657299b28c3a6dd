//! The custom ids that were seen, by their hashes: files may have millions of lines.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::cli::short_hash::{ShortHash, short_hash};

/// Ids with the numbers of their lines. Costs 24 bytes, and what a table adds, for each.
#[derive(Debug, Default)]
pub(super) struct CustomIds(HashMap<ShortHash, usize>);

impl CustomIds {
    /// Adds the id of a line; returns the line that has it already.
    pub(super) fn insert(&mut self, id: &str, line: usize) -> Option<usize> {
        match self.0.entry(short_hash([id])) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(place) => {
                place.insert(line);
                None
            }
        }
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.contains_key(&short_hash([id]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_line_that_had_it_first() {
        let mut ids = CustomIds::default();
        assert_eq!((ids.insert("a", 1), ids.insert("b", 2), ids.insert("a", 3)), (None, None, Some(1)));
        assert!(ids.contains("b") && !ids.contains("c"));
    }
}
