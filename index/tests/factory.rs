//! Goal: whatever a factory string is, it is refused, or FAISS builds its index within the limits of its cost. Method:
//! random strings of FAISS's own words, numbers at and around their bounds, and mutations of both; all that the grammar
//! accepts is built, opened and searched by the real FAISS in processes of their own, so that a crash is seen.
//!
//! `LIKEWISE_FACTORY_STRINGS=100000` is the long form.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use likewise_index::{BuildParams, FaissIndex, Graph, IndexSpec, Metric, SearchParams, check_faiss_index};

const STRINGS: u64 = 300;
/// Set in a process that builds.
const BUILDS: &str = "LIKEWISE_FACTORY_BUILDS";
/// No index of so few rows may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Enough to train product codes of 8 bits.
const ROWS: usize = 300;
/// More lists are tried in two dimensions, so that the time goes into many kinds.
const LISTS_EACH_DIM: usize = 300;
/// So many lists and more are built with enough rows at times only and in few dimensions, and else seen to be refused for
/// want of rows.
const LISTS_EACH_BUILT: usize = 1500;
const DIMS: [usize; 10] = [1, 2, 3, 4, 7, 8, 12, 16, 24, 33];
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::InnerProduct, Metric::L2];

const WORDS: [&str; 42] = [
    "Flat",
    "SQ4",
    "SQ6",
    "SQ8",
    "SQfp16",
    "SQbf16",
    "SQ8_direct",
    "PQ",
    "HNSW",
    "IVF",
    "NSG",
    "LSH",
    "ZnLattice",
    "RQ",
    "LSQ",
    "PRQ",
    "PLSQ",
    "RCQ",
    "IMI2x",
    "OPQ",
    "PCA",
    "PCAR",
    "ITQ",
    "RR",
    "L2norm",
    "Pad",
    "IDMap",
    "IDMap2",
    "RFlat",
    "Refine(",
    "RaBitQ",
    "Residual",
    "MinMax,",
    "FlatDedup",
    "x",
    "_",
    "fs",
    "np",
    "(",
    ")",
    "+",
    "k",
];
const NUMBERS: [&str; 26] = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "12",
    "16",
    "24",
    "32",
    "64",
    "65",
    "100",
    "256",
    "257",
    "1024",
    "65536",
    "65537",
    "4294967296",
    "18446744073709551616",
    "-1",
    "08",
];

struct Random(u64);

impl Random {
    /// From 0 to below `bound` (splitmix64).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// Mostly small, at times up to `max` and just above.
    fn number(&mut self, max: usize) -> String {
        match self.below(8) {
            0 => self.one(&NUMBERS).to_owned(),
            1 => (self.below(max + 3)).to_string(),
            _ => self.below(max.min(40)).to_string(),
        }
    }

    fn codes(&mut self) -> String {
        match self.below(3) {
            0 => format!("PQ{}", self.number(256)),
            1 => format!("PQ{}x{}", self.number(256), self.below(11)),
            _ => self.one(&WORDS[..7]).to_owned(),
        }
    }

    fn string(&mut self) -> String {
        let mut text = match self.below(5) {
            0 => (0..=self.below(6)).map(|_| self.piece()).collect(),
            1 => self.codes(),
            2 => format!("HNSW{}", self.number(64)),
            3 => format!("HNSW{},{}", self.number(64), self.one(&["Flat", "SQ8", "SQ8", "SQ6", "PQ8"])),
            _ => format!("IVF{},{}", self.number(65_536), self.codes()),
        };
        if self.below(4) == 0 {
            let at = self.below(text.len() + 1);
            let at = (at..).find(|&at| text.is_char_boundary(at)).unwrap();
            match self.below(3) {
                0 => text.truncate(at),
                1 => text.insert(at, char::from(b' ' + self.below(95) as u8)),
                _ => text.insert_str(at, &self.piece()),
            }
        }
        text
    }

    fn piece(&mut self) -> String {
        match self.below(3) {
            0 => self.one(&NUMBERS).to_owned(),
            1 => self.one(&WORDS).to_owned(),
            _ => ",".to_owned(),
        }
    }
}

/// Indexes to build by what FAISS is given: dimension, place of the metric, kind of rows.
type Cases = BTreeMap<String, [usize; 3]>;

/// What is to be built of some strings, each once, and how many of them are accepted.
fn cases(strings: u64) -> (Cases, usize) {
    let (mut cases, mut accepted) = (Cases::new(), 0);
    for seed in 0..strings {
        let mut random = Random(seed);
        let text = random.string();
        let Ok(spec) = IndexSpec::parse(&text) else { continue };
        accepted += 1;
        let dims = if spec.rows_min() > LISTS_EACH_DIM { &DIMS[1..2] } else { &DIMS[..] };
        let dim = dims[random.below(dims.len())];
        let metric = random.below(3);
        // Of parts that divide no such dimension, one that they do divide.
        let parts = text.split_once("PQ").and_then(|(_, rest)| rest.split('x').next()?.parse().ok());
        let dim = parts.filter(|parts| !dim.is_multiple_of(*parts)).unwrap_or(dim);
        if spec.check(dim).is_ok() {
            cases.entry(spec.factory()).or_insert([dim, metric, random.below(4)]);
        }
    }
    (cases, accepted)
}

#[test]
fn what_the_grammar_accepts_is_built() {
    let strings = std::env::var("LIKEWISE_FACTORY_STRINGS").map_or(STRINGS, |text| text.parse().unwrap());
    let (cases, accepted) = cases(strings);
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "a_process_that_builds", "--nocapture"]).env(BUILDS, "1");
    let mut process = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines: Vec<_> = cases.iter().collect();
    let mut stdin = process.stdin.take().unwrap();
    let input: String = lines
        .iter()
        .map(|(factory, [dim, metric, kind])| {
            format!("{} {dim} {metric} {kind}\n", factory.trim_end_matches("np"))
        })
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let (send, receive) = mpsc::channel();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok).filter(|line| line.starts_with("built ")) {
            send.send((line, Instant::now())).unwrap();
        }
    });
    let (start, mut last, mut slowest) = (Instant::now(), Instant::now(), (Duration::ZERO, String::new()));
    lines.reverse();
    while let Some(case) = lines.pop() {
        let Ok((line, at)) = receive.recv_timeout(PATIENCE) else {
            process.kill().unwrap();
            panic!(
                "{case:?} has not been built, {} others are still to come: {:?}",
                lines.len(),
                process.wait()
            );
        };
        let took = at.duration_since(last);
        slowest = slowest.max((took, format!("{case:?}: {line}")));
        last = at;
    }
    assert!(process.wait().unwrap().success());
    writer.join().unwrap().unwrap();
    reader.join().unwrap();
    println!(
        "{strings} strings, {accepted} accepted, {} indexes built in {:.0} s; the slowest {:.1} s: {}",
        cases.len(),
        start.elapsed().as_secs_f64(),
        slowest.0.as_secs_f64(),
        slowest.1
    );
    assert!(accepted as u64 > strings / 20 && cases.len() as u64 > strings / 40);
}

/// Rows of a kind: usual ones, all alike, of few values, and of all sizes whose squares are numbers.
fn rows(count: usize, dim: usize, kind: usize, metric: Metric) -> Vec<Vec<f32>> {
    let mut random = Random(7);
    let mut component = |row: usize, at: usize| match kind {
        0 => random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0,
        1 => 0.5 + at as f32,
        2 => [1.0, -1.0, 0.25][(row + at) % 3],
        _ => [1.0, -1.0][random.below(2)] * 10_f32.powi(random.below(34) as i32 - 18),
    };
    let mut rows: Vec<Vec<f32>> =
        (0..count).map(|row| (0..dim).map(|at| component(row, at)).collect()).collect();
    rows.iter_mut().for_each(|row| metric.prepare(row).unwrap());
    rows
}

/// In the process that the test above starts; without it there is nothing to do.
#[test]
fn a_process_that_builds() {
    if std::env::var_os(BUILDS).is_none() {
        return;
    }
    let path = std::env::temp_dir().join(format!("likewise-factory-{}", std::process::id()));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [factory, numbers @ ..] = &words[..] else { panic!("{line:?}") };
        let numbers: Vec<usize> = numbers.iter().map(|number| number.parse().unwrap()).collect();
        let (dim, metric, kind) = (numbers[0], METRICS[numbers[1]], numbers[2]);
        let spec = IndexSpec::parse(factory).unwrap();
        let build_params = BuildParams { spec, metric, dim, ef_construction: 40, threads: 1 };
        if spec.rows_min() > LISTS_EACH_BUILT && (dim > 4 || !spec.rows_min().is_multiple_of(64)) {
            let rows = rows(ROWS, dim, kind, metric);
            let failed = build_params.build(rows.iter().map(Vec::as_slice), &path).unwrap_err().to_string();
            assert!(failed.contains("should be at least as large as number of clusters"), "{line}: {failed}");
            println!("built {line}");
            continue;
        }
        let rows = rows(ROWS.max(spec.rows_min()), dim, kind, metric);
        build_params
            .build(rows.iter().map(Vec::as_slice), &path)
            .unwrap_or_else(|failed| panic!("{line}: {failed}"));
        let content = fs_err::read(&path).unwrap();
        let limit = spec.cost(rows.len(), dim, 40, 1).memory_bytes;
        assert!(peak_bytes() < limit, "{line}: {} bytes of {limit}", peak_bytes());
        if spec.is_graph() {
            let graph = Graph::open(&*content).unwrap_or_else(|malformed| panic!("{line}: {malformed}"));
            let found = graph.search(&rows[0], SearchParams { ef: 20, candidates: 10 }, None);
            assert!(!found.is_empty() && check_faiss_index(&content).is_err(), "{line}");
        } else {
            let shape = check_faiss_index(&content).unwrap_or_else(|malformed| panic!("{line}: {malformed}"));
            assert_eq!((shape.dim, shape.rows), (dim, rows.len()), "{line}");
            let faiss_index = FaissIndex::open(&path, &content, 8).unwrap();
            let found = faiss_index.search(&rows[0], 10).unwrap();
            assert!(found.iter().all(|&row| (row as usize) < rows.len()), "{line}: {found:?}");
        }
        println!("built {line}");
    }
    fs_err::remove_file(path).unwrap();
}

/// The largest resident set of this process so far: proc(5), `VmHWM`.
fn peak_bytes() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
