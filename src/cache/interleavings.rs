//! The orders in which threads can meet in this module, tried by a scheduler: single-flight, leases, invalidation, eviction.
//!
//! `cargo test --features shuttle --lib` runs these alone: with that feature the module's locks work only under the
//! scheduler. Each test runs under probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010), which finds any
//! bug that needs so many forced switches with a known probability a run.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use super::invalidation_tokens::{Bump, Mode, Standing, TokenHistory, TokenTable};
use super::memory::{Budget, Eviction, MemoryOptions, MemoryTier};
use super::{Claim, Leases, SingleFlight, Stamp};
use crate::domain::{Codec, Entry, EntryMeta, InvalidationId, Key, KeyHasher, NamespaceId, UnixSeconds};
use crate::metrics::unexported;

const RUNS: usize = 3_000;
/// Forced switches a run.
const DEPTH: usize = 3;
const TAG: InvalidationId = InvalidationId(1);
fn namespace() -> NamespaceId {
    NamespaceId::from_parts(InvalidationId(2), false)
}

fn key(n: u8) -> Key {
    KeyHasher::new("test").field(&[n]).finish()
}

fn entry(current: &TokenTable, stamp: Stamp, value: u64) -> Option<Arc<Entry>> {
    let tokens = current.admit(stamp, namespace(), &[TAG])?;
    let meta = EntryMeta {
        namespace: namespace(),
        epoch: tokens.epoch,
        tags: tokens.tags,
        ..EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER)
    };
    Some(Arc::new(Entry { meta, value: value.to_le_bytes().into() }))
}

fn memory(bytes_max: u64) -> Arc<MemoryTier> {
    let options = MemoryOptions { budget: Budget::Bytes(bytes_max), eviction: Eviction::Lru };
    Arc::new(MemoryTier::new(&options, &unexported()).unwrap())
}

fn join_all(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn one_leader_computes_and_every_follower_is_notified() {
    shuttle::check_pct(
        || {
            let flights = SingleFlight::<u64>::new();
            let (made, in_the_air) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let wants = |dies: bool| {
                let (flights, made, in_the_air) =
                    (Arc::clone(&flights), Arc::clone(&made), Arc::clone(&in_the_air));
                thread::spawn(move || {
                    let (landing, duty) = flights.join(key(1));
                    if let Some(duty) = duty {
                        assert_eq!(in_the_air.fetch_add(1, Ordering::SeqCst), 0, "two make one value");
                        thread::yield_now();
                        in_the_air.fetch_sub(1, Ordering::SeqCst);
                        if dies {
                            drop(duty);
                        } else {
                            duty.land(Ok(made.fetch_add(1, Ordering::SeqCst)));
                        }
                    }
                    // Every waiter hears of a value or of the death of its maker; a hang would be a deadlock here.
                    let heard = block_on(landing.wait());
                    assert!(heard.is_err() || heard.unwrap() < made.load(Ordering::SeqCst));
                })
            };
            join_all(vec![wants(false), wants(true), wants(false)]);
            assert!(flights.is_empty());
        },
        RUNS,
        DEPTH,
    );
}

#[test]
fn a_flight_is_abandoned_only_without_waiters() {
    shuttle::check_pct(
        || {
            let flights = SingleFlight::<u64>::new();
            let (first, duty) = flights.join(key(1));
            let mut duty = duty.unwrap();
            let leaves = thread::spawn(move || drop(first));
            let joins = {
                let flights = Arc::clone(&flights);
                thread::spawn(move || {
                    let (landing, duty) = flights.join(key(1));
                    // Either the old flight takes one more, or it was off the board and a new duty begins.
                    match duty {
                        None => drop(landing),
                        Some(duty) => duty.land(Ok(1)),
                    }
                })
            };
            block_on(duty.abandoned());
            drop(duty);
            join_all(vec![leaves, joins]);
            assert!(flights.is_empty());
        },
        RUNS,
        DEPTH,
    );
}

#[test]
fn a_lease_has_one_holder_and_its_end_wakes_all() {
    shuttle::check_pct(
        || {
            let leases = Arc::new(Leases::new(1));
            let holders = Arc::new(AtomicU64::new(0));
            let wants = || {
                let (leases, holders) = (Arc::clone(&leases), Arc::clone(&holders));
                thread::spawn(move || {
                    let lasts = Duration::from_secs(3600);
                    loop {
                        match leases.claim(key(1), lasts, Stamp::default()).unwrap() {
                            Claim::Granted(lease) => {
                                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold one lease");
                                leases.check(&key(1), lease).unwrap();
                                holders.fetch_sub(1, Ordering::SeqCst);
                                leases.end(&key(1));
                                assert!(leases.check(&key(1), lease).is_err());
                                return;
                            }
                            // If the end could be missed, this would be a deadlock.
                            Claim::Held(waiting) => block_on(waiting.woken()),
                        }
                    }
                })
            };
            join_all((0..3).map(|_| wants()).collect());
            assert!(leases.is_empty());
        },
        RUNS,
        DEPTH,
    );
}

#[test]
fn what_was_loaded_before_an_invalidation_is_not_served_after_it() {
    shuttle::check_pct(
        || {
            let version = TokenHistory::starting(7);
            let current = Arc::new(TokenTable::new(version, Default::default(), 8, false));
            let memory = memory(1 << 20);
            let origin = Arc::new(AtomicU64::new(0));
            let fills = || {
                let (current, memory, origin) =
                    (Arc::clone(&current), Arc::clone(&memory), Arc::clone(&origin));
                thread::spawn(move || {
                    let stamp = current.stamp();
                    let value = origin.load(Ordering::SeqCst);
                    if let Some(entry) = entry(&current, stamp, value) {
                        memory.put(key(1), entry);
                    }
                })
            };
            let fillers = vec![fills(), fills()];
            let mut tokens = 100;
            for mode in [Mode::Soft, Mode::Hard] {
                let present = origin.fetch_add(1, Ordering::SeqCst) + 1;
                tokens += 2;
                let bump =
                    Bump { invalidation_ids: &[TAG], tokens: vec![tokens], spares: [tokens + 1; 2], mode };
                current.bump(bump, |changes| assert_eq!(changes.len(), 1));
                if let Some(entry) = memory.get(&key(1)) {
                    let value = u64::from_le_bytes(entry.value[..].try_into().unwrap());
                    let standing = current.standing(&entry.meta);
                    assert!(
                        value == present || standing != Standing::Current,
                        "{value} served, {present} is true"
                    );
                    assert!(mode == Mode::Soft || value == present || standing == Standing::Revoked);
                }
            }
            join_all(fillers);
        },
        RUNS,
        DEPTH,
    );
}

#[test]
fn the_budget_holds_under_concurrent_puts_and_removals() {
    // One shard with room for eight of twelve.
    const BYTES: usize = 120 * 1024;
    shuttle::check_pct(
        || {
            let memory = memory(1 << 20);
            let meta = EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER);
            let entry = Entry { meta, value: vec![0; BYTES].into() };
            let puts = |from: u8| {
                let (memory, entry) = (Arc::clone(&memory), entry.clone());
                thread::spawn(move || {
                    for n in from..from + 8 {
                        memory.put(key(n), Arc::new(entry.clone()));
                        assert!(memory.stats().bytes <= memory.stats().bytes_max);
                    }
                })
            };
            let removes = {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    for n in 0..12 {
                        if let Some(entry) = memory.get(&key(n)) {
                            memory.remove_same(&key(n), &entry);
                            assert!(memory.get(&key(n)).is_none_or(|other| !Arc::ptr_eq(&other, &entry)));
                        }
                    }
                })
            };
            join_all(vec![puts(0), puts(4), removes]);
            (0..12).for_each(|n| memory.remove(&key(n)));
            assert_eq!((memory.stats().entries, memory.stats().bytes), (0, 0), "the sums have drifted");
        },
        RUNS,
        DEPTH,
    );
}
