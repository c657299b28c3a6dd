//! What an entry weighs against the budget: what the allocator takes for it, not what it contains.

use std::sync::Arc;

use crate::domain::{Entry, Key, TagToken};

/// Two counters in front of what an `Arc` holds.
const ARC_BYTES: usize = 16;

/// The table's slot of an entry: key, pointer, links and hash, at the load that tables have after doubling, and the
/// ghost of an entry that was pushed out.
const SLOT_BYTES: usize = 2 * (size_of::<Key>() + size_of::<Arc<Entry>>() + 24);

/// Bytes of the budget that an entry takes.
pub(super) fn of(entry: &Entry) -> u64 {
    let tags = entry.meta.tags.len() * size_of::<TagToken>();
    let blocks = [
        ARC_BYTES + size_of::<Entry>(),
        ARC_BYTES + entry.value.len(),
        if tags == 0 { 0 } else { tags },
        // Entries may share the name of their type; few do after they were on the disk.
        if entry.meta.content_type.is_empty() { 0 } else { ARC_BYTES + entry.meta.content_type.len() },
    ];
    (SLOT_BYTES + blocks.into_iter().map(block_bytes).sum::<usize>()) as u64
}

/// What mimalloc takes for a block: its size class, and the block's part of what lies free between blocks.
///
/// Size classes are eight bytes apart up to 64 bytes, and four to each doubling after that (`_mi_bin` in mimalloc's
/// `src/page-queue.c`). What lies free is measured, not known: under the loads of `make bench NAME=memory` the resident
/// set was 7 to 9 % past the size classes of small blocks, and 19 to 27 % past those of blocks that have pages of half a
/// MiB and more (mimalloc 3.3.2, 2026-11-23, AMD EPYC, 2 threads).
fn block_bytes(bytes: usize) -> usize {
    match bytes {
        0..=64 => bytes.next_multiple_of(8),
        _ => {
            let class = bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2));
            class + if bytes <= SMALL_BYTES_MAX { class / 16 } else { class / 4 }
        }
    }
}

/// The longest block that mimalloc puts into its smallest pages (`MI_SMALL_MAX_OBJ_SIZE`).
const SMALL_BYTES_MAX: usize = 10 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_weigh_their_size_class_and_a_part_of_what_is_free() {
        let bytes = [0, 1, 8, 9, 64, 65, 80, 81, 97, 128, 129, 160, 1000, 1025, 100_000];
        let weights = [0, 8, 8, 16, 64, 85, 85, 102, 119, 136, 170, 170, 1088, 1360, 143_360];
        assert_eq!(bytes.map(block_bytes), weights);
    }
}
