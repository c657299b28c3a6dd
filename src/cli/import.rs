//! `likewise import COLLECTION FILE`: documents into a running server.

use std::io::{BufReader, Read as _, Seek as _};
use std::path::PathBuf;

use base64_simd::STANDARD;
use clap::Args;
use fs_err::File;
use likewise::error::{Error, Kind, Result};
use likewise::search::Vectors;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Target, answer, answer_when_ready};
use super::json_lines::{count, json_lines};
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
    /// Documents as JSON lines (`id`, `text` or `vector`, `metadata`, `tags`), or vectors as a `.npy` file of f32, or as a
    /// `.faiss` file: flat, 8-bit codes, HNSW over these, and id maps.
    file: PathBuf,
    /// For a `.npy` or `.faiss` file: the documents of its rows as JSON lines, or just their ids as JSON texts, or `null` for
    /// a row that is left out; by default the ids in the file, or else `ids.jsonl` beside it.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// How vectors are compared, if the collection is made: cosine, inner_product or l2.
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
}

/// Documents as they come from a file.
type Documents = Box<dyn Iterator<Item = Result<Map<String, Value>>>>;

/// What lines say of the rows of another file; nothing of one that is left out.
type Described = Box<dyn Iterator<Item = Result<Option<Map<String, Value>>>>>;

/// What a line says of a row.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a row is a document, the text of its id, or null")]
enum Line {
    Document(Map<String, Value>),
    Id(String),
    LeftOut(()),
}

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
        match self.file.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => self.of_npy(),
            Some("faiss") => self.of_faiss(),
            _ => Ok((Box::new(json_lines(&self.file)?), count(&self.file)?)),
        }
    }

    fn of_npy(&self) -> Result<(Documents, usize)> {
        let file = File::open(&self.file)
            .map_err(|error| Error::new(Kind::Config, "open the vectors").source(error))?;
        let length = file.metadata().map_err(|error| Error::io("look at the vectors", error))?.len();
        let mut file = BufReader::new(file);
        let named = |error: Error| error.with("file", self.file.display());
        let shape = npy::read_header(&mut file).map_err(named)?;
        shape
            .check(length - file.stream_position().map_err(|error| Error::io("read the vectors", error))?)
            .map_err(named)?;
        let mut vector = vec![0; shape.columns * 4];
        let with_vector = move |document: Result<Option<Map<String, Value>>>| {
            let document = document?;
            file.read_exact(&mut vector).map_err(|error| Error::io("read the vectors", error))?;
            Ok(document.map(|document| with_vector(document, &vector)))
        };
        let documents = self.described(shape.rows)?.map(with_vector).filter_map(Result::transpose);
        Ok((Box::new(documents), shape.rows))
    }

    fn of_faiss(&self) -> Result<(Documents, usize)> {
        let bytes = fs_err::read(&self.file)
            .map_err(|error| Error::new(Kind::Config, "open the vectors").source(error))?;
        let vectors = Vectors::read(&bytes).map_err(|error| {
            Error::new(Kind::InvalidInput, "read the vectors").with("file", self.file.display()).source(error)
        })?;
        let count = vectors.len();
        let rows: Vec<Vec<u8>> =
            (0..count).map(|row| vectors.row(row).into_iter().flat_map(f32::to_le_bytes).collect()).collect();
        let ids: Option<Vec<i64>> = (0..count).map(|row| vectors.id(row)).collect();
        let described: Described = match ids.filter(|_| self.ids.is_none()) {
            Some(ids) => Box::new(ids.into_iter().map(|id| Ok(Some(named(id.to_string()))))),
            None => self.described(count)?,
        };
        let documents = described.zip(rows).map(|(document, row)| {
            document.map(|document| document.map(|document| with_vector(document, &row)))
        });
        Ok((Box::new(documents.filter_map(Result::transpose)), count))
    }

    /// What the documents of rows hold besides their vectors; none for a row that is left out.
    fn described(&self, rows: usize) -> Result<Described> {
        let ids = self.ids.clone().unwrap_or_else(|| self.file.with_file_name("ids.jsonl"));
        let lines = count(&ids)?;
        if lines != rows {
            let message = format!("{rows} vectors, and {lines} lines in {}", ids.display());
            return Err(Error::new(Kind::InvalidInput, message));
        }
        let document = |line: Result<Line>| {
            line.map(|line| match line {
                Line::Document(document) => Some(document),
                Line::Id(id) => Some(named(id)),
                Line::LeftOut(()) => None,
            })
        };
        Ok(Box::new(json_lines(&ids)?.map(document)))
    }

    /// Makes the collection, if it is missing.
    ///
    /// # Errors
    /// `Conflict` if there is one that compares in another way than asked for.
    async fn make(&self, dimensions: Option<usize>) -> Result<()> {
        let path = ["v1", "collections", &self.collection];
        match answer(self.target.request(Method::GET, &path)?).await {
            Ok(described) => return self.check_metric(described).await,
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

    async fn check_metric(&self, described: Response) -> Result<()> {
        let broken = |error| Error::new(Kind::Upstream, "read the server's answer").source(error);
        let described: Value = described.json().await.map_err(broken)?;
        match (described["metric"].as_str(), &self.metric) {
            (Some(metric), Some(asked)) if metric != asked => {
                let message = format!("--metric is {asked}, and {} exists with {metric}", self.collection);
                Err(Error::new(Kind::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    async fn send(&self, batch: &mut Vec<String>) -> Result<usize> {
        if batch.is_empty() {
            return Ok(0);
        }
        let body = format!(r#"{{"documents":[{}]}}"#, batch.join(","));
        let path = ["v1", "collections", &self.collection, "documents"];
        answer_when_ready(|| Ok(self.target.request(Method::POST, &path)?.body(body.clone()))).await?;
        Ok(std::mem::take(batch).len())
    }
}

/// A document of which only the id is known.
fn named(id: String) -> Map<String, Value> {
    Map::from_iter([("id".to_owned(), Value::String(id))])
}

fn with_vector(mut document: Map<String, Value>, vector: &[u8]) -> Map<String, Value> {
    document.insert("vector".into(), STANDARD.encode_to_string(vector).into());
    document
}

fn vector_len(vector: &Value) -> Option<usize> {
    match vector {
        Value::Array(numbers) => Some(numbers.len()),
        Value::String(base64) => STANDARD.decoded_length(base64.as_bytes()).ok().map(|bytes| bytes / 4),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}
