//! faiss-cpu in a child process, asked for figures over a pipe.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use likewise_benches::{Spread, spread};

/// A Python with faiss that has loaded the vectors.
pub(super) struct Faiss {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Milliseconds per query, and rows found.
pub(super) struct Figures {
    pub(super) flat: Spread,
    pub(super) codes: Spread,
    pub(super) flat_batch: Spread,
    pub(super) codes_batch: Spread,
    pub(super) flat_rows: Vec<Vec<i64>>,
    pub(super) codes_rows: Vec<Vec<i64>>,
}

impl Faiss {
    /// Starts it on a file of vectors whose last ones are the queries; says so if it cannot.
    pub(super) fn start(vectors: &Path, queries: usize) -> Option<Faiss> {
        let python = std::env::var_os("LIKEWISE_PEERS_PYTHON").unwrap_or_else(|| "python3".into());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/flat.py");
        let child = Command::new(&python)
            .arg(script)
            .arg(vectors)
            .arg(queries.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                println!("SKIPPED: faiss-cpu, because {} does not start: {error}\n", python.display());
                return None;
            }
        };
        let asks = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut greeting = String::new();
        if answers.read_line(&mut greeting).expect("a pipe") == 0 {
            println!(
                "SKIPPED: faiss-cpu, because {} cannot run peers/flat.py (see above)\n",
                python.display()
            );
            child.wait().expect("a child of ours");
            return None;
        }
        println!("{}\n", greeting.trim());
        Some(Faiss { child, asks, answers })
    }

    pub(super) fn measure(&mut self, rows: usize, k: usize, batch: usize, rounds: usize) -> Figures {
        writeln!(self.asks, "{rows} {k} {batch} {rounds}").expect("the child reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the child answers");
        let answer: serde_json::Value = serde_json::from_str(&line).expect("the child answers in JSON");
        let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
        let times =
            |name: &str| spread(list(&answer[name]).iter().map(|ms| ms.as_f64().expect("ms")).collect());
        let row = |value: &serde_json::Value| value.as_i64().expect("a row");
        let rows = |name: &str| {
            list(&answer[name]).iter().map(|found| list(found).iter().map(row).collect()).collect()
        };
        Figures {
            flat: times("flat"),
            codes: times("codes"),
            flat_batch: times("flat_batch"),
            codes_batch: times("codes_batch"),
            flat_rows: rows("flat_rows"),
            codes_rows: rows("codes_rows"),
        }
    }
}

impl Drop for Faiss {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
