//! What both policies promise: the budget at every moment, no entry that thrashes, and for LRU its strict order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::domain::{Codec, KeyHasher, UnixSeconds};
use crate::metrics::unexported;

fn entry(bytes: usize) -> Arc<Entry> {
    let meta = EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER);
    Arc::new(Entry { meta, value: vec![0; bytes].into() })
}

fn key(n: u32) -> Key {
    KeyHasher::new("test").field(&n.to_le_bytes()).finish()
}

fn tier(eviction: Eviction, bytes_max: u64) -> MemoryTier {
    let options = MemoryOptions { budget: Budget::Bytes(bytes_max), eviction };
    MemoryTier::new(&options, &unexported()).unwrap()
}

#[test]
fn the_budget_holds_after_every_insert_and_when_it_is_moved() {
    for eviction in [Eviction::S3Fifo, Eviction::Lru] {
        // Two shards.
        let tier = tier(eviction, 32 * MIB);
        for n in 0..20_000 {
            tier.put(key(n), entry(500 + n as usize * 7 % 9_000));
            assert!(tier.stats().bytes <= 32 * MIB, "{eviction:?} after insert {n}: {:?}", tier.stats());
        }
        assert!(tier.stats().bytes > 28 * MIB, "{eviction:?}: {:?}", tier.stats());
        assert!(tier.get(&key(19_999)).is_some());
        tier.entries.set_budget(8 * MIB);
        assert!(tier.stats().bytes <= 8 * MIB, "{eviction:?}: {:?}", tier.stats());
        assert_eq!(tier.stats().bytes_max, 8 * MIB);
        let held = tier.count(&|_| true);
        assert!(held == tier.stats().entries && held > 1000);
    }
}

#[test]
fn an_entry_that_cannot_fit_pushes_nothing_out() {
    for eviction in [Eviction::S3Fifo, Eviction::Lru] {
        let tier = tier(eviction, 2 * MIB);
        (0..100).for_each(|n| tier.put(key(n), entry(1_000)));
        tier.put(key(7), entry(3 * 1024 * 1024));
        assert!(tier.get(&key(7)).is_none(), "what was under its key is gone");
        assert_eq!(tier.stats().entries, 99);
    }
}

#[test]
fn only_the_very_entry_is_removed() {
    for eviction in [Eviction::S3Fifo, Eviction::Lru] {
        let tier = tier(eviction, 2 * MIB);
        let (old, new) = (entry(10), entry(10));
        tier.put(key(1), Arc::clone(&new));
        tier.remove_same(&key(1), &old);
        assert!(tier.get(&key(1)).is_some());
        tier.remove_same(&key(1), &new);
        assert_eq!((tier.get(&key(1)), tier.stats().bytes), (None, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn lru_keeps_what_was_used_last(steps in prop::collection::vec((0..4_u8, 0..12_u32, 1..80_usize), 1..300)) {
        let tier = tier(Eviction::Lru, MIB);
        let mut oracle: VecDeque<(u32, u64)> = VecDeque::new();
        for (step, n, kib) in steps {
            let at = oracle.iter().position(|(held, _)| *held == n);
            let held = at.and_then(|at| oracle.remove(at));
            match step {
                0 => tier.remove(&key(n)),
                1 => {
                    prop_assert_eq!(tier.get(&key(n)).is_some(), held.is_some());
                    oracle.extend(held);
                }
                _ => {
                    let entry = entry(kib * 1024);
                    let bytes = weight::of(&entry);
                    tier.put(key(n), entry);
                    oracle.push_back((n, bytes));
                    while oracle.iter().map(|(_, bytes)| bytes).sum::<u64>() > MIB {
                        oracle.pop_front();
                    }
                }
            }
            prop_assert_eq!(tier.stats().bytes, oracle.iter().map(|(_, bytes)| bytes).sum::<u64>());
            prop_assert_eq!(tier.stats().entries, oracle.len() as u64);
        }
    }
}
