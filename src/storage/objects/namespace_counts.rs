//! How many objects each namespace has, without reading the disk.

use std::collections::HashMap;

use crate::domain::NamespaceId;

/// The objects of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceCount {
    /// The namespace.
    pub id: NamespaceId,
    /// Its objects, ended ones that were not removed yet included.
    pub entries: u64,
    /// What they take of the budget.
    pub bytes: u64,
}

/// Counts by namespace. Rows name a namespace by a number of four bytes, which is free again once its last row has left.
#[derive(Debug, Default)]
pub(super) struct NamespaceCounts {
    numbers: HashMap<NamespaceId, u32>,
    counts: Vec<NamespaceCount>,
    unused: Vec<u32>,
}

impl NamespaceCounts {
    /// Counts one more row. Returns the number of its namespace.
    pub(super) fn enter(&mut self, id: NamespaceId) -> u32 {
        let NamespaceCounts { numbers, counts, unused } = self;
        let number = *numbers.entry(id).or_insert_with(|| {
            let count = NamespaceCount { id, entries: 0, bytes: 0 };
            if let Some(number) = unused.pop() {
                counts[number as usize] = count;
                return number;
            }
            counts.push(count);
            u32::try_from(counts.len() - 1).expect("there are fewer namespaces than rows: this is a bug")
        });
        self.counts[number as usize].entries += 1;
        number
    }

    /// Replaces the bytes that a row takes.
    pub(super) fn resize(&mut self, number: u32, before: u64, after: u64) {
        let count = &mut self.counts[number as usize];
        count.bytes = count.bytes + after - before;
    }

    /// Counts one row less. Returns its namespace.
    pub(super) fn leave(&mut self, number: u32, bytes: u64) -> NamespaceId {
        let count = &mut self.counts[number as usize];
        count.bytes -= bytes;
        count.entries -= 1;
        let id = count.id;
        if count.entries == 0 {
            self.numbers.remove(&id);
            self.unused.push(number);
        }
        id
    }

    pub(super) fn id(&self, number: u32) -> NamespaceId {
        self.counts[number as usize].id
    }

    /// The namespaces that have rows, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &NamespaceCount> {
        self.counts.iter().filter(|count| count.entries > 0)
    }
}
