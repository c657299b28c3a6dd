//! What does a million cached vectors cost: bytes on disk, private memory, time to open, time to get?

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise::domain::{Codec, Entry, EntryMeta, Key, KeyHasher, SystemClock, UnixSeconds};
use likewise::metrics::Metrics;
use likewise::storage::{Options, OsFiles, VectorStore};
use likewise_benches::{percentile, print_circumstances, spread};

const ENTRIES: u32 = 1_000_000;
const DIM: usize = 384;
const PUT_AT_ONCE: u32 = 1_000;
const GETS: u32 = 100_000;
const ROUNDS: usize = 5;

fn main() {
    print_circumstances("scale");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let payload = u64::from(ENTRIES) * DIM as u64 * 4;

    let store = open(dir.path()).0;
    let started = Instant::now();
    for from in (0..ENTRIES).step_by(PUT_AT_ONCE as usize) {
        let entries = (from..from + PUT_AT_ONCE).map(|n| (key(n), Arc::new(entry(n)))).collect();
        runtime.block_on(store.put_many(entries, None)).expect("the disk has room");
    }
    let put = started.elapsed();
    runtime.block_on(store.close());
    drop(store);
    let on_disk = bytes_below(dir.path());

    let before = private_bytes();
    let (store, first) = open(dir.path());
    let memory = private_bytes().saturating_sub(before);
    assert_eq!(store.stats().entries, u64::from(ENTRIES));
    let gets = time_gets(&store);
    drop(store);
    let mut opens: Vec<f64> = (1..ROUNDS).map(|_| open(dir.path()).1.as_secs_f64() * 1e3).collect();
    opens.push(first.as_secs_f64() * 1e3);
    let opens = spread(opens);

    println!("{ENTRIES} entries of {DIM} f32, {payload} bytes of vectors\n");
    println!("| figure | value |\n|---|---|");
    println!("| bytes on disk / bytes of vectors | {:.3} |", on_disk as f64 / payload as f64);
    println!("| private memory an entry | {:.1} bytes |", memory as f64 / f64::from(ENTRIES));
    println!("| open, median (min-max) | {:.0} ms ({:.0}-{:.0}) |", opens.median, opens.min, opens.max);
    println!(
        "| get, p50 / p99, warm pages | {:.2} / {:.2} us |",
        percentile(&gets, 0.5),
        percentile(&gets, 0.99)
    );
    println!(
        "| put, {PUT_AT_ONCE} a call, async | {:.0} entries/s |",
        f64::from(ENTRIES) / put.as_secs_f64()
    );
}

fn open(dir: &Path) -> (VectorStore, Duration) {
    let started = Instant::now();
    let clock = Arc::new(SystemClock);
    let opened =
        VectorStore::open(Arc::new(OsFiles), dir, &Options::default(), clock, Arc::new(Metrics::new()));
    (opened.expect("the store opens").0, started.elapsed())
}

/// Microseconds of each get of a text chosen at random, sorted.
fn time_gets(store: &VectorStore) -> Vec<f64> {
    let mut times = Vec::with_capacity(GETS as usize);
    for pass in 0..2 {
        times.clear();
        for n in 0..GETS {
            // A fixed odd stride visits entries far apart; the first pass warms the pages.
            let key = key(n.wrapping_mul(2_654_435_761) % ENTRIES);
            let started = Instant::now();
            let entry = store.get(&key).expect("the disk reads");
            times.push(started.elapsed().as_secs_f64() * 1e6);
            assert!(entry.is_some(), "entry {n} is missing in pass {pass}");
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

fn key(n: u32) -> Key {
    KeyHasher::new("bench").field(&n.to_le_bytes()).finish()
}

/// A vector whose numbers differ from one entry to the next.
fn entry(n: u32) -> Entry {
    let value: Vec<u8> = (0..DIM as u32).flat_map(|i| (n as f32 + i as f32).sin().to_le_bytes()).collect();
    let meta = EntryMeta {
        created: UnixSeconds(0),
        soft_expires: UnixSeconds::NEVER,
        expires: UnixSeconds::NEVER,
        stale_until: UnixSeconds::NEVER,
        last_used: UnixSeconds(0),
        cost_us: 0,
        tokens: 7,
        is_truncated: false,
        tags: Box::default(),
        epoch: 0,
        codec: Codec::F32,
        content_type: "".into(),
    };
    Entry { meta, value: value.into() }
}

/// Blocks that the files of a directory take.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = dir.read_dir().expect("the store's directory");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").blocks() * 512).sum()
}

/// Memory that is this process's own: pages of mapped files are not, the kernel may take them back.
fn private_bytes() -> u64 {
    let text = std::io::read_to_string(open_file("/proc/self/smaps_rollup")).expect("text");
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).expect("a line of proc(5)");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}

#[expect(clippy::disallowed_types, reason = "a benchmark needs no better error than a panic")]
fn open_file(path: &str) -> std::fs::File {
    std::fs::File::open(path).expect("a file")
}
