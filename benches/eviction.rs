//! Which entries should stay? Hit ratios of the memory tier's policies on recorded request traces, beside moka and beside
//! what a cache that knows the future would reach.
//!
//! `LIKEWISE_TRACES` names a directory of `*.u32le.gz`: little-endian u32 keys in the order of the requests. All entries
//! are equal in size, so a capacity is a number of entries; a miss is followed by a put.

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use likewise::cache::{Budget, Eviction, MemoryOptions, MemoryTier};
use likewise::domain::{Codec, Entry, EntryMeta, Key, KeyHasher, UnixSeconds};
use likewise::metrics::unexported;
use likewise_benches::print_circumstances;

/// Capacities in percent of a trace's distinct keys.
const CAPACITIES: [usize; 4] = [1, 5, 10, 25];
/// The default policy should be within so many percentage points of the best.
const WITHIN: f64 = 1.0;
/// The smallest budget of the memory tier.
const BUDGET_MIN: usize = 1 << 20;

fn main() {
    print_circumstances("eviction");
    let Some(dir) = std::env::var_os("LIKEWISE_TRACES") else {
        eprintln!("LIKEWISE_TRACES is not set: name a directory of *.u32le.gz traces");
        std::process::exit(1);
    };
    println!("hit ratios in percent; MIN is Belady's optimum with bypass");
    println!("| trace | requests | distinct | capacity | s3fifo (default) | lru | moka | MIN |");
    println!("|---|---|---|---|---|---|---|---|");
    let (mut cells, mut near) = (0, 0);
    for (name, keys) in traces(Path::new(&dir)) {
        let distinct = keys.iter().collect::<BTreeSet<_>>().len();
        for percent in CAPACITIES {
            let capacity = (distinct * percent / 100).max(1);
            let default = tier(Eviction::S3Fifo, capacity, &keys);
            let (lru, moka) = (tier(Eviction::Lru, capacity, &keys), moka(capacity, &keys));
            let best = belady(capacity, &keys);
            cells += 1;
            near += usize::from(default + WITHIN >= default.max(lru).max(moka));
            println!(
                "| {name} | {} | {distinct} | {percent} % = {capacity} | {default:.2} | {lru:.2} | {moka:.2} | {best:.2} |",
                keys.len()
            );
        }
    }
    println!("\nthe default is within {WITHIN} point of the best policy in {near} of {cells} cells");
}

fn traces(dir: &Path) -> Vec<(String, Vec<u32>)> {
    let files = fs_err::read_dir(dir).expect("the traces are readable");
    let mut paths: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".u32le.gz"));
    paths.sort();
    assert!(!paths.is_empty(), "LIKEWISE_TRACES has no *.u32le.gz");
    let read = |path: &std::path::PathBuf| {
        let mut bytes = Vec::new();
        let file = fs_err::File::open(path).expect("the trace is readable");
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("the trace is gzip");
        let keys = bytes.as_chunks::<4>().0.iter().map(|&key| u32::from_le_bytes(key)).collect();
        let name = path.file_name().expect("a name").to_string_lossy();
        (name.trim_end_matches(".u32le.gz").to_owned(), keys)
    };
    paths.iter().map(read).collect()
}

/// The share of requests, in percent, for which `is_hit`.
fn percent(keys: &[u32], is_hit: impl FnMut(u32) -> bool) -> f64 {
    let hits = keys.iter().copied().map(is_hit).filter(|&hit| hit).count();
    hits as f64 * 100.0 / keys.len() as f64
}

/// The memory tier with a budget for just `capacity` entries, as the server builds it.
fn tier(eviction: Eviction, capacity: usize, keys: &[u32]) -> f64 {
    let build = |bytes| {
        let options = MemoryOptions { budget: Budget::Bytes(bytes), eviction };
        MemoryTier::new(&options, &unexported()).expect("a budget")
    };
    // Short values for many entries, and longer ones where the smallest budget would hold too many.
    let value_bytes = (BUDGET_MIN / capacity).max(1536);
    let meta = EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER);
    let entry = Arc::new(Entry { meta, value: vec![0; value_bytes].into() });
    let scale = build(1 << 30);
    scale.put(key(0), Arc::clone(&entry));
    let tier = build(scale.stats().bytes * capacity as u64);
    percent(keys, |n| {
        let key = key(n);
        let is_hit = tier.get(&key).is_some();
        if !is_hit {
            tier.put(key, Arc::clone(&entry));
        }
        is_hit
    })
}

fn key(n: u32) -> Key {
    KeyHasher::new("bench").field(&n.to_le_bytes()).finish()
}

fn moka(capacity: usize, keys: &[u32]) -> f64 {
    let cache = moka::sync::Cache::new(capacity as u64);
    let ratio = percent(keys, |n| {
        let is_hit = cache.get(&n).is_some();
        if !is_hit {
            cache.insert(n, ());
        }
        // Its maintenance is put off otherwise, which would count entries past the capacity.
        cache.run_pending_tasks();
        is_hit
    });
    assert!(cache.entry_count() <= capacity as u64);
    ratio
}

/// Keeps what is asked for again soonest (Belady, "A study of replacement algorithms for a virtual-storage computer",
/// 1966); what is asked for later than everything that is kept is not put in at all.
fn belady(capacity: usize, keys: &[u32]) -> f64 {
    let mut next = vec![usize::MAX; keys.len()];
    let mut later: HashMap<u32, usize> = HashMap::new();
    for (at, &key) in keys.iter().enumerate().rev() {
        next[at] = later.insert(key, at).unwrap_or(usize::MAX);
    }
    // What is kept, by when it is asked for next.
    let mut kept: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut at = 0;
    percent(keys, |key| {
        let is_hit = kept.remove(&(at, key));
        if next[at] != usize::MAX {
            kept.insert((next[at], key));
        }
        if kept.len() > capacity {
            kept.pop_last();
        }
        at += 1;
        is_hit
    })
}
