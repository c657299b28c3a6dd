//! `likewise embed FILE`: a batch job through the same cache that the server uses.
//!
//! Texts are read, embedded and written some at a time. A line that is wrong is named, and the others go on.

mod csv_texts;
mod parquet_texts;
mod text_counts;
mod text_source;
mod vector_file;
mod vector_table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use indicatif::ProgressBar;
use likewise::app::Engine;
use likewise::domain::{InputType, Principal};
use likewise::embed::Embedder;
use likewise::error::{Error, Kind, Result};
use likewise::service::Directives;
use likewise::service::embeddings::{LookupCounts, Request};

use self::text_counts::TextCounts;
use self::text_source::{TextColumns, TextFormat, TextLine, TextLines, TextSource};
use self::vector_file::{VectorFormat, VectorWriter};
use super::line_faults::LineFaults;
use super::sources::Sources;
use super::terminal;

/// Texts sent through the cache at a time: enough for the model to sort by length, few enough that progress shows.
const CHUNK_TEXTS: usize = 512;
/// Bytes of them, about.
const CHUNK_BYTES: usize = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct Embed {
    #[command(flatten)]
    sources: Sources,
    /// The model that embeds, by its name or an alias, where the configuration has several (`[[models]]`); by default the first.
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Texts: plain, one a line; JSON objects, one a line; a table in CSV whose first line names the columns; or a Parquet file. `-` reads
    /// standard input.
    file: PathBuf,
    /// How the file is read; by default its name decides.
    #[arg(long, value_name = "FORMAT")]
    format: Option<TextFormat>,
    #[command(flatten)]
    columns: TextColumns,
    /// Where the vectors go; standard output by default. It has this name once it is whole. A name that ends in `.npy` gets them as
    /// f32, and `ids.jsonl` beside it the documents of the rows, as `likewise import` reads both; one that ends in `.parquet` gets `id`,
    /// `text` and `embedding`.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the vectors are written; by default the name of the output decides.
    #[arg(long, value_name = "FORMAT")]
    output_format: Option<VectorFormat>,
    /// For a `.npy` output: where the documents of its rows go instead.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// What the texts are for; chooses the model's prompt.
    #[arg(long, value_name = "TYPE")]
    input_type: Option<Purpose>,
    /// Count the texts, their tokens, and how many are in the cache, and embed nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Purpose {
    Query,
    Document,
}

/// A run over the texts of a file.
struct EmbedRun<'a> {
    engine: &'a Engine,
    model: Arc<dyn Embedder>,
    input_type: Option<InputType>,
    faults: LineFaults,
    /// What the numbers of texts count.
    unit: &'static str,
    progress: ProgressBar,
}

impl Embed {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let config = self.sources.load().await?;
        let source = TextSource::open(&self.file, self.format, &self.columns)?;
        let engine = Engine::build(&config).await?;
        let outcome = self.work(&engine, source).await;
        engine.close().await;
        let (faults, summary) = outcome?;
        eprint!("{}", faults.report());
        let left_out = match faults.count() {
            0 => String::new(),
            count => format!(", left out {count}"),
        };
        eprintln!("{summary}{left_out}");
        Ok(faults.exit_code())
    }

    /// What was wrong, and what was done.
    async fn work(&self, engine: &Engine, source: TextSource) -> Result<(LineFaults, String)> {
        let mut job = EmbedRun {
            engine,
            model: Arc::clone(match &self.model_name {
                Some(name) => engine.models.get(name)?,
                None => engine.models.default_model()?,
            }),
            input_type: self.input_type.map(|purpose| match purpose {
                Purpose::Query => InputType::Query,
                Purpose::Document => InputType::Document,
            }),
            faults: LineFaults::default(),
            unit: source.unit,
            progress: source.count.map_or_else(terminal::counter, terminal::bar),
        };
        let summary = if self.dry_run {
            job.count(source.texts).await?.to_string()
        } else {
            let output =
                vector_file::create(self.output.as_deref(), self.output_format, self.ids.as_deref())?;
            let counts = job.embed(source.texts, output).await?;
            format!(
                "embedded {} texts: {} from the cache, {} by the model, {} repeated",
                counts.hits + counts.misses + counts.coalesced,
                counts.hits,
                counts.misses,
                counts.coalesced
            )
        };
        job.progress.finish_and_clear();
        Ok((job.faults, summary))
    }
}

impl EmbedRun<'_> {
    /// Embeds all texts.
    async fn embed(
        &mut self,
        mut texts: TextLines,
        mut output: Box<dyn VectorWriter>,
    ) -> Result<LookupCounts> {
        let mut counts = LookupCounts::default();
        while let Some(chunk) = self.next_chunk(&mut texts)? {
            // A part is divided where it is more than one request may ask for.
            let mut parts = vec![chunk];
            while let Some(mut part) = parts.pop() {
                let response = match self.engine.embeddings.embed(&self.request(&part)).await {
                    Ok(response) => response,
                    Err(error) => {
                        if !self.leave_out(&mut part, &error) {
                            let rest = part.split_off(part.len() / 2);
                            if error.kind() != Kind::TooLarge || part.is_empty() {
                                return Err(error);
                            }
                            parts.push(rest);
                        }
                        parts.extend((!part.is_empty()).then_some(part));
                        continue;
                    }
                };
                for (line, entry) in part.iter().zip(&response.entries) {
                    output.write(line, &entry.value)?;
                }
                counts.hits += response.counts.hits;
                counts.misses += response.counts.misses;
                counts.coalesced += response.counts.coalesced;
                self.progress.inc(part.len() as u64);
            }
        }
        output.finish()?;
        Ok(counts)
    }

    /// Counts all texts.
    async fn count(&mut self, mut texts: TextLines) -> Result<TextCounts> {
        let mut counts = TextCounts::default();
        while let Some(chunk) = self.next_chunk(&mut texts)? {
            let taken = chunk.len() as u64;
            let new: Vec<TextLine> = chunk.into_iter().filter(|line| counts.is_new(&line.text)).collect();
            if !new.is_empty() {
                let request = self.request(&new);
                let cached = self.engine.embeddings.cached(&request).await?;
                let prompt = self.model.card().prompts.for_input(self.input_type);
                let texts = new.iter().map(|line| format!("{prompt}{}", line.text)).collect();
                let tokens = self.model.count_tokens(texts).await?;
                counts.add(&cached, tokens.as_deref(), self.model.card().tokens_max);
            }
            self.progress.inc(taken);
        }
        Ok(counts)
    }

    /// The next texts; `None` behind the last. Those that cannot be read are left out.
    ///
    /// # Errors
    /// `Io` if the file cannot be read.
    fn next_chunk(&mut self, texts: &mut TextLines) -> Result<Option<Vec<TextLine>>> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_TEXTS && bytes < CHUNK_BYTES {
            let Some((number, line)) = texts.next() else { break };
            match line {
                Ok(line) => {
                    bytes += line.text.len();
                    chunk.push(line);
                }
                Err(error) if error.kind() == Kind::InvalidInput => self.refuse(number, &error.to_string()),
                Err(error) => return Err(error.with("line", number)),
            }
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Leaves out the text that an error is about; `false` if it is about none.
    fn leave_out(&mut self, part: &mut Vec<TextLine>, error: &Error) -> bool {
        let is_of_text = matches!(error.kind(), Kind::InvalidInput | Kind::TooLarge | Kind::Unprocessable);
        let place = error.field().and_then(|field| field.index_in("texts")).filter(|_| is_of_text);
        let Some(place) = place.filter(|&place| place < part.len()) else { return false };
        let line = part.remove(place);
        self.refuse(line.number, error.message());
        true
    }

    fn refuse(&mut self, number: usize, fault: &str) {
        self.faults.add(self.unit, number, fault);
        self.progress.inc(1);
    }

    fn request(&self, lines: &[TextLine]) -> Request {
        Request {
            model: Arc::clone(&self.model),
            texts: lines.iter().map(|line| line.text.clone()).collect(),
            input_type: self.input_type,
            truncate: true,
            principal: Arc::new(Principal::default()),
            directives: Directives::default(),
            is_background: false,
        }
    }
}
