//! How long does the search for near questions take in a scope of 10,000, 100,000 and a million, by sketches and by codes alone?
//!
//! Rows lie as in the server: in buckets of 1,024, int8 codes and sketches beside each other. They are drawn so that two of
//! them have the cosine that unrelated questions have with the model; a tenth of the queries has four rows that are just
//! as near as the threshold. One thread, one query after the other, all distinct; both ways in turn.

use std::time::Instant;

use likewise_benches::{percentile, print_circumstances};
use likewise_index::{Codes, Metric, Neighbor, QueryCodes, SketchRadius, Sketcher, Sketches};

const DIM: usize = 384;
const BUCKET_ROWS: usize = 1024;
const ROWS: [usize; 3] = [10_000, 100_000, 1_000_000];
const QUERIES: usize = 1000;
/// A query of so many has near rows.
const NEAR_EVERY: usize = 10;
const NEAR_ROWS: usize = 4;
const K: usize = 8;

/// What two unrelated questions have in common, and the threshold: of all-MiniLM-L6-v2 and of multilingual-e5-small.
const MODELS: [(&str, f32, f32); 2] =
    [("all-MiniLM-L6-v2", 0.25, 0.85), ("multilingual-e5-small", 0.8, 0.96)];

struct Bucket {
    codes: Codes,
    sketches: Sketches,
}

/// Numbers of a linear congruential generator (Knuth, MMIX).
struct Noise(u64);

fn main() {
    print_circumstances("questions");
    println!(
        "{QUERIES} queries, {} of them with {NEAR_ROWS} rows as near as the threshold; ms",
        QUERIES / NEAR_EVERY
    );
    println!(
        "| vectors as of | rows | codes alone: p50 | p99 | sketches first: p50 | p99 | near rows found | bytes of sketches a row |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (model, unrelated, threshold) in MODELS {
        for rows in ROWS {
            measure(model, unrelated, threshold, rows);
        }
    }
}

fn measure(model: &str, unrelated: f32, threshold: f32, rows: usize) {
    let (mut noise, sketcher) = (Noise(7), Sketcher::new(DIM));
    let common = noise.unit();
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|_| noise.at(&common, unrelated.sqrt())).collect();
    let mut buckets = Vec::<Bucket>::new();
    let near = QUERIES / NEAR_EVERY * NEAR_ROWS;
    for row in 0..rows {
        // Those that are near lie all over the scope.
        let of_query = (row % (rows / near) == 0).then_some(row / (rows / near)).filter(|at| *at < near);
        let vector = match of_query {
            Some(at) => noise.at(&queries[at / NEAR_ROWS * NEAR_EVERY], threshold),
            None => noise.at(&common, unrelated.sqrt()),
        };
        if row % BUCKET_ROWS == 0 {
            buckets.push(Bucket { codes: Codes::new(Metric::Cosine, DIM), sketches: Sketches::default() });
        }
        let bucket = buckets.last_mut().expect("one was pushed");
        bucket.codes.push(&vector);
        bucket.sketches.push(sketcher.sketch(&vector));
    }
    let bytes: usize = buckets.iter().map(|bucket| bucket.sketches.memory_bytes()).sum();
    let (mut alone, mut first, mut found, mut expected) = (Vec::new(), Vec::new(), 0, 0);
    for query in &queries {
        let timed = |search: &dyn Fn() -> Vec<f32>| {
            let start = Instant::now();
            let scores = search();
            (start.elapsed().as_secs_f64() * 1e3, scores)
        };
        let (ms, by_codes) = timed(&|| by_codes(&buckets, query));
        alone.push(ms);
        let (ms, by_sketches) = timed(&|| by_sketches(&buckets, &sketcher, query, threshold));
        first.push(ms);
        let near = |scores: &[f32]| scores.iter().filter(|score| **score >= threshold).count();
        expected += near(&by_codes);
        found += near(&by_sketches);
    }
    for values in [&mut alone, &mut first] {
        values.sort_by(f64::total_cmp);
    }
    println!(
        "| {model} | {rows} | {:.3} | {:.3} | {:.3} | {:.3} | {found} of {expected} | {} |",
        percentile(&alone, 0.5),
        percentile(&alone, 0.99),
        percentile(&first, 0.5),
        percentile(&first, 0.99),
        bytes / rows
    );
}

fn by_codes(buckets: &[Bucket], query: &[f32]) -> Vec<f32> {
    let query = QueryCodes::new(query).expect("a unit vector");
    best(buckets.iter().flat_map(|bucket| bucket.codes.view().nearest(&query, K)))
}

fn by_sketches(buckets: &[Bucket], sketcher: &Sketcher, query: &[f32], threshold: f32) -> Vec<f32> {
    let (sketch, radius) = (sketcher.sketch(query), SketchRadius::of_cosine(threshold));
    let query = QueryCodes::new(query).expect("a unit vector");
    let mut within = Vec::new();
    best(buckets.iter().flat_map(|bucket| {
        within.clear();
        bucket.sketches.within(&sketch, radius, &mut within);
        bucket.codes.view().nearest_of(&query, &within, K)
    }))
}

fn best(found: impl Iterator<Item = Neighbor>) -> Vec<f32> {
    let mut scores: Vec<f32> = found.map(|found| found.score).collect();
    scores.sort_by(|one, other| other.total_cmp(one));
    scores.truncate(K);
    scores
}

impl Noise {
    fn number(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A direction; sums of three numbers are close enough to normal.
    fn unit(&mut self) -> Vec<f32> {
        let mut vector: Vec<f32> = (0..DIM).map(|_| self.number() + self.number() + self.number()).collect();
        Metric::Cosine.prepare(&mut vector).expect("not zero");
        vector
    }

    /// A unit vector at this cosine to another one.
    fn at(&mut self, to: &[f32], cosine: f32) -> Vec<f32> {
        let mut across = self.unit();
        let along: f32 = across.iter().zip(to).map(|(x, y)| x * y).sum();
        across.iter_mut().zip(to).for_each(|(x, y)| *x -= along * y);
        Metric::Cosine.prepare(&mut across).expect("not along the other one");
        let share = (1.0 - cosine * cosine).sqrt();
        let mut vector: Vec<f32> = to.iter().zip(across).map(|(x, y)| cosine * x + share * y).collect();
        Metric::Cosine.prepare(&mut vector).expect("a unit vector");
        vector
    }
}
