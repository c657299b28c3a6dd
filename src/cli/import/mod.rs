//! `likewise import COLLECTION FILE`: documents into a running server.
//!
//! All documents are read and checked before the first is sent, so that a bad one leaves nothing half made.

mod check;
mod rows;

use std::path::PathBuf;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use likewise::search::{Metric, metric_name};
use reqwest::{Method, Response};
use serde_json::{Map, Value, json};

use self::check::{CheckReport, DocumentRules};
use self::rows::{ImportSource, ImportedDocument};
use super::client::{ServerArgs, answer, answer_when_ready};
use super::terminal;

/// Documents of one request.
const BATCH_DOCUMENTS: usize = 256;
/// Bytes of one request, about.
const BATCH_BYTES: usize = 4 << 20;
/// A longer text is embedded before anything is stored: the server may take none of that length.
const TEXT_BYTES_SURE: usize = 8 << 10;
/// How far the length of a row of a file of FAISS may be from 1 for the inner product to be the cosine.
const UNIT_TOLERANCE: f64 = 1e-3;

/// Store documents in a collection of a running server: all of them, or none.
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    target: ServerArgs,
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
    /// How vectors are compared, if the collection is made: cosine, inner_product or l2; by default as a `.faiss` file says,
    /// or else cosine.
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
    /// Leave out documents that cannot be stored, and repeated ids but their first, instead of storing nothing.
    #[arg(long)]
    r#continue: bool,
}

/// A collection that is there.
struct Existing {
    metric: Metric,
    dimensions: Option<usize>,
    model: Option<String>,
}

impl Existing {
    /// Whether it takes texts, as far as the server has described it.
    fn embeds(&self) -> Option<bool> {
        self.dimensions.map(|_| self.model.is_some())
    }
}

/// Documents on their way, with their numbers.
#[derive(Default)]
struct PendingDocuments {
    numbers: Vec<usize>,
    documents: Vec<String>,
    bytes: usize,
}

impl Import {
    pub(super) async fn run(self) -> Result<()> {
        let source = ImportSource::open(&self.file, self.ids.as_ref())?;
        let existing = self.existing().await?;
        let metric = self.metric(&source, existing.as_ref())?;
        let embeds = existing.as_ref().and_then(Existing::embeds);
        let dimensions = existing.as_ref().and_then(|existing| existing.dimensions);
        let mut checked = CheckReport::of(source.rows()?.0, DocumentRules { metric, dimensions, embeds });
        if !self.r#continue {
            checked.all_good(source.unit())?;
        }
        let model = match &existing {
            Some(existing) => existing.model.clone(),
            None => self.make(metric, &checked).await?,
        };
        let is_made = existing.is_none();
        let stored = match self.refuse_long_text(model.as_deref(), &mut checked).await {
            Ok(()) => self.store(&source, &mut checked, is_made).await,
            Err(error) => Err(error),
        };
        if let (Err(_), true, false) = (&stored, is_made, self.r#continue) {
            self.drop_made().await;
        }
        let stored = stored?;
        eprint!("{}", checked.report(source.unit()));
        let left_out = match checked.bad.len() {
            0 => String::new(),
            bad => format!(", left out {bad}"),
        };
        eprintln!("stored {stored} documents in {}{left_out}", self.collection);
        Ok(())
    }

    /// Sends all good documents; returns how many were stored.
    async fn store(&self, source: &ImportSource, checked: &mut CheckReport, is_made: bool) -> Result<usize> {
        let (rows, _) = source.rows()?;
        let progress = terminal::bar(checked.good);
        let (mut batch, mut stored) = (PendingDocuments::default(), 0);
        for (number, document) in rows {
            if checked.bad.contains(&number) {
                continue;
            }
            batch.add(number, &document?)?;
            if batch.documents.len() == BATCH_DOCUMENTS || batch.bytes >= BATCH_BYTES {
                stored += self
                    .send(&mut batch, checked)
                    .await
                    .map_err(|error| with_stored_count(error, stored, is_made))?;
                progress.set_position(stored as u64);
            }
        }
        stored += self
            .send(&mut batch, checked)
            .await
            .map_err(|error| with_stored_count(error, stored, is_made))?;
        progress.finish_and_clear();
        Ok(stored)
    }

    /// Sends a batch, which is empty then. With `--continue`, documents that the server refuses are left out.
    async fn send(&self, batch: &mut PendingDocuments, checked: &mut CheckReport) -> Result<usize> {
        while !batch.documents.is_empty() {
            let body = format!(r#"{{"documents":[{}]}}"#, batch.documents.join(","));
            let path = ["v1", "collections", &self.collection, "documents"];
            let sent = answer_when_ready(|| Ok(self.target.request(Method::POST, &path)?.body(body.clone())));
            match sent.await {
                Ok(_) => return Ok(std::mem::take(batch).documents.len()),
                Err(error) => {
                    let Some(place) = place_at_fault(&error).filter(|&place| place < batch.numbers.len())
                    else {
                        return Err(error);
                    };
                    let number = batch.numbers.remove(place);
                    if !self.r#continue {
                        return Err(error.with("number", number));
                    }
                    batch.documents.remove(place);
                    checked.refuse(number, error.message());
                }
            }
        }
        Ok(0)
    }

    async fn existing(&self) -> Result<Option<Existing>> {
        let described = match answer(self.target.request(Method::GET, &self.path())?).await {
            Ok(described) => json_of(described).await?,
            Err(error) if error.kind() == Kind::NotCached => return Ok(None),
            Err(error) => return Err(error),
        };
        let metric = described["metric"].as_str().and_then(metric_name::read);
        let metric = metric.ok_or_else(|| Error::new(Kind::Upstream, "the server did not say the metric"))?;
        let dimensions = described["dimensions"].as_u64().map(|dimensions| dimensions as usize);
        let model = described["model"].as_str().map(str::to_owned);
        Ok(Some(Existing { metric, dimensions, model }))
    }

    /// How vectors are to be compared.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown name; `Conflict` if file, collection and `--metric` do not agree.
    fn metric(&self, source: &ImportSource, existing: Option<&Existing>) -> Result<Metric> {
        let asked = match &self.metric {
            None => None,
            Some(name) => Some(metric_name::read(name).ok_or_else(|| {
                let message = format!("--metric is cosine, inner_product or l2, got {name:?}");
                Error::new(Kind::InvalidInput, message)
            })?),
        };
        let (wanted, name) = match (asked, existing) {
            (Some(asked), Some(there)) if asked != there.metric => {
                let (asked, there) = (metric_name::of(asked), metric_name::of(there.metric));
                let message = format!("--metric is {asked}, and {} exists with {there}", self.collection);
                return Err(Error::new(Kind::Conflict, message));
            }
            (_, Some(there)) => (Some(there.metric), "the collection"),
            (asked, None) => (asked, "--metric"),
        };
        let Some(of_file) = source.metric()? else { return Ok(wanted.unwrap_or(Metric::Cosine)) };
        match wanted {
            None => Ok(of_file),
            Some(wanted) if wanted == of_file => Ok(wanted),
            // FAISS has no cosine: it takes the inner product of vectors of length one for it.
            Some(Metric::Cosine) if of_file == Metric::InnerProduct && are_units(source)? => {
                Ok(Metric::Cosine)
            }
            Some(wanted) => {
                let (file, wanted) = (metric_name::of(of_file), metric_name::of(wanted));
                let message =
                    format!("the file compares by {file}, {name} by {wanted}: it would order otherwise");
                Err(Error::new(Kind::Conflict, message).with("file", self.file.display()))
            }
        }
    }

    /// Makes the collection; returns its model.
    ///
    /// # Errors
    /// `InvalidInput` if the vectors do not fit the server's model; what the server says.
    async fn make(&self, metric: Metric, checked: &CheckReport) -> Result<Option<String>> {
        if checked.good == 0 && self.r#continue {
            let message = format!("no document can be stored\n{}", checked.report("number").trim_end());
            return Err(Error::new(Kind::InvalidInput, message));
        }
        let mut spec = Map::from_iter([("metric".to_owned(), metric_name::of(metric).into())]);
        if let Some(dimensions) = checked.dimensions.filter(|_| checked.begins_with_vector) {
            spec.insert("dimensions".into(), dimensions.into());
        }
        let request = self.target.request(Method::PUT, &self.path())?.body(json!(spec).to_string());
        let made = json_of(answer(request).await?).await?;
        let dimensions = made["dimensions"].as_u64().map(|dimensions| dimensions as usize);
        match (checked.dimensions, dimensions) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                self.drop_made().await;
                let message =
                    format!("the vectors have {ours} numbers, those of the server's model {theirs}");
                Err(Error::new(Kind::InvalidInput, message))
            }
            _ => Ok(made["model"].as_str().map(str::to_owned)),
        }
    }

    /// Embeds the longest text, if the server may refuse it, before anything is stored.
    async fn refuse_long_text(&self, model: Option<&str>, checked: &mut CheckReport) -> Result<()> {
        let longest = checked.longest.take().filter(|(_, text)| text.len() > TEXT_BYTES_SURE);
        let (Some(model), Some((number, text)), false) = (model, longest, self.r#continue) else {
            return Ok(());
        };
        let body = json!({ "model": model, "input": text }).to_string();
        let path = ["v1", "embeddings"];
        let embedded = answer_when_ready(|| Ok(self.target.request(Method::POST, &path)?.body(body.clone())));
        embedded.await.map(|_| ()).map_err(|error| error.with("number", number).with("stored", 0))
    }

    /// Drops the collection that this import has made, after an error that matters more than one of this.
    async fn drop_made(&self) {
        let dropped = match self.target.request(Method::DELETE, &self.path()) {
            Ok(request) => answer(request).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = dropped {
            eprintln!("{} was made by this import, and cannot be dropped: {error}", self.collection);
        }
    }

    fn path(&self) -> [&str; 3] {
        ["v1", "collections", &self.collection]
    }
}

impl PendingDocuments {
    fn add(&mut self, number: usize, document: &ImportedDocument) -> Result<()> {
        let document = serde_json::to_string(document)
            .map_err(|error| Error::new(Kind::Internal, "cannot write a document").source(error))?;
        self.bytes += document.len();
        self.numbers.push(number);
        self.documents.push(document);
        Ok(())
    }
}

/// Adds the count of documents that were stored before the error, unless the import removes them again.
fn with_stored_count(error: Error, stored: usize, is_made: bool) -> Error {
    if is_made { error } else { error.with("stored_before", stored) }
}

/// The place of the document that the server refuses, in its request.
fn place_at_fault(error: &Error) -> Option<usize> {
    error.field()?.index_in("documents")
}

/// Whether all vectors are of length one.
fn are_units(source: &ImportSource) -> Result<bool> {
    let is_unit = |document: Result<ImportedDocument>| {
        let numbers = document.ok().and_then(|document| document.vector?.numbers().ok()).unwrap_or_default();
        let square: f64 = numbers.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
        (square.sqrt() - 1.0).abs() <= UNIT_TOLERANCE
    };
    Ok(source.rows()?.0.all(|(_, document)| is_unit(document)))
}

async fn json_of(response: Response) -> Result<Value> {
    let broken = |error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error);
    response.json().await.map_err(broken)
}
