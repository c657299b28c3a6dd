//! `likewise import COLLECTION FILE`: documents into a running server.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use base64_simd::STANDARD;
use clap::Args;
use fs_err::File;
use likewise::error::{Error, Kind, Result};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Target, answer};
use super::npy;

/// Documents of one request.
const BATCH_DOCUMENTS: usize = 256;
/// Bytes of one request, about.
const BATCH_BYTES: usize = 4 << 20;

/// Store documents in a collection of a running server.
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    target: Target,
    /// The collection. It is made if it is missing: of the server's model, or, if the first document brings a vector, of
    /// vectors of that length.
    collection: String,
    /// Documents as JSON lines (`id`, `text` or `vector`, `metadata`, `tags`), or vectors as a `.npy` file of f32.
    file: PathBuf,
    /// For a `.npy` file: the documents of its rows as JSON lines, or just their ids as JSON texts; by default `ids.jsonl`
    /// beside it.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// How vectors are compared, if the collection is made: cosine, inner_product or l2.
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
}

/// Documents as they come from a file.
type Documents = Box<dyn Iterator<Item = Result<Map<String, Value>>>>;

impl Import {
    pub(super) async fn run(self) -> Result<()> {
        let (documents, count) = self.documents()?;
        let mut documents = documents.peekable();
        let dimensions = match documents.peek() {
            Some(Ok(first)) => first.get("vector").and_then(vector_len),
            Some(Err(_)) | None => None,
        };
        self.make(dimensions).await?;
        let progress = super::bar(count);
        let (mut batch, mut bytes, mut stored) = (Vec::new(), 0, 0);
        for document in documents {
            let document = serde_json::to_string(&document?)
                .map_err(|error| Error::new(Kind::Internal, "write a document").source(error))?;
            bytes += document.len();
            batch.push(document);
            if batch.len() == BATCH_DOCUMENTS || bytes >= BATCH_BYTES {
                stored += self.send(&mut batch).await?;
                bytes = 0;
                progress.set_position(stored as u64);
            }
        }
        stored += self.send(&mut batch).await?;
        progress.finish_and_clear();
        eprintln!("stored {stored} documents in {}", self.collection);
        Ok(())
    }

    /// The documents, and how many there are.
    fn documents(&self) -> Result<(Documents, usize)> {
        if self.file.extension().is_none_or(|extension| extension != "npy") {
            let count = BufReader::new(open(&self.file)?).lines().count();
            return Ok((lines(&self.file)?, count));
        }
        let mut file = BufReader::new(open(&self.file)?);
        let shape = npy::read_header(&mut file).map_err(|error| error.with("file", self.file.display()))?;
        let ids = self.ids.clone().unwrap_or_else(|| self.file.with_file_name("ids.jsonl"));
        let rows = BufReader::new(open(&ids)?).lines().count();
        if rows != shape.rows {
            let message = format!("{} vectors, and {rows} lines in {}", shape.rows, ids.display());
            return Err(Error::new(Kind::InvalidInput, message));
        }
        let mut vector = vec![0; shape.columns * 4];
        let with_vector = move |document: Result<Map<String, Value>>| {
            let mut document = document?;
            file.read_exact(&mut vector).map_err(|error| Error::io("read the vectors", error))?;
            document.insert("vector".into(), STANDARD.encode_to_string(&vector).into());
            Ok(document)
        };
        Ok((Box::new(lines(&ids)?.map(with_vector)), shape.rows))
    }

    /// Makes the collection, if it is missing.
    async fn make(&self, dimensions: Option<usize>) -> Result<()> {
        let path = ["v1", "collections", &self.collection];
        match answer(self.target.request(Method::GET, &path)?).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == Kind::NotCached => {}
            Err(error) => return Err(error),
        }
        let mut spec = Map::new();
        if let Some(dimensions) = dimensions {
            spec.insert("dimensions".into(), dimensions.into());
        }
        if let Some(metric) = &self.metric {
            spec.insert("metric".into(), metric.clone().into());
        }
        answer(self.target.request(Method::PUT, &path)?.body(json!(spec).to_string())).await.map(|_| ())
    }

    async fn send(&self, batch: &mut Vec<String>) -> Result<usize> {
        if batch.is_empty() {
            return Ok(0);
        }
        let body = format!(r#"{{"documents":[{}]}}"#, batch.join(","));
        let path = ["v1", "collections", &self.collection, "documents"];
        answer(self.target.request(Method::POST, &path)?.body(body)).await?;
        Ok(std::mem::take(batch).len())
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::new(Kind::Config, "open the documents").source(error))
}

/// JSON lines: documents, or texts that are their ids.
fn lines(path: &Path) -> Result<Documents> {
    let shown = path.display().to_string();
    let lines = BufReader::new(open(path)?).lines().enumerate().map(move |(number, line)| {
        let fault = |message: &str| {
            Error::new(Kind::InvalidInput, message).with("file", &shown).with("line", number + 1)
        };
        let line = line.map_err(|error| fault("read the documents").source(error))?;
        match serde_json::from_str(&line).map_err(|error| fault("a line is not JSON").source(error))? {
            Value::Object(document) => Ok(document),
            Value::String(id) => Ok(Map::from_iter([("id".to_owned(), Value::String(id))])),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                Err(fault("a line is a document, or the text of an id"))
            }
        }
    });
    Ok(Box::new(lines))
}

fn vector_len(vector: &Value) -> Option<usize> {
    match vector {
        Value::Array(numbers) => Some(numbers.len()),
        Value::String(base64) => STANDARD.decoded_length(base64.as_bytes()).ok().map(|bytes| bytes / 4),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}
