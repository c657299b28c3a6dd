//! Real vectors: short texts embedded once by the program under test, and kept as a `.npy` file.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ndarray::Array2;

const DIM: usize = 384;
/// Texts are taken so many lines apart, so that the first ones are as varied as all.
const STEP: usize = 65_537;

/// The file of the vectors, and the vectors; nothing if it would have to be made and nobody says of which texts.
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
    let vectors = read(&path, len);
    Some((path, vectors))
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
    file.write_all(&header(texts.len())).expect("room on the disk");
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
fn header(rows: usize) -> Vec<u8> {
    let about = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIM}), }}");
    let len = (10 + about.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(format!("{about:<width$}\n", width = len - 1).as_bytes());
    header
}

fn read(path: &Path, len: usize) -> Array2<f32> {
    let header = header(len);
    let mut bytes = Vec::new();
    fs_err::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .expect("the vectors are readable");
    assert!(bytes.starts_with(&header), "{} was not written by this program", path.display());
    let floats =
        bytes[header.len()..].as_chunks::<4>().0.iter().map(|&float| f32::from_le_bytes(float)).collect();
    Array2::from_shape_vec((len, DIM), floats).expect("as many vectors as its head says")
}
