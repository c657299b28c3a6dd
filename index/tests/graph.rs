//! Indexes that FAISS builds, against the exact scan; and files that no FAISS wrote.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::path::PathBuf;

use likewise_index::{
    Block, BuildParams, FaissIndex, Graph, IndexSpec, Metric, Scanner, SearchParams, Vectors,
    check_faiss_index, flat_header,
};
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
    build_params(factory, metric, rows.ncols()).build(slices(rows).into_iter(), &path).unwrap();
    path
}

fn build_params(factory: &str, metric: Metric, dim: usize) -> BuildParams {
    BuildParams { spec: IndexSpec::parse(factory).unwrap(), metric, dim, ef_construction: 100, threads: 2 }
}

fn slices(rows: &Array2<f32>) -> Vec<&[f32]> {
    rows.outer_iter().map(|row| row.to_slice().unwrap()).collect()
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

const PARAMS: SearchParams = SearchParams { ef: 100, candidates: 40 };

#[test]
fn graphs_find_what_the_scan_finds() {
    let queries = vectors(50, 50, 3);
    for metric in [Metric::Cosine, Metric::InnerProduct, Metric::L2] {
        for factory in ["HNSW32", "HNSW16,SQ8", "HNSW32,Flat"] {
            let rows = vectors(3000, 50, 2);
            let path = build(factory, metric, &rows);
            let graph = Graph::open(fs_err::read(&path).unwrap()).unwrap();
            assert_eq!((graph.len(), graph.dim()), (3000, 50));
            let all = recall(metric, &rows, &queries, |_| true, |query| graph.search(query, PARAMS, None));
            assert!(all >= 0.98, "{factory} {metric:?}: {all}");
            let keep = |row: u32| row % 3 == 1;
            let third =
                recall(metric, &rows, &queries, keep, |query| graph.search(query, PARAMS, Some(&keep)));
            assert!(third >= 0.97, "{factory} {metric:?}, every third row: {third}");
            fs_err::remove_file(path).unwrap();
        }
    }
}

#[test]
fn other_kinds_are_searched_by_faiss_from_many_threads() {
    let (rows, queries) = (vectors(3000, 32, 4), vectors(50, 32, 5));
    for factory in ["IVF32,SQ8", "IVF32,Flat", "SQ8", "SQbf16"] {
        let path = build(factory, Metric::Cosine, &rows);
        assert!(Graph::open(fs_err::read(&path).unwrap()).is_err());
        let faiss_index = FaissIndex::open(&path, &fs_err::read(&path).unwrap(), 32).unwrap();
        assert_eq!((faiss_index.len(), faiss_index.dim()), (3000, 32));
        let search = |query: &[f32]| faiss_index.search(query, 40).unwrap();
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
fn builds_that_cannot_be_are_errors() {
    let few = vectors(10, 32, 7);
    let failed =
        build_params("IVF64,Flat", Metric::L2, 32).build(slices(&few).into_iter(), &file("few")).unwrap_err();
    let said = "Number of training points (10) should be at least as large as number of clusters (64)";
    assert_eq!(failed.to_string(), format!("FAISS: {said}"));
    let failed =
        build_params("PQ5", Metric::L2, 32).build(slices(&few).into_iter(), &file("parts")).unwrap_err();
    assert!(failed.to_string().contains("does not divide the dimension 32"), "{failed}");
    let nowhere = file("missing").join("file");
    let failed = build_params("Flat", Metric::L2, 32).build(slices(&few).into_iter(), &nowhere).unwrap_err();
    assert!(!failed.to_string().contains(".cpp"), "{failed}");
}

/// Searches every kind of file that FAISS reads itself, whole, cut short and with each byte changed.
#[test]
fn damaged_files_never_reach_faiss_or_do_no_harm_there() {
    let rows = vectors(300, 8, 12);
    let query = rows.row(0).to_vec();
    for factory in ["Flat", "SQ4", "SQfp16", "PQ4", "IVF4,Flat", "IVF2,SQ6", "IVF3,PQ2x4"] {
        let path = build(factory, Metric::L2, &rows);
        let whole = fs_err::read(&path).unwrap();
        assert_eq!(check_faiss_index(&whole).map(|shape| (shape.dim, shape.rows)), Ok((8, 300)), "{factory}");
        for length in 0..whole.len() {
            assert!(
                check_faiss_index(&whole[..length]).is_err(),
                "{factory}: {length} of {} bytes",
                whole.len()
            );
        }
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= [0x01, 0x80, 0xFF][at % 3];
            if check_faiss_index(&damaged).is_err() {
                refused += 1;
            } else if at % 7 == 0 || at < 400 {
                fs_err::write(&path, &damaged).unwrap();
                if let Ok(faiss_index) = FaissIndex::open(&path, &damaged, 4) {
                    let found = faiss_index.search(&query, 20).unwrap_or_default();
                    assert!(found.iter().all(|&row| row < 300), "{factory}: byte {at}");
                }
            }
        }
        assert!(refused > 20, "{factory}: {refused} refused");
        fs_err::remove_file(path).unwrap();
    }
}

#[test]
fn an_empty_graph_finds_nothing() {
    let path = build("HNSW8,Flat", Metric::Cosine, &Array2::zeros((0, 16)));
    let graph = Graph::open(fs_err::read(&path).unwrap()).unwrap();
    assert!(graph.is_empty() && graph.search(&[0.5; 16], PARAMS, None).is_empty());
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

/// FAISS gives ids from 0 on unless the caller passes others.
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
                        let found = graph.search(rows.row(0).as_slice().unwrap(), PARAMS, None);
                        assert!(found.iter().all(|&row| row < 60));
                    }
                }
            }
        }
        assert!(refused > 1000, "{factory}: {refused} refused");
        fs_err::remove_file(path).unwrap();
    }
}
