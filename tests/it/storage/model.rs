//! Goal: the store behaves like a map with a clock. Method: random operations on it and on a `BTreeMap`, with a clock
//! that is turned by hand, on the recording twin; 10,000 cases.

use std::collections::BTreeMap;
use std::path::Path;

use likewise::storage::files::recording::RecordingFiles;
use likewise::storage::{Durability, VectorStore};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{Fixture, entry, key, small_options, version_of, wait};

const DIR: &str = "/d";
const KEYS: u64 = 10;

#[derive(Debug, Clone)]
enum Operation {
    Put {
        keys: Vec<u64>,
        is_sync: bool,
        lives: u32,
    },
    Get {
        key: u64,
    },
    Remove {
        key: u64,
    },
    Wait {
        seconds: u32,
    },
    Flush,
    Scrub,
    Reopen,
    /// Opens a second store from what a killed process would leave.
    Kill,
}

fn operation() -> impl Strategy<Value = Operation> {
    let keys = prop::collection::vec(0..KEYS, 1..6);
    prop_oneof![
        8 => (keys, any::<bool>(), 1..200_u32)
            .prop_map(|(keys, is_sync, lives)| Operation::Put { keys, is_sync, lives }),
        6 => (0..KEYS).prop_map(|key| Operation::Get { key }),
        1 => (0..KEYS).prop_map(|key| Operation::Remove { key }),
        2 => (1..40_u32).prop_map(|seconds| Operation::Wait { seconds }),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Scrub),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Kill),
    ]
}

/// What the map knows of a key.
#[derive(Debug, Clone, Copy)]
struct Known {
    version: u64,
    expires: u32,
    /// Removed in memory: a restart may bring it back.
    is_removed: bool,
    /// A restart has happened since: it may be there or not.
    is_unsure: bool,
}

struct Oracle {
    map: BTreeMap<u64, Known>,
    version: u64,
    now: u32,
}

impl Oracle {
    fn check(&self, store: &VectorStore, n: u64) {
        let found = store.get(&key(n)).unwrap().map(|found| version_of(&found));
        match self.map.get(&n) {
            Some(known) if known.expires <= self.now => assert_eq!(found, None, "key {n} has expired"),
            Some(known) if known.is_unsure => assert!(found.is_none() || found == Some(known.version)),
            Some(known) if known.is_removed => assert_eq!(found, None, "key {n} was removed"),
            Some(known) => assert_eq!(found, Some(known.version), "key {n}"),
            None => assert_eq!(found, None, "key {n} was never put"),
        }
    }

    fn restart(&mut self) {
        self.map.values_mut().for_each(|known| known.is_unsure |= known.is_removed);
    }
}

fn run(operations: &[Operation]) {
    let files = RecordingFiles::new();
    let mut fixture = Fixture::new(files.clone(), small_options(5, 128));
    let mut store = fixture.open(Path::new(DIR)).unwrap().0;
    let mut oracle = Oracle { map: BTreeMap::new(), version: 0, now: 1000 };
    for operation in operations {
        match operation {
            Operation::Put { keys, is_sync, lives } => {
                let expires = oracle.now + lives;
                let mut entries = Vec::new();
                for &n in keys {
                    oracle.version += 1;
                    // The model is part of a key, so each key has its length.
                    let payload_bytes = if n % 3 == 0 { 20 } else { 60 };
                    entries.push((key(n), entry(oracle.version, payload_bytes, expires)));
                    let known =
                        Known { version: oracle.version, expires, is_removed: false, is_unsure: false };
                    oracle.map.insert(n, known);
                }
                let durability = if *is_sync { Durability::Sync } else { Durability::Async };
                wait(store.put_many(entries, Some(durability))).unwrap();
            }
            Operation::Get { key } => oracle.check(&store, *key),
            Operation::Remove { key: n } => {
                store.remove(&key(*n));
                if let Some(known) = oracle.map.get_mut(n) {
                    (known.is_removed, known.is_unsure) = (true, false);
                }
            }
            Operation::Wait { seconds } => {
                oracle.now += seconds;
                fixture.clock.advance(*seconds);
            }
            Operation::Flush => wait(store.flush()).unwrap(),
            Operation::Scrub => assert_eq!(store.scrub().bad_slots, 0),
            Operation::Reopen => {
                drop(store);
                store = fixture.open(Path::new(DIR)).unwrap().0;
                oracle.restart();
            }
            Operation::Kill => {
                let image = files.live_image();
                let other = RecordingFiles::from_image(&image);
                let killed = std::mem::replace(&mut fixture.files, std::sync::Arc::new(other));
                let reopened = fixture.open(Path::new(DIR)).unwrap();
                assert_eq!(reopened.1.bad_slots, 0);
                oracle.restart();
                (0..KEYS).for_each(|n| oracle.check(&reopened.0, n));
                fixture.files = killed;
            }
        }
    }
    (0..KEYS).for_each(|n| oracle.check(&store, n));
    assert_eq!(fixture.metrics.corrupt_slots.get(), 0);
}

#[test]
fn the_store_agrees_with_a_map() {
    let config = Config { cases: 10_000, failure_persistence: None, ..Config::default() };
    // A fixed seed: a failure here is the same failure on the next machine.
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[42; 32]);
    let mut runner = TestRunner::new_with_rng(config, random);
    let operations = prop::collection::vec(operation(), 1..30);
    runner
        .run(&operations, |operations| {
            run(&operations);
            Ok(())
        })
        .unwrap();
}
