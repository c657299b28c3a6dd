//! How fast are graphs that FAISS built, searched in place, beside FAISS itself and other indexes in the same run? Single
//! queries, one thread; recall at 10 against the exact scan.
//!
//! `LIKEWISE_SHARED_DATA` names the directory with `text/npm_summaries.jsonl.gz`, whose texts are embedded once and kept
//! in `LIKEWISE_BENCH_CACHE`. `LIKEWISE_PEERS_PYTHON` names a Python with `peers/requirements.txt`, GloVe's words among them.
//! `LIKEWISE_PEERS=faiss-hnsw32,hnswlib` leaves out all peers but these, and `LIKEWISE_VECTORS=texts` or `words` the others.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use likewise::storage::{Files as _, FrozenFile, OsFiles};
use likewise_benches::{percentile, print_circumstances, vectors};
use likewise_index::{Block, BuildParams, Graph, IndexSpec, Metric, Scanner, SearchParams, score};
use ndarray::{Array2, ArrayView2, s};
use serde_json::Value;

const TEXTS: usize = 100_000;
const QUERIES: usize = 320;
const K: usize = 10;
/// Passes over all queries; the fastest counts, as for the peers.
const PASSES: usize = 5;
const EF_CONSTRUCTION: usize = 200;
const EFS: [usize; 15] = [16, 20, 24, 28, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768];
/// Times that a file is opened; the median counts.
const REOPENED: usize = 7;
/// Rows that are scored exactly, unless less effort is asked for; as a collection does for ten results.
const CANDIDATES: usize = 40;
const TARGETS: [f64; 2] = [0.95, 0.99];
const PEERS: &str =
    "faiss-hnsw32,faiss-hnsw32-sq8,faiss-ivf-pqfs-refine,hnswlib,usearch-f32,usearch-i8,qdrant-edge-sq8";

/// The mapped file, as a collection holds it.
struct Mapped(FrozenFile);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// One line of the table.
struct Line {
    name: String,
    build_s: f64,
    bytes_per_vector: f64,
    reopen_ms: f64,
    /// Effort, recall, queries per second.
    points: Vec<(u64, f64, f64)>,
}

fn main() {
    print_circumstances("graph");
    let wanted = std::env::var("LIKEWISE_VECTORS").unwrap_or_else(|_| "texts,words".into());
    for name in wanted.split(',') {
        let (what, loaded) = match name {
            "texts" => ("texts of npm, all-MiniLM-L6-v2", vectors::load(TEXTS + QUERIES)),
            "words" => ("words of GloVe 6B", vectors::load_words(&python(), QUERIES)),
            other => panic!("LIKEWISE_VECTORS is texts, words or both, not {other}"),
        };
        match loaded {
            Some((path, vectors)) => table(what, &path, &vectors),
            None => println!("SKIPPED: {what}: LIKEWISE_SHARED_DATA or LIKEWISE_PEERS_PYTHON is missing\n"),
        }
    }
}

fn python() -> PathBuf {
    std::env::var_os("LIKEWISE_PEERS_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from)
}

/// Measures everything over the vectors, of which the last are the queries.
fn table(what: &str, path: &Path, vectors: &Array2<f32>) {
    let count = vectors.nrows() - QUERIES;
    let (rows, queries) = (vectors.slice(s![..count, ..]), vectors.slice(s![count.., ..]));
    println!(
        "{what}: {count} rows of {} dimensions, {QUERIES} others as queries, k = {K}; built with two threads, {EF_CONSTRUCTION} \
         nodes looked at for each row; searched with one thread, one query at a time, fastest of {PASSES} passes; opened \
         {REOPENED} times, median\n",
        vectors.ncols()
    );
    let truth = exact(rows, queries);
    let dir = tempfile::tempdir().expect("a directory");
    let ours = |factory: &str| measure(factory, rows, queries, &truth, dir.path());
    let mut lines = vec![ours("HNSW32,SQ8"), ours("HNSW32")];
    for peer in std::env::var("LIKEWISE_PEERS").unwrap_or_else(|_| PEERS.into()).split(',') {
        lines.extend(ask(peer, path, count));
    }
    // Once more, because the machine's speed drifts.
    lines.push(ours("HNSW32,SQ8"));
    println!(
        "| index | build s | bytes a vector | reopen ms | queries/s at .95 (effort, recall) | at .99 | best recall |"
    );
    println!("|---|---|---|---|---|---|---|");
    lines.iter().for_each(print);
    println!();
}

/// The score of the tenth neighbour of each query.
fn exact(rows: ArrayView2<'_, f32>, queries: ArrayView2<'_, f32>) -> Vec<f32> {
    let block = Block { rows, codes: None, keep: None };
    let found = Scanner::new(2).expect("threads").search(Metric::Cosine, &[block], queries, K);
    found.iter().map(|found| found[K - 1].score).collect()
}

fn measure(
    factory: &str,
    rows: ArrayView2<'_, f32>,
    queries: ArrayView2<'_, f32>,
    truth: &[f32],
    dir: &Path,
) -> Line {
    let (metric, dim) = (Metric::Cosine, rows.ncols());
    let file = dir.join(factory.replace(',', "-"));
    let spec = IndexSpec::parse(factory).expect("a kind that may be built");
    let build_params = BuildParams { spec, metric, dim, ef_construction: EF_CONSTRUCTION, threads: 2 };
    let all: Array2<f32> = rows.to_owned();
    let slices: Vec<&[f32]> =
        (0..rows.nrows()).map(|row| &all.as_slice().expect("rows")[row * dim..][..dim]).collect();
    let start = Instant::now();
    if !file.exists() {
        build_params.build(slices.iter().copied(), &file).expect("FAISS builds");
    }
    let build_s = start.elapsed().as_secs_f64();
    let bytes = fs_err::metadata(&file).expect("a file").len();
    let open = || {
        let start = Instant::now();
        let mapped = OsFiles.open(&file).and_then(|file| file.map_frozen(bytes));
        let mapped = mapped.expect("a mapping").expect("a mapping");
        // As the collection does, which knows what it must be.
        assert_ne!(crc32c::crc32c(mapped.bytes()), 0);
        (Graph::open(Mapped(mapped)).expect("a graph"), start.elapsed().as_secs_f64() * 1e3)
    };
    let mut reopened: Vec<f64> = (0..REOPENED).map(|_| open().1).collect();
    reopened.sort_by(f64::total_cmp);
    let (graph, _) = open();
    let search = |query: &[f32], ef: usize| {
        let candidates = graph.search(query, SearchParams { ef, candidates: CANDIDATES.min(ef) }, None);
        let mut scores: Vec<f32> =
            candidates.iter().map(|&row| score(metric, query, slices[row as usize])).collect();
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        scores.truncate(K);
        scores
    };
    let points = EFS.map(|ef| {
        let mut best = f64::INFINITY;
        let mut hits = 0;
        for _ in 0..PASSES {
            hits = 0;
            let start = Instant::now();
            for (query, tenth) in queries.rows().into_iter().zip(truth) {
                let found = search(query.to_slice().expect("a row"), ef);
                hits += found.iter().filter(|&score| score >= tenth).count();
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        (ef as u64, hits as f64 / (QUERIES * K) as f64, QUERIES as f64 / best)
    });
    Line {
        name: format!("likewise {factory}"),
        build_s,
        bytes_per_vector: bytes as f64 / slices.len() as f64,
        reopen_ms: percentile(&reopened, 0.5),
        points: points.to_vec(),
    }
}

/// A peer's figures; none, and a word, if it cannot be measured.
fn ask(peer: &str, vectors: &Path, rows: usize) -> Option<Line> {
    let python = python();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/graph.py");
    let output = Command::new(&python)
        .arg(script)
        .args([vectors.as_os_str(), QUERIES.to_string().as_ref(), peer.as_ref()])
        .args([EF_CONSTRUCTION.to_string(), PASSES.to_string()])
        .env("OMP_NUM_THREADS", "2")
        .output();
    let answer = output.ok().filter(|output| output.status.success()).or_else(|| {
        println!("SKIPPED: {peer}: {} cannot run peers/graph.py\n", python.display());
        None
    })?;
    let answer: Value = serde_json::from_slice(&answer.stdout).expect("a line of JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    let point = |point: &Value| (number(&point[0]) as u64, number(&point[1]), number(&point[2]));
    Some(Line {
        name: peer.to_owned(),
        build_s: number(&answer["build_s"]),
        bytes_per_vector: number(&answer["bytes"]) / rows as f64,
        reopen_ms: number(&answer["reopen_ms"]),
        points: answer["points"].as_array().expect("a list").iter().map(point).collect(),
    })
}

fn print(line: &Line) {
    let at = |target: f64| {
        let reached = line.points.iter().filter(|(_, recall, _)| *recall >= target);
        let best = reached.max_by(|a, b| a.2.total_cmp(&b.2));
        best.map_or("-".into(), |(effort, recall, qps)| format!("{qps:.0} ({effort}, {recall:.4})"))
    };
    let best = line.points.iter().map(|point| point.1).fold(0.0, f64::max);
    let [low, high] = TARGETS.map(at);
    println!(
        "| {} | {:.1} | {:.0} | {:.1} | {low} | {high} | {best:.4} |",
        line.name, line.build_s, line.bytes_per_vector, line.reopen_ms
    );
}
