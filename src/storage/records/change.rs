//! A change of the small records.

/// One change of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table's name; a table begins with its first record.
    pub table: String,
    /// The record's key.
    pub key: Vec<u8>,
    /// What is put there, or `None` to delete it.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// Puts a record.
    pub fn put(table: &str, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Change {
        Change { table: table.into(), key: key.into(), value: Some(value) }
    }

    /// Deletes a record, if it is there.
    pub fn delete(table: &str, key: impl Into<Vec<u8>>) -> Change {
        Change { table: table.into(), key: key.into(), value: None }
    }

    /// What it takes of the queue of changes.
    pub(crate) fn bytes(&self) -> usize {
        self.table.len() + self.key.len() + self.value.as_ref().map_or(0, Vec::len) + size_of::<Change>()
    }
}
