//! `likewise export COLLECTION FILE`: the documents of a running server.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use fs_err::File;
use likewise::error::{Error, Kind, Result};
use reqwest::{Method, Response};
use serde_json::{Map, Value};

use super::client::{ServerArgs, answer};
use super::npy;
use super::terminal;

/// Write the documents of a collection of a running server, as they are at one moment.
#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    target: ServerArgs,
    /// The collection.
    collection: String,
    /// Where the JSON lines go, `-` for standard output. A name that ends in `.npy` gets the vectors as f32, and
    /// `ids.jsonl` beside it the documents of the rows.
    file: PathBuf,
    /// For a `.npy` file: where the documents of its rows go instead.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// For JSON lines: write the vectors too.
    #[arg(long)]
    vectors: bool,
}

impl Export {
    pub(super) async fn run(self) -> Result<()> {
        let is_npy = self.file.extension().is_some_and(|extension| extension == "npy");
        let path = ["v1", "collections", &self.collection, "documents"];
        let mut request = self.target.request(Method::GET, &path)?;
        if self.vectors || is_npy {
            request = request.query(&[("include", "vector")]);
        }
        let response = answer(request).await?;
        let count = response
            .headers()
            .get("x-likewise-documents")
            .and_then(|count| count.to_str().ok()?.parse().ok());
        let count: usize =
            count.ok_or_else(|| Error::new(Kind::Upstream, "the server did not say how many"))?;
        let written = if is_npy {
            self.write_npy(response, count).await?
        } else {
            self.write_lines(response, count).await?
        };
        if written != count {
            return Err(Error::new(
                Kind::Upstream,
                format!("the server promised {count} documents and sent {written}"),
            ));
        }
        eprintln!("wrote {written} documents of {}", self.collection);
        Ok(())
    }

    async fn write_lines(&self, response: Response, count: usize) -> Result<usize> {
        let mut output: Box<dyn Write> = if self.file.as_os_str() == "-" {
            Box::new(BufWriter::new(io::stdout()))
        } else {
            Box::new(BufWriter::new(create(&self.file)?))
        };
        let written = each_line(response, count, |line| {
            output.write_all(line).and_then(|()| output.write_all(b"\n")).map_err(failed)
        });
        let written = written.await?;
        output.flush().map_err(failed)?;
        Ok(written)
    }

    async fn write_npy(&self, response: Response, count: usize) -> Result<usize> {
        let ids = npy::ids_file(&self.file, self.ids.as_deref())?;
        let (mut vectors, mut ids) = (BufWriter::new(create(&self.file)?), BufWriter::new(create(&ids)?));
        let mut columns = None;
        let written = each_line(response, count, |line| {
            let bad = || Error::new(Kind::Upstream, "the server sent a document without a vector");
            let mut document: Map<String, Value> =
                serde_json::from_slice(line).map_err(|error| bad().source(error))?;
            let vector: Vec<f32> = document
                .remove("vector")
                .and_then(|vector| serde_json::from_value(vector).ok())
                .ok_or_else(bad)?;
            if columns.replace(vector.len()).is_none() {
                vectors
                    .write_all(&npy::header(npy::Shape { rows: count, columns: vector.len() }))
                    .map_err(failed)?;
            }
            vector.iter().try_for_each(|number| vectors.write_all(&number.to_le_bytes())).map_err(failed)?;
            writeln!(ids, "{}", Value::Object(document)).map_err(failed)
        });
        let written = written.await?;
        if columns.is_none() {
            vectors.write_all(&npy::header(npy::Shape { rows: 0, columns: 0 })).map_err(failed)?;
        }
        vectors.flush().and_then(|()| ids.flush()).map_err(failed)?;
        Ok(written)
    }
}

fn create(path: &std::path::Path) -> Result<File> {
    File::create(path).map_err(|error| Error::new(Kind::Config, "cannot create the output").source(error))
}

fn failed(error: io::Error) -> Error {
    Error::io("cannot write the documents", error)
}

/// Hands out the lines of an answer as they come; returns how many there were.
async fn each_line(
    mut response: Response,
    count: usize,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<usize> {
    let progress = terminal::bar(count);
    let (mut rest, mut lines) = (Vec::new(), 0);
    let broken = |error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error);
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        rest.extend_from_slice(&piece);
        let mut from = 0;
        while let Some(length) = rest[from..].iter().position(|&byte| byte == b'\n') {
            take(&rest[from..from + length])?;
            from += length + 1;
            lines += 1;
        }
        rest.drain(..from);
        progress.set_position(lines as u64);
    }
    progress.finish_and_clear();
    Ok(lines)
}
