//! Indexes that FAISS builds, against the exact scan; and files that no FAISS wrote.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::path::PathBuf;

use likewise_index::{Block, Effort, Graph, Metric, Recipe, Resident, Scanner, Vectors, flat_header};
use ndarray::{Array2, ArrayView2};

const K: usize = 10;

/// Vectors around a few centres, as texts lie around topics, from a linear congruential generator (Knuth, MMIX).
fn vectors(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let mut state = seed;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let centres: Vec<f32> = {
        let mut state = 1_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..20 * dim).map(|_| next()).collect()
    };
    let mut made = Array2::zeros((rows, dim));
    for (number, mut row) in made.rows_mut().into_iter().enumerate() {
        let centre = &centres[number % 20 * dim..][..dim];
        row.iter_mut().zip(centre).for_each(|(x, centre)| *x = centre + noise());
        Metric::Cosine.prepare(row.as_slice_mut().unwrap()).unwrap();
    }
    made
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("graph-{name}-{}", std::process::id()))
}

fn build(factory: &str, metric: Metric, rows: &Array2<f32>) -> PathBuf {
    let path = file(&format!("{}-{metric:?}-{}", factory.replace(',', "_"), rows.len()));
    let recipe =
        Recipe { factory: factory.into(), metric, dim: rows.ncols(), ef_construction: 100, threads: 2 };
    let all: Vec<&[f32]> = rows.rows().into_iter().map(|row| row.to_slice().unwrap()).collect();
    recipe.build(all.iter().copied(), &path, || true).unwrap().unwrap();
    path
}

fn exact(metric: Metric, rows: &Array2<f32>, query: &[f32], keep: impl Fn(u32) -> bool) -> Vec<u32> {
    let query = ArrayView2::from_shape((1, query.len()), query).unwrap();
    let block = Block { rows: rows.view(), codes: None, keep: None };
    let found = Scanner::new(1).unwrap().search(metric, &[block], query, rows.nrows()).remove(0);
    found.into_iter().map(|neighbor| neighbor.row).filter(|&row| keep(row)).take(K).collect()
}

/// The share of the exact results that are among the candidates.
fn recall(
    metric: Metric,
    rows: &Array2<f32>,
    queries: &Array2<f32>,
    keep: impl Fn(u32) -> bool,
    search: impl Fn(&[f32]) -> Vec<u32>,
) -> f64 {
    let mut found = 0;
    for query in queries.rows() {
        let query = query.to_slice().unwrap();
        let candidates = search(query);
        assert!(candidates.iter().all(|&row| keep(row)), "a row that is not kept");
        assert_eq!(candidates.iter().collect::<HashSet<_>>().len(), candidates.len(), "a row twice");
        found += exact(metric, rows, query, &keep).iter().filter(|row| candidates.contains(row)).count();
    }
    found as f64 / (queries.nrows() * K) as f64
}

const EFFORT: Effort = Effort { ef: 100, candidates: 40 };

#[test]
fn graphs_find_what_the_scan_finds() {
    let queries = vectors(50, 50, 3);
    for metric in [Metric::Cosine, Metric::InnerProduct, Metric::L2] {
        for factory in ["HNSW32", "HNSW16,SQ8", "HNSW32,Flat"] {
            let rows = vectors(3000, 50, 2);
            let path = build(factory, metric, &rows);
            let graph = Graph::open(fs_err::read(&path).unwrap()).unwrap();
            assert_eq!((graph.len(), graph.dim()), (3000, 50));
            let all = recall(metric, &rows, &queries, |_| true, |query| graph.search(query, EFFORT, None));
            assert!(all >= 0.98, "{factory} {metric:?}: {all}");
            let keep = |row: u32| row % 3 == 1;
            let third =
                recall(metric, &rows, &queries, keep, |query| graph.search(query, EFFORT, Some(&keep)));
            assert!(third >= 0.97, "{factory} {metric:?}, every third row: {third}");
            fs_err::remove_file(path).unwrap();
        }
    }
}

#[test]
fn other_kinds_are_searched_by_faiss_from_many_threads() {
    let (rows, queries) = (vectors(3000, 32, 4), vectors(50, 32, 5));
    for factory in ["IVF32,SQ8", "IVF32,Flat", "SQ8"] {
        let path = build(factory, Metric::Cosine, &rows);
        assert!(Graph::open(fs_err::read(&path).unwrap()).is_err());
        let resident = Resident::open(&path, 32).unwrap();
        assert_eq!((resident.len(), resident.dim()), (3000, 32));
        let search = |query: &[f32]| resident.search(query, 40).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let all = recall(Metric::Cosine, &rows, &queries, |_| true, search);
                    assert!(all >= 0.98, "{factory}: {all}");
                });
            }
        });
        fs_err::remove_file(path).unwrap();
    }
}

#[test]
fn a_build_that_nobody_wants_any_more_ends() {
    let rows = vectors(100, 8, 6);
    let all: Vec<&[f32]> = rows.rows().into_iter().map(|row| row.to_slice().unwrap()).collect();
    let recipe =
        Recipe { factory: "HNSW8".into(), metric: Metric::L2, dim: 8, ef_construction: 40, threads: 1 };
    assert_eq!(recipe.build(all.iter().copied(), &file("unwanted"), || false), Ok(None));
    assert!(!file("unwanted").exists());
}

#[test]
fn wrong_recipes_are_refused() {
    for factory in [
        "",
        "HNSW0x",
        "Quux12",
        "IVF999999999,Flat",
        "PQ7",
        "HNSW32;rm",
        "HNSW32,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8",
    ] {
        let recipe =
            Recipe { factory: factory.into(), metric: Metric::L2, dim: 32, ef_construction: 40, threads: 1 };
        assert!(recipe.check().is_err(), "{factory:?}");
    }
    // Fewer rows than lists.
    let rows = vectors(10, 32, 7);
    let all: Vec<&[f32]> = rows.rows().into_iter().map(|row| row.to_slice().unwrap()).collect();
    let recipe =
        Recipe { factory: "IVF64,Flat".into(), metric: Metric::L2, dim: 32, ef_construction: 40, threads: 1 };
    assert!(recipe.build(all.iter().copied(), &file("few"), || true).is_err());
}

#[test]
fn an_empty_graph_finds_nothing() {
    let path = build("HNSW8,Flat", Metric::Cosine, &Array2::zeros((0, 16)));
    let graph = Graph::open(fs_err::read(&path).unwrap()).unwrap();
    assert!(graph.is_empty() && graph.search(&[0.5; 16], EFFORT, None).is_empty());
    fs_err::remove_file(path).unwrap();
}

#[test]
fn flat_files_are_what_faiss_writes() {
    let rows = vectors(7, 12, 8);
    for metric in [Metric::Cosine, Metric::L2] {
        let path = build("Flat", metric, &rows);
        let written = fs_err::read(&path).unwrap();
        let mut made = flat_header(metric, 12, 7).to_vec();
        rows.iter().for_each(|x| made.extend(x.to_le_bytes()));
        assert_eq!(made, written);
        fs_err::remove_file(path).unwrap();
    }
}

#[test]
fn rows_come_out_of_files_as_they_went_in() {
    let rows = vectors(300, 24, 9);
    for (factory, error_max) in [
        ("Flat", 0.0),
        ("HNSW8", 0.0),
        ("IDMap,Flat", 0.0),
        ("SQ8", 0.01),
        ("HNSW8,SQ8", 0.01),
        ("IDMap2,HNSW8,SQ8", 0.01),
    ] {
        let path = build_with_ids(factory, &rows);
        let file = fs_err::read(&path).unwrap();
        let vectors = Vectors::read(&file).unwrap();
        assert_eq!((vectors.len(), vectors.dim(), vectors.metric()), (300, 24, Metric::InnerProduct));
        assert_eq!(vectors.id(299), factory.starts_with("IDMap").then_some(299), "{factory}");
        for (number, row) in rows.rows().into_iter().enumerate() {
            let is_near = |(x, y): (&f32, f32)| (x - y).abs() <= error_max;
            assert!(row.iter().zip(vectors.row(number)).all(is_near), "{factory}");
        }
        fs_err::remove_file(path).unwrap();
    }
}

/// FAISS gives ids from 0 on where it is not told others.
fn build_with_ids(factory: &str, rows: &Array2<f32>) -> PathBuf {
    let Some(inner) = factory.strip_prefix("IDMap2,").or(factory.strip_prefix("IDMap,")) else {
        return build(factory, Metric::Cosine, rows);
    };
    let path = build(inner, Metric::Cosine, rows);
    let file = fs_err::read(&path).unwrap();
    let tag: &[u8] = if factory.starts_with("IDMap2") { b"IxM2" } else { b"IxMp" };
    let ids = (0..rows.nrows() as i64).flat_map(i64::to_le_bytes);
    let count = (rows.nrows() as u64).to_le_bytes();
    let wrapped: Vec<u8> =
        tag.iter().chain(&file[4..37]).chain(&file).chain(&count).copied().chain(ids).collect();
    fs_err::write(&path, wrapped).unwrap();
    path
}

#[test]
fn damaged_files_give_errors_or_other_neighbours_and_nothing_worse() {
    let rows = vectors(60, 6, 10);
    for factory in ["HNSW4", "HNSW4,SQ8"] {
        let path = build(factory, Metric::L2, &rows);
        let whole = fs_err::read(&path).unwrap();
        for length in 0..whole.len() {
            assert!(Graph::open(&whole[..length]).is_err(), "{factory}: {length} of {} bytes", whole.len());
            assert!(Vectors::read(&whole[..length]).is_err(), "{factory}: {length} of {} bytes", whole.len());
        }
        let mut refused = 0;
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                match Graph::open(&damaged) {
                    Err(_) => refused += 1,
                    Ok(graph) => {
                        let found = graph.search(rows.row(0).as_slice().unwrap(), EFFORT, None);
                        assert!(found.iter().all(|&row| row < 60));
                    }
                }
            }
        }
        assert!(refused > 1000, "{factory}: {refused} refused");
        fs_err::remove_file(path).unwrap();
    }
}
