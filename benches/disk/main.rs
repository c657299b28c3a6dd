//! What does a million cached vectors on disk cost, beside `redb` and SQLite with the same keys and values in the same
//! run: to put, to get, to open, in bytes, in memory?

mod stores;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use likewise::storage::{Durability, ReadMode};
use likewise_benches::{Spread, percentile, print_circumstances, spread};
use tokio::sync::oneshot;

use self::stores::{Kind, Likewise, Pair, Store, VALUE_BYTES, key, pair, value};

const ENTRIES: u32 = 1_000_000;
const PUT_AT_ONCE: u32 = 10_000;
const GETS: u32 = 100_000;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const WRITERS: u32 = 64;
/// Set for the copy of this program that fills a store and is killed.
const FILLER: &str = "LIKEWISE_BENCH_FILLER";

fn main() {
    if let Ok(name) = std::env::var(FILLER) {
        let kind = Kind::from_name(&name).expect("the parent knows the names");
        return fill_until_killed(kind, Path::new(&std::env::args().next_back().expect("a directory")));
    }
    print_circumstances("disk");
    println!(
        "{ENTRIES} entries of {VALUE_BYTES} bytes under keys of 32; median of {ROUNDS} rounds (min-max)\n"
    );
    let root = tempfile::tempdir().expect("a temporary directory");
    let stores: Vec<Measured> = [Kind::Likewise, Kind::Redb, Kind::Sqlite]
        .into_iter()
        .map(|kind| {
            let dir = root.path().join(kind.name());
            create(&dir);
            Measured { kind, dir }
        })
        .collect();
    opens_and_bytes(&stores);
    gets(&stores);
    durable_puts(&stores);
}

/// A store on its directory.
struct Measured {
    kind: Kind,
    dir: std::path::PathBuf,
}

/// Fills, says so, and goes on writing, so that it is killed in the middle of it.
fn fill_until_killed(kind: Kind, dir: &Path) {
    let mut store = kind.open(dir);
    let started = Instant::now();
    for from in (0..ENTRIES).step_by(PUT_AT_ONCE as usize) {
        let pairs: Vec<Pair> = (from..from + PUT_AT_ONCE).map(pair).collect();
        store.put(&pairs);
    }
    store.flush();
    println!("{}", f64::from(ENTRIES) / started.elapsed().as_secs_f64());
    std::io::stdout().flush().expect("stdout is piped");
    loop {
        store.put(&[pair(0)]);
    }
}

/// Fills a store in a process of its own, kills it, and tells the entries that it wrote a second.
fn fill_and_kill(store: &Measured) -> f64 {
    let this = std::env::current_exe().expect("this program has a path");
    let mut filler = Command::new(this)
        .arg(&store.dir)
        .env(FILLER, store.kind.name())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the filler starts");
    let mut line = String::new();
    let stdout = filler.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the filler says when it is done");
    filler.kill().expect("the filler writes until here");
    filler.wait().expect("the filler ends");
    line.trim().parse().expect("a number")
}

fn opens_and_bytes(stores: &[Measured]) {
    println!(
        "| store | fill, entries/s | open after kill -9, ms | open after a clean stop, ms | bytes / payload |"
    );
    println!("|---|---|---|---|---|");
    for store in stores {
        let filled = fill_and_kill(store);
        let started = Instant::now();
        let opened = store.kind.open(&store.dir);
        let after_kill = started.elapsed().as_secs_f64() * 1e3;
        opened.close();
        let clean = spread((0..ROUNDS).map(|_| time_open(store)).collect());
        let payload = f64::from(ENTRIES) * VALUE_BYTES as f64;
        println!(
            "| {} | {filled:.0} | {after_kill:.1} | {} | {:.3} |",
            store.kind.name(),
            show(clean, 1),
            bytes_below(&store.dir) as f64 / payload
        );
    }
    let own = &stores[0];
    let without_index = spread(
        (0..ROUNDS)
            .map(|_| {
                remove_index_files(&own.dir);
                time_open(own)
            })
            .collect(),
    );
    let before = private_bytes();
    let opened = Likewise::open(&own.dir, ReadMode::Mmap);
    assert_eq!(opened.store.stats().entries, u64::from(ENTRIES));
    let memory = private_bytes().saturating_sub(before);
    println!("\nlikewise without index files: open {} ms", show(without_index, 0));
    println!("likewise, private memory: {:.1} bytes an entry\n", memory as f64 / f64::from(ENTRIES));
}

fn time_open(store: &Measured) -> f64 {
    let started = Instant::now();
    let opened = store.kind.open(&store.dir);
    let took = started.elapsed();
    opened.close();
    took.as_secs_f64() * 1e3
}

fn gets(stores: &[Measured]) {
    println!("| store | get p50, us | get p99, us |\n|---|---|---|");
    let pread = Measured { kind: Kind::LikewisePread, dir: stores[0].dir.clone() };
    for store in [&stores[0], &pread, &stores[1], &stores[2]] {
        let opened = store.kind.open(&store.dir);
        // Warms the pages, and sees that every store answers with the right value.
        for n in (0..GETS).map(scattered) {
            assert_eq!(
                opened.get(&key(n)).as_deref(),
                Some(&*value(n)),
                "{} holds a wrong value",
                store.kind.name()
            );
        }
        let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| time_gets(&*opened)).collect();
        let at = |share| spread(rounds.iter().map(|times| percentile(times, share)).collect());
        println!("| {} | {} | {} |", store.kind.name(), show(at(0.5), 2), show(at(0.99), 2));
        opened.close();
    }
    println!();
}

/// Microseconds of each get, sorted.
fn time_gets(store: &dyn Store) -> Vec<f64> {
    let mut times: Vec<f64> = (0..GETS)
        .map(|n| {
            let key = key(scattered(n));
            let started = Instant::now();
            let value = store.get(&key);
            let took = started.elapsed();
            assert!(value.is_some());
            took.as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Visits entries far apart: an odd stride.
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761) % ENTRIES
}

/// Every store flushes by fdatasync(2) or fsync(2) before it acknowledges.
fn durable_puts(stores: &[Measured]) {
    println!("durable puts a second: each is flushed before it is acknowledged");
    println!("| store | one writer, one put a commit | {WRITERS} writers, grouped |\n|---|---|---|");
    let mut single: Vec<Vec<f64>> = vec![Vec::new(); stores.len()];
    let mut grouped: Vec<Vec<f64>> = vec![Vec::new(); stores.len()];
    let mut next = ENTRIES;
    for _ in 0..ROUNDS {
        for (place, store) in stores.iter().enumerate() {
            single[place].push(one_writer(store, &mut next));
            let rate = if Kind::RIVALS.contains(&store.kind) { grouped_by_us } else { grouped_by_itself };
            grouped[place].push(rate(store, next));
            next += 10_000_000;
        }
    }
    for (place, store) in stores.iter().enumerate() {
        let (one, many) = (spread(single[place].clone()), spread(grouped[place].clone()));
        println!("| {} | {} | {} |", store.kind.name(), show(one, 0), show(many, 0));
    }
}

fn one_writer(store: &Measured, next: &mut u32) -> f64 {
    let mut opened = store.kind.open(&store.dir);
    let mut puts = 0_u32;
    let mut busy = Duration::ZERO;
    while busy < ROUND {
        let pairs = [pair(*next)];
        *next += 1;
        let started = Instant::now();
        opened.put_durably(&pairs);
        busy += started.elapsed();
        puts += 1;
    }
    opened.close();
    f64::from(puts) / busy.as_secs_f64()
}

/// What many writers share: each puts one pair after the other until the time is over.
async fn write_for<F: Future<Output = ()> + Send>(
    from: u32,
    put: impl Fn(Pair) -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let started = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let put = put.clone();
            tokio::spawn(async move {
                let mut puts = 0_u32;
                while started.elapsed() < ROUND {
                    put(pair(from + writer * 100_000 + puts)).await;
                    puts += 1;
                }
                puts
            })
        })
        .collect();
    let mut puts = 0;
    for writer in writers {
        puts += writer.await.expect("a writer ends");
    }
    f64::from(puts) / started.elapsed().as_secs_f64()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().build().expect("a runtime")
}

fn grouped_by_itself(store: &Measured, from: u32) -> f64 {
    let opened = Arc::new(Likewise::open(&store.dir, ReadMode::Mmap));
    let runtime = runtime();
    let shared = Arc::clone(&opened);
    let rate = runtime.block_on(write_for(from, move |pair| {
        let shared = Arc::clone(&shared);
        async move {
            shared.store.put_many(vec![pair], Some(Durability::Sync)).await.expect("the disk has room");
        }
    }));
    runtime.block_on(opened.store.close());
    rate
}

/// The same grouping for a rival: one thread takes whatever waits, commits it at once, then acknowledges each.
fn grouped_by_us(store: &Measured, from: u32) -> f64 {
    let (queue, inbox) = mpsc::channel::<(Pair, oneshot::Sender<()>)>();
    let mut opened = store.kind.open(&store.dir);
    let committer = std::thread::spawn(move || {
        while let Ok(first) = inbox.recv() {
            let group: Vec<_> = std::iter::once(first).chain(inbox.try_iter()).collect();
            let (pairs, replies): (Vec<Pair>, Vec<_>) = group.into_iter().unzip();
            opened.put_durably(&pairs);
            replies.into_iter().for_each(|reply| reply.send(()).expect("the writer waits"));
        }
        opened.close();
    });
    let queue = Arc::new(Mutex::new(queue));
    let rate = runtime().block_on(write_for(from, move |pair| {
        let (reply, acknowledged) = oneshot::channel();
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.send((pair, reply)).expect("the committer runs");
        drop(queue);
        async move { acknowledged.await.expect("the committer acknowledges") }
    }));
    committer.join().expect("the committer ends");
    rate
}

fn show(spread: Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}-{:.digits$})", spread.median, spread.min, spread.max)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark needs no better error than a panic")]
fn create(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark needs no better error than a panic")]
fn remove_index_files(dir: &Path) {
    for entry in dir.read_dir().expect("the store's directory") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            std::fs::remove_file(path).expect("a file that can be removed");
        }
    }
}

/// Blocks that the files of a directory take.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = dir.read_dir().expect("the store's directory");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").blocks() * 512).sum()
}

/// Memory that is this process's own: pages of mapped files are not, the kernel may take them back.
#[expect(clippy::disallowed_methods, reason = "a benchmark needs no better error than a panic")]
fn private_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("text");
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).expect("a line of proc(5)");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}
