//! The names of tags. Entries in memory have only hashes of them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::{InvalidationId, TagToken};

/// Tags whose names are held: at most 128 bytes each, so about 15 MB.
const NAMES_MAX: usize = 65_536;

/// The names of the tags that objects were stored with or found with, as far as they are known. If there are too many, all are
/// forgotten, and read from the disk again.
#[derive(Debug, Default)]
pub(super) struct TagNames(RwLock<HashMap<InvalidationId, Option<Arc<str>>>>);

impl TagNames {
    /// Notes the names of tags.
    pub(super) fn learn<'a>(&self, tags: impl IntoIterator<Item = (InvalidationId, &'a str)>) {
        for (tag, name) in tags {
            // Most are known, and reading delays no other request.
            if !matches!(self.read().get(&tag), Some(Some(_))) {
                self.write(tag, Some(name.into()));
            }
        }
    }

    /// Notes that no tier has a name of these tags, unless it is known by now.
    pub(super) fn give_up_on(&self, tags: &[TagToken]) {
        for TagToken { tag, .. } in tags {
            if !self.read().contains_key(tag) {
                self.write(*tag, None);
            }
        }
    }

    /// The names of these tags but for those that no tier has. `None` if one was not looked for yet.
    pub(super) fn of(&self, tags: &[TagToken]) -> Option<Vec<Arc<str>>> {
        if tags.is_empty() {
            return Some(Vec::new());
        }
        let names = self.read();
        let found: Option<Vec<_>> = tags.iter().map(|tag| names.get(&tag.tag).cloned()).collect();
        Some(found?.into_iter().flatten().collect())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<InvalidationId, Option<Arc<str>>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, tag: InvalidationId, name: Option<Arc<str>>) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_MAX && !names.contains_key(&tag) {
            names.clear();
        }
        names.insert(tag, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(ids: &[u64]) -> Vec<TagToken> {
        ids.iter().map(|id| TagToken { tag: InvalidationId(*id), token: 1 }).collect()
    }

    fn names(known: &TagNames, ids: &[u64]) -> Option<Vec<String>> {
        Some(known.of(&tokens(ids))?.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn names_are_known_once_they_were_looked_for() {
        let known = TagNames::default();
        assert_eq!(names(&known, &[1]), None);
        known.learn([(InvalidationId(1), "a"), (InvalidationId(2), "b")]);
        assert_eq!(names(&known, &[2, 1]).unwrap(), ["b", "a"]);
        assert_eq!(names(&known, &[1, 3]), None);
        known.give_up_on(&tokens(&[1, 3]));
        assert_eq!(names(&known, &[1, 3]).unwrap(), ["a"]);
        known.learn([(InvalidationId(3), "c")]);
        assert_eq!(names(&known, &[1, 3]).unwrap(), ["a", "c"]);
    }

    #[test]
    fn only_so_many_names_are_held() {
        let known = TagNames::default();
        for id in 0..=NAMES_MAX as u64 {
            known.learn([(InvalidationId(id), "a")]);
        }
        assert_eq!(known.read().len(), 1);
    }
}
