//! What does a million cached vectors on disk cost, beside `redb` and SQLite with the same keys and values in the
//! same run: to put, to get, to open, in bytes, in memory?

mod stores;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use likewise::domain::{Entry, Key};
use likewise::storage::{Durability, ReadMode};
use likewise_benches::{Spread, percentile, print_circumstances, spread};
use tokio::sync::oneshot;

use self::stores::{Kind, Likewise, Pair, VALUE_BYTES, flush_call, key, pair, value};

const ENTRIES: u32 = 1_000_000;
const PUT_AT_ONCE: u32 = 10_000;
const GETS: u32 = 100_000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
const WRITERS: u32 = 64;
/// Puts that the rivals' committer takes into one commit: as many as the store of vectors does.
const GROUP_MAX: usize = (256 << 10) / SLOT_BYTES;
/// What the store of vectors writes for an entry.
const SLOT_BYTES: usize = VALUE_BYTES + 64;
/// The file of the rounds without a store: as long as a segment.
const BARE_BYTES: usize = 32 << 20;
/// Keys apart from each other that a round of durable puts may use up, and each of its writers.
const KEYS_A_ROUND: u32 = 100_000_000;
const KEYS_A_WRITER: u32 = 1_000_000;
/// Set for a copy of this program that writes until it is killed; holds the store's name.
const KILLED: &str = "LIKEWISE_BENCH_KILLED";
/// Set for a copy of this program that reports the memory of an open store; holds its directory.
const MEMORY: &str = "LIKEWISE_BENCH_MEMORY";

fn main() {
    if let Ok(name) = std::env::var(KILLED) {
        let mut arguments = std::env::args().skip(1);
        let mut next = || arguments.next().expect("a directory and a number of entries");
        let (dir, entries) = (next(), next());
        let kind = Kind::from_name(&name).expect("the parent knows the names");
        return write_until_killed(kind, Path::new(&dir), entries.parse().expect("a number"));
    }
    if let Some(dir) = std::env::var_os(MEMORY) {
        return tell_memory(Path::new(&dir));
    }
    print_circumstances("disk");
    let root = on_a_disk();
    println!(
        "{ENTRIES} entries of {VALUE_BYTES} bytes under keys of 32, on {}; median of {ROUNDS} rounds (min-max)\n",
        file_system(root.path())
    );
    let stores = [Kind::Likewise, Kind::Redb, Kind::Sqlite].map(|kind| {
        let dir = root.path().join(kind.name());
        fs_err::create_dir(&dir).expect("a new directory");
        Measured { kind, dir }
    });
    opens_and_bytes(&stores);
    gets(&stores);
    durable_puts(&stores);
}

/// A store on its directory.
struct Measured {
    kind: Kind,
    dir: PathBuf,
}

/// `TMPDIR`, or beside what cargo builds, since the system's directory for temporary files may be memory.
fn on_a_disk() -> tempfile::TempDir {
    let dir = std::env::var_os("TMPDIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    fs_err::create_dir_all(&dir).expect("a directory");
    tempfile::tempdir_in(dir).expect("a temporary directory")
}

fn file_system(dir: &Path) -> String {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(dir).output().expect("coreutils");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Fills, says how fast, and goes on writing, so that it is killed in the middle of it.
fn write_until_killed(kind: Kind, dir: &Path, entries: u32) {
    let mut store = kind.open(dir);
    let mut busy = Duration::ZERO;
    for from in (0..entries).step_by(PUT_AT_ONCE as usize) {
        let pairs: Vec<Pair> = (from..from + PUT_AT_ONCE).map(pair).collect();
        busy += time(|| store.put(&pairs));
    }
    busy += time(|| store.flush());
    let again = [pair(0)];
    store.put(&again);
    println!("{}", f64::from(entries) / busy.as_secs_f64());
    std::io::stdout().flush().expect("stdout is piped");
    loop {
        store.put(&again);
    }
}

/// Writes in a process of its own, kills it, and returns how many entries it filled in a second.
fn write_and_kill(store: &Measured, entries: u32) -> f64 {
    let mut writer = this_program()
        .arg(&store.dir)
        .arg(entries.to_string())
        .env(KILLED, store.kind.name())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let mut line = String::new();
    let stdout = writer.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the writer says when it is done");
    writer.kill().expect("the writer writes until here");
    writer.wait().expect("the writer ends");
    line.trim().parse().expect("a number")
}

fn opens_and_bytes(stores: &[Measured]) {
    println!(
        "| store | fill, {PUT_AT_ONCE} a commit, entries/s | bytes on disk / bytes of values | open after kill -9, ms \
         | open after a clean stop, ms |"
    );
    println!("|---|---|---|---|---|");
    for store in stores {
        let filled = write_and_kill(store, ENTRIES);
        let first = time_open(store);
        let payload = f64::from(ENTRIES) * VALUE_BYTES as f64;
        let bytes = bytes_below(&store.dir) as f64 / payload;
        let mut killed = rounds(ROUNDS - 1, || {
            write_and_kill(store, 0);
            time_open(store)
        });
        killed.push(first);
        let clean = rounds(ROUNDS, || time_open(store));
        println!(
            "| {} | {filled:.0} | {bytes:.3} | {} | {} |",
            store.kind.name(),
            show(spread(killed), 1),
            show(spread(clean), 1)
        );
    }
    let own = &stores[0];
    let without_index = rounds(ROUNDS, || {
        write_and_kill(own, 0);
        remove_index_files(&own.dir);
        time_open(own)
    });
    println!("\nlikewise, open after kill -9 without index files: {} ms", show(spread(without_index), 0));
    let memory = this_program().env(MEMORY, &own.dir).output().expect("the copy runs");
    println!("likewise, private memory: {} bytes an entry\n", String::from_utf8_lossy(&memory.stdout).trim());
}

/// Milliseconds that a store takes to open.
fn time_open(store: &Measured) -> f64 {
    let mut opened = None;
    let took = time(|| opened = Some(store.kind.open(&store.dir)));
    opened.expect("it was opened").close();
    took.as_secs_f64() * 1e3
}

/// In a process that has done nothing else, so that no memory is left over to be used again.
fn tell_memory(dir: &Path) {
    let before = private_bytes();
    let opened = Likewise::open(dir, ReadMode::Mmap);
    assert_eq!(opened.store.stats().entries, u64::from(ENTRIES));
    let memory = private_bytes().saturating_sub(before);
    println!("{:.1}", memory as f64 / f64::from(ENTRIES));
}

fn gets(stores: &[Measured]) {
    println!(
        "one thread, {GETS} gets a round of keys at random, pages warm; each get copies the value out\n"
    );
    println!("| store | get p50, us | get p99, us |\n|---|---|---|");
    let numbers: Vec<u32> = (0..GETS).map(scattered).collect();
    let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
    let pread = Measured { kind: Kind::LikewisePread, dir: stores[0].dir.clone() };
    for store in [&stores[0], &pread, &stores[1], &stores[2]] {
        let opened = store.kind.open(&store.dir);
        let name = store.kind.name();
        // Warms the pages, and sees that every store answers with the right value.
        let mut expected = numbers.iter().copied();
        opened.get_each(&keys, &mut |_, found| {
            assert_eq!(found.as_deref(), expected.next().map(value).as_deref(), "{name} holds a wrong value");
        });
        let rounds: Vec<Vec<f64>> = (0..ROUNDS)
            .map(|_| {
                let mut times = Vec::with_capacity(keys.len());
                opened.get_each(&keys, &mut |took, found| {
                    assert!(found.is_some_and(|value| value.len() == VALUE_BYTES));
                    times.push(took.as_secs_f64() * 1e6);
                });
                times.sort_by(f64::total_cmp);
                times
            })
            .collect();
        let at = |share| spread(rounds.iter().map(|times| percentile(times, share)).collect());
        println!("| {name} | {} | {} |", show(at(0.5), 2), show(at(0.99), 2));
        opened.close();
    }
    println!();
}

/// Visits entries far apart: an odd stride.
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761) % ENTRIES
}

fn durable_puts(stores: &[Measured]) {
    println!(
        "durable puts/s: each is flushed before it is acknowledged; {} s a round, in turn\n",
        ROUND.as_secs()
    );
    println!(
        "| store | flushes by | one writer, one put a commit | likewise / this | {WRITERS} writers, grouped \
         | likewise / this |"
    );
    println!("|---|---|---|---|---|---|");
    let mut floor = Vec::new();
    let mut single = vec![Vec::new(); stores.len()];
    let mut grouped = vec![Vec::new(); stores.len()];
    let mut from = ENTRIES;
    for _ in 0..ROUNDS {
        floor.push(bare_flushes(&stores[0].dir.with_file_name("bare")));
        for (place, store) in stores.iter().enumerate() {
            single[place].push(one_writer(store, from));
        }
        from += KEYS_A_ROUND;
        for (place, store) in stores.iter().enumerate() {
            let rate = if store.kind.is_rival() { grouped_by_us } else { grouped_by_itself };
            grouped[place].push(rate(store, from));
        }
        from += KEYS_A_ROUND;
    }
    let (single, grouped): (Vec<_>, Vec<_>) =
        (single.into_iter().map(spread).collect(), grouped.into_iter().map(spread).collect());
    for (place, store) in stores.iter().enumerate() {
        println!(
            "| {} | {} | {} | {:.2} | {} | {:.2} |",
            store.kind.name(),
            flush_call(store.kind),
            show(single[place], 0),
            single[0].median / single[place].median,
            show(grouped[place], 0),
            grouped[0].median / grouped[place].median
        );
    }
    let floor = spread(floor);
    let ratio = single[0].median / floor.median;
    println!("| no store: one write and flush | fdatasync | {} | {ratio:.2} | | |", show(floor, 0));
}

/// What the device allows one writer: slots of bytes, one after the other, over bytes that were written before, so
/// that nothing but data has to be flushed.
fn bare_flushes(path: &Path) -> f64 {
    let zeros = vec![0; BARE_BYTES];
    fs_err::write(path, &zeros).expect("the disk has room");
    let file = fs_err::OpenOptions::new().write(true).open(path).expect("the file just written");
    file.sync_all().expect("the disk flushes");
    let slot = [1; SLOT_BYTES];
    let mut offsets = (0..BARE_BYTES - SLOT_BYTES).step_by(SLOT_BYTES).cycle();
    per_second(|| {
        let offset = offsets.next().expect("the iterator cycles") as u64;
        time(|| {
            file.file().write_all_at(&slot, offset).expect("the disk writes");
            file.sync_data().expect("the disk flushes");
        })
    })
}

/// How often a second something can be done that returns how long it took; first it warms up.
fn per_second(mut timed: impl FnMut() -> Duration) -> f64 {
    let mut rate_for = |limit: Duration| {
        let (mut count, mut busy) = (0_u32, Duration::ZERO);
        while busy < limit {
            busy += timed();
            count += 1;
        }
        f64::from(count) / busy.as_secs_f64()
    };
    rate_for(WARM_UP);
    rate_for(ROUND)
}

/// Puts a second; nothing but the puts is timed.
fn one_writer(store: &Measured, from: u32) -> f64 {
    let mut opened = store.kind.open(&store.dir);
    let mut next = (from..).map(pair);
    let rate = per_second(|| {
        let pair = [next.next().expect("numbers do not run out")];
        time(|| opened.put_durably(&pair))
    });
    opened.close();
    rate
}

/// Puts a second of many writers: each puts one pair after the other, and only acknowledged ones count.
async fn write_for<F: Future<Output = ()> + Send + 'static>(
    from: u32,
    put: impl Fn(Pair) -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let (_, entry) = pair(from);
    let warm = Instant::now() + WARM_UP;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            tokio::spawn(write_between(warm, from + writer * KEYS_A_WRITER, entry.clone(), put.clone()))
        })
        .collect();
    let mut puts = 0;
    for writer in writers {
        puts += writer.await.expect("a writer ends");
    }
    f64::from(puts) / ROUND.as_secs_f64()
}

/// Puts that were acknowledged in the round, which begins at `warm`.
async fn write_between<F: Future<Output = ()>>(
    warm: Instant,
    from: u32,
    entry: Arc<Entry>,
    put: impl Fn(Pair) -> F,
) -> u32 {
    let mut puts = 0;
    for n in from.. {
        put((key(n), entry.clone())).await;
        let now = Instant::now();
        if now > warm + ROUND {
            break;
        }
        puts += u32::from(now > warm);
    }
    puts
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

/// The same grouping for a rival: one thread takes what waits, commits it at once, then acknowledges each.
fn grouped_by_us(store: &Measured, from: u32) -> f64 {
    let (queue, inbox) = mpsc::channel::<(Pair, oneshot::Sender<()>)>();
    let mut opened = store.kind.open(&store.dir);
    let committer = std::thread::spawn(move || {
        while let Ok(first) = inbox.recv() {
            let group = std::iter::once(first).chain(inbox.try_iter()).take(GROUP_MAX);
            let (pairs, replies): (Vec<Pair>, Vec<_>) = group.unzip();
            opened.put_durably(&pairs);
            replies.into_iter().for_each(|reply| reply.send(()).expect("the writer waits"));
        }
        opened.close();
    });
    let rate = runtime().block_on(write_for(from, move |pair| {
        let (reply, acknowledged) = oneshot::channel();
        queue.send((pair, reply)).expect("the committer runs");
        async move { acknowledged.await.expect("the committer acknowledges") }
    }));
    committer.join().expect("the committer ends");
    rate
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().build().expect("a runtime")
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn rounds(count: usize, mut round: impl FnMut() -> f64) -> Vec<f64> {
    (0..count).map(|_| round()).collect()
}

fn show(spread: Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}-{:.digits$})", spread.median, spread.min, spread.max)
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().expect("this program has a path"))
}

fn remove_index_files(dir: &Path) {
    for entry in dir.read_dir().expect("the store's directory") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            fs_err::remove_file(path).expect("a file that can be removed");
        }
    }
}

/// Blocks that the files of a directory take.
fn bytes_below(dir: &Path) -> u64 {
    let entries = dir.read_dir().expect("the store's directory");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").blocks() * 512).sum()
}

/// Memory that is this process's own: pages of mapped files are not, the kernel may take them back.
fn private_bytes() -> u64 {
    let text = fs_err::read_to_string("/proc/self/smaps_rollup").expect("text");
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).expect("a line of proc(5)");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}
