//! Does the process stay within its budget? Random sizes, kinds, gets and evictions at full load; the resident set is
//! sampled every second and compared with the budget of the memory tier.
//!
//! Each policy is loaded with entries of all sizes and with small ones only, each load in a process of its own.
//! `LIKEWISE_SECONDS` says how long; `LIKEWISE_LOAD` chooses one of the loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use likewise::cache::{Budget, Eviction, MemoryOptions, MemoryTier};
use likewise::domain::{Codec, Entry, EntryMeta, InvalidationId, Key, KeyHasher, TagToken, UnixSeconds};
use likewise::metrics::{resident_bytes, unexported};
use likewise_benches::print_circumstances;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUDGET: u64 = 1 << 30;
const THREADS: u64 = 2;
/// Many more than fit.
const KEYS: u64 = 2_000_000;
/// Of the loads: name, policy, and powers of two between which the sizes of values are log-uniform.
const LOADS: [(&str, Eviction, f64, f64); 4] = [
    ("s3fifo, 64 B to 256 KiB", Eviction::S3Fifo, 6.0, 18.0),
    ("s3fifo, 64 B to 4 KiB", Eviction::S3Fifo, 6.0, 12.0),
    ("lru, 64 B to 256 KiB", Eviction::Lru, 6.0, 18.0),
    ("lru, 64 B to 4 KiB", Eviction::Lru, 6.0, 12.0),
];
/// Set for the copy of this program that does one load.
const LOAD: &str = "LIKEWISE_LOAD";
const MIB: f64 = (1 << 20) as f64;

fn main() {
    let seconds = std::env::var("LIKEWISE_SECONDS").map_or(60, |text| text.parse().expect("a number"));
    if let Ok(wanted) = std::env::var(LOAD) {
        let load = LOADS.iter().find(|(name, ..)| *name == wanted).expect("LIKEWISE_LOAD names a load");
        return run(load, seconds);
    }
    print_circumstances("memory");
    println!("{seconds} s of full load by {THREADS} threads, budget {} MiB; MiB", BUDGET >> 20);
    println!(
        "| policy and sizes | operations | entries | resident | of the budget | first quarter | last quarter |"
    );
    println!("|---|---|---|---|---|---|---|");
    let this = std::env::current_exe().expect("this program has a path");
    for (name, ..) in LOADS {
        let status = std::process::Command::new(&this).env(LOAD, name).status().expect("it starts");
        assert!(status.success(), "{name}: the resident set was past the budget by more than a tenth");
    }
}

/// Loads a tier and prints how its resident set stood to its budget.
fn run(&(name, eviction, smallest, largest): &(&str, Eviction, f64, f64), seconds: u64) {
    let before = resident_bytes() as f64;
    let options = MemoryOptions { budget: Budget::Bytes(BUDGET), eviction };
    let tier = MemoryTier::new(&options, &unexported()).expect("a budget");
    let (is_over, operations) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (tier, is_over, operations) = (&tier, &is_over, &operations);
            let size = move |share: f64| (smallest + share * (largest - smallest)).exp2() as usize;
            scope.spawn(move || work(tier, thread + 1, size, is_over, operations));
        }
        // Until the budget has been used once.
        while tier.stats().bytes < BUDGET * 9 / 10 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_secs(1));
            samples.push(resident_bytes() as f64 - before);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let most = samples.iter().copied().fold(0.0, f64::max);
    let quarter = (samples.len() / 4).max(1);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64 / MIB;
    println!(
        "| {name} | {} | {} | {:.0} | {:.3} | {:.0} | {:.0} |",
        operations.load(Ordering::Relaxed),
        tier.stats().entries,
        most / MIB,
        most / BUDGET as f64,
        mean(&samples[..quarter]),
        mean(&samples[samples.len() - quarter..]),
    );
    if most > BUDGET as f64 * 1.1 {
        std::process::exit(1);
    }
}

fn work(
    tier: &MemoryTier,
    seed: u64,
    size: impl Fn(f64) -> usize,
    is_over: &AtomicBool,
    operations: &AtomicU64,
) {
    let mut random = seed;
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..1000 {
            random = splitmix(random);
            let key = key(random % KEYS);
            if random >> 62 == 0 {
                drop(tier.get(&key));
            } else {
                tier.put(key, entry(splitmix(random), &size));
            }
        }
        operations.fetch_add(1000, Ordering::Relaxed);
    }
}

/// An entry with a random number of tags, with a media type or without.
fn entry(random: u64, size: impl Fn(f64) -> usize) -> Arc<Entry> {
    let bytes = size((random >> 32) as f64 / f64::from(u32::MAX));
    let tags = (0..random % 5).map(|n| TagToken { tag: InvalidationId(n), token: random }).collect();
    let content_type = if random & 8 == 0 { "" } else { "application/json" };
    let meta = EntryMeta {
        tags,
        content_type: content_type.into(),
        ..EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER)
    };
    // Written, so that every page is resident.
    Arc::new(Entry { meta, value: vec![random as u8 | 1; bytes].into() })
}

fn key(n: u64) -> Key {
    KeyHasher::new("bench").field(&n.to_le_bytes()).finish()
}

/// Sebastiano Vigna's SplitMix64.
fn splitmix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
