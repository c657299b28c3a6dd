//! How does a collection with an index grow: time to build and to open, memory, speed, recall; and what do filters cost?
//! In process, one thread, one query at a time.
//!
//! `LIKEWISE_ROWS=100000,300000,1000000` are the sizes. Rows are texts of `LIKEWISE_SHARED_DATA`; past the first 100,000
//! they are the same again with a little noise. `LIKEWISE_PLOT=growth.svg` draws speed and memory over the sizes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise::domain::TenantId;
use likewise::metrics::unexported;
use likewise::search::{
    Catalog, Change, Document, DocumentBatch, Filter, Indexed, Indexing, Metric, Options, Program, Query,
    Settings, Test, View, number,
};
use likewise::storage::collections::Place;
use likewise::storage::{OsFiles, ReadMode};
use likewise_benches::{print_circumstances, vectors};
use likewise_index::Scanner;
use ndarray::Array2;
use plotters::prelude::*;

const REAL: usize = 100_000;
const QUERIES: usize = 320;
const K: usize = 10;
const PASSES: usize = 3;
const BATCH: usize = 2000;
/// Documents in a hundred that a filter keeps.
const SHARES: [usize; 3] = [1, 10, 50];
/// Standard deviation of the noise in each component; components are about 0.05.
const NOISE: f32 = 0.01;

fn main() {
    print_circumstances("indexed");
    let Some((_, vectors)) = vectors::load(REAL + QUERIES) else {
        eprintln!("LIKEWISE_SHARED_DATA is not set: name the directory with text/npm_summaries.jsonl.gz");
        std::process::exit(1);
    };
    let sizes = std::env::var("LIKEWISE_ROWS").unwrap_or_else(|_| "100000,300000,1000000".into());
    println!(
        "all-MiniLM-L6-v2, {} dimensions, {QUERIES} other texts as queries, k = {K}, default settings but for two threads that build; rows past {REAL} are \
         the first ones again with noise of {NOISE}; fastest of {PASSES} passes\n",
        vectors.ncols()
    );
    println!(
        "| rows | stored s | built s | opened s | private MiB | ef | queries/s | recall | exact queries/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let sizes = sizes.split(',').map(|rows| rows.parse().expect("a number of rows"));
    let grown: Vec<Grown> = sizes.map(|rows| grow(rows, &vectors)).collect();
    println!("\n| rows | filter keeps | ms by default | recall | ms of an exact search without filter |");
    println!("|---|---|---|---|---|");
    grown.iter().flat_map(|grown| &grown.filtered).for_each(|line| println!("{line}"));
    if let Some(path) = std::env::var_os("LIKEWISE_PLOT") {
        plot(path.as_ref(), &grown).expect("the plot can be drawn");
    }
}

/// What is plotted of a size, and the lines of its filters.
struct Grown {
    rows: f64,
    indexed_per_second: f64,
    exact_per_second: f64,
    private_mib: f64,
    filtered: Vec<String>,
}

/// Speed on the left, memory on the right, over the number of rows.
fn plot(path: &Path, grown: &[Grown]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (900, 340)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(450);
    let ends = |of: fn(&Grown) -> f64| {
        let values = || grown.iter().map(of);
        values().fold(f64::INFINITY, f64::min) / 1.5..values().fold(0.0, f64::max) * 1.5
    };
    let rows = ends(|grown| grown.rows);
    let speeds = ends(|grown| grown.exact_per_second).start..ends(|grown| grown.indexed_per_second).end;
    let by_index: Series = ("by index, ef 96", BLUE, |grown| grown.indexed_per_second);
    let exact: Series = ("exact", RED, |grown| grown.exact_per_second);
    let memory: Series = ("index and collection", BLUE, |grown| grown.private_mib);
    let panels = [
        (left, "queries/s of one thread", speeds, vec![by_index, exact], SeriesLabelPosition::MiddleRight),
        (
            right,
            "private memory, MiB",
            ends(|grown| grown.private_mib),
            vec![memory],
            SeriesLabelPosition::LowerRight,
        ),
    ];
    for (area, title, values, series, legend) in panels {
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(rows.clone().log_scale(), values.log_scale())?;
        let thousands = |rows: &f64| {
            let leading = rows / 10_f64.powf(rows.log10().floor());
            if [1, 3].contains(&(leading.round() as u32)) {
                format!("{:.0},000", rows / 1e3)
            } else {
                String::new()
            }
        };
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("rows").x_label_formatter(&thousands).y_label_formatter(&|value| format!("{value:.0}"));
        mesh.light_line_style(WHITE).draw()?;
        for (name, colour, of) in series {
            let points: Vec<(f64, f64)> = grown.iter().map(|grown| (grown.rows, of(grown))).collect();
            let line = chart.draw_series(LineSeries::new(points, &colour).point_size(3))?;
            line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(legend)
            .border_style(BLACK)
            .background_style(WHITE)
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// A line of a plot: its name, its colour, its values.
type Series = (&'static str, RGBColor, fn(&Grown) -> f64);

/// Measures a size, and prints its lines but those of its filters.
fn grow(rows: usize, vectors: &Array2<f32>) -> Grown {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let open = || {
        let place = Place { files: Arc::new(OsFiles), dir: dir.path().join("c"), read: ReadMode::Mmap };
        // Nothing is built while rows come, so that one build of all is timed.
        let index = Indexing { rows_min: usize::MAX, build_threads: 2, ..Indexing::default() };
        let options = Options { threads: 1, index, ..Options::default() };
        let program =
            std::env::var_os("LIKEWISE_BINARY").expect("LIKEWISE_BINARY is not set: run `make bench`");
        Catalog::open(place, options, Program::at(program), unexported()).expect("a catalogue")
    };
    let (stored_s, built_s) = {
        let catalog = open();
        let start = Instant::now();
        runtime.block_on(store(&catalog, rows, vectors));
        let stored_s = start.elapsed().as_secs_f64();
        let collection = catalog.get(&TenantId::default(), "rows").expect("it is there");
        let start = Instant::now();
        collection.index().expect("an index is allowed");
        while collection.is_indexing() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let built_s = start.elapsed().as_secs_f64();
        assert_eq!(collection.view().indexed_rows(), rows);
        catalog.close();
        (stored_s, built_s)
    };
    let before = private_mib();
    let start = Instant::now();
    let catalog = open();
    let opened_s = start.elapsed().as_secs_f64();
    let memory = private_mib() - before;
    let collection = catalog.get(&TenantId::default(), "rows").expect("it is there");
    let view = collection.view();
    assert_eq!(view.indexed_rows(), rows, "the snapshot was opened");
    let scanner = Scanner::new(1).expect("one thread");
    let measure = |filter: Option<Filter>, ef: Option<usize>| {
        let filter = filter.map(Arc::new);
        run(&view, &scanner, vectors, &filter, ef)
    };
    let ef = Indexing::default().ef;
    let (exact_s, exact) = measure(None, None);
    let mut indexed_per_second = 0.0;
    for tried in [ef / 2, ef, 2 * ef] {
        let (seconds, found) = measure(None, Some(tried));
        if tried == ef {
            indexed_per_second = 1.0 / seconds;
        }
        println!(
            "| {rows} | {stored_s:.1} | {built_s:.1} | {opened_s:.3} | {memory:.0} | {tried} | {:.0} | {:.4} | {:.0} |",
            1.0 / seconds,
            recall(&exact, &found),
            1.0 / exact_s
        );
    }
    let line = |share: usize| {
        let kept = || Test::In((0..share).map(|n| number(n as f64)).collect());
        let of = || Some(Filter::Field("hundredth".into(), kept()));
        let (_, exact) = measure(of(), None);
        let (seconds, found) = measure(of(), Some(ef));
        format!(
            "| {rows} | {share} % | {:.3} | {:.4} | {:.3} |",
            seconds * 1e3,
            recall(&exact, &found),
            exact_s * 1e3
        )
    };
    let filtered = SHARES.map(line).into();
    Grown {
        rows: rows as f64,
        indexed_per_second,
        exact_per_second: 1.0 / exact_s,
        private_mib: memory,
        filtered,
    }
}

async fn store(catalog: &Catalog, rows: usize, vectors: &Array2<f32>) {
    let settings =
        Settings { metric: Metric::Cosine, dim: vectors.ncols(), model: None, index: Indexed::Auto };
    let (collection, _) = catalog.create(&TenantId::default(), "rows", settings).await.expect("a collection");
    let mut noise = noise();
    for from in (0..rows).step_by(BATCH) {
        let mut batch = DocumentBatch::default();
        for row in from..(from + BATCH).min(rows) {
            let mut vector = vectors.row(row % REAL).to_vec();
            if row >= REAL {
                vector.iter_mut().for_each(|x| *x += NOISE * noise());
            }
            Metric::Cosine.prepare(&mut vector).expect("a vector with a direction");
            batch.vectors.extend(vector);
            batch.documents.push(Document {
                id: row.to_string(),
                text: None,
                metadata: format!(r#"{{"hundredth":{}}}"#, row % 100),
                tags: Vec::new(),
                has_own_vector: true,
            });
        }
        collection.change(Change::Upsert(batch)).await.expect("room on the disk");
    }
}

/// Seconds of a search, and the scores that each query found.
fn run(
    view: &View,
    scanner: &Scanner,
    vectors: &Array2<f32>,
    filter: &Option<Arc<Filter>>,
    ef: Option<usize>,
) -> (f64, Vec<Vec<f32>>) {
    let (mut best, mut found) = (f64::INFINITY, Vec::new());
    for _ in 0..PASSES {
        found.clear();
        let start = Instant::now();
        for query in vectors.rows().into_iter().skip(REAL) {
            let filter = filter.clone();
            let vectors = query.to_vec();
            let query = Query {
                vectors,
                k: K,
                filter,
                score_min: None,
                has_vectors: false,
                ef,
                bytes_max: usize::MAX,
            };
            found.push(
                view.search(scanner, &query).expect("small results")[0]
                    .iter()
                    .map(|hit| hit.score)
                    .collect::<Vec<f32>>(),
            );
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    (best / QUERIES as f64, found)
}

fn recall(exact: &[Vec<f32>], found: &[Vec<f32>]) -> f64 {
    let hits = |(exact, found): (&Vec<f32>, &Vec<f32>)| {
        found.iter().filter(|&score| exact.last().is_some_and(|last| score >= last)).count().min(exact.len())
    };
    let wanted: usize = exact.iter().map(Vec::len).sum();
    exact.iter().zip(found).map(hits).sum::<usize>() as f64 / wanted as f64
}

/// Numbers of about a normal distribution: sums of four from a linear congruential generator (Knuth, MMIX).
fn noise() -> impl FnMut() -> f32 {
    let mut state = 1_u64;
    move || {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (next() + next() + next() + next()) * 3.0_f32.sqrt()
    }
}

/// Memory of this process that no file backs.
fn private_mib() -> f64 {
    let status = fs_err::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a line for it");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib / 1024.0
}
