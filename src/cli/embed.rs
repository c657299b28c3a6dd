//! `likewise embed FILE`: a batch job through the same cache that the server uses.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use likewise::app::Engine;
use likewise::domain::{InputType, Principal};
use likewise::embed::ModelRegistry;
use likewise::error::{Error, Kind, Result};
use likewise::service::Directives;
use likewise::service::embeddings::{LookupCounts, Request};
use serde::Deserialize;

use super::file_kind::{self, FileKind};
use super::json_lines::lines_of;
use super::sources::Sources;
use super::terminal;

/// Texts sent through the cache at a time: enough for the model to sort by length, few enough that progress shows.
const CHUNK_TEXTS: usize = 512;

#[derive(Debug, Args)]
pub(super) struct Embed {
    #[command(flatten)]
    sources: Sources,
    /// Texts, one a line: plain, or JSON objects with `text` and optionally `id`. `-` reads standard input.
    file: PathBuf,
    /// Where the JSON lines go; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read the lines as `plain` text or as `jsonl`; by default the file's name decides.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// What the texts are for; chooses the model's prompt.
    #[arg(long, value_name = "TYPE")]
    input_type: Option<Purpose>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Plain,
    Jsonl,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Purpose {
    Query,
    Document,
}

/// One line of the input.
struct TextLine {
    id: serde_json::Value,
    text: String,
}

#[derive(Deserialize)]
struct JsonLine {
    id: Option<serde_json::Value>,
    text: String,
}

impl Embed {
    pub(super) async fn run(self) -> Result<()> {
        let config = self.sources.load().await?;
        let lines = self.read()?;
        let engine = Engine::build(&config).await?;
        let outcome = self.embed(&engine, &lines).await;
        engine.close().await;
        let counts = outcome?;
        eprintln!(
            "embedded {} texts: {} from the cache, {} by the model, {} repeated",
            lines.len(),
            counts.hits,
            counts.misses,
            counts.coalesced
        );
        Ok(())
    }

    fn is_standard_input(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// All lines, checked before the model is asked for anything.
    fn read(&self) -> Result<Vec<TextLine>> {
        let reader: Box<dyn BufRead> = if self.is_standard_input() {
            Box::new(io::stdin().lock())
        } else {
            if file_kind::of_file(&self.file)? != FileKind::Lines {
                let message = "the file holds vectors, not texts";
                return Err(Error::new(Kind::InvalidInput, message).with("file", self.file.display()));
            }
            let file = fs_err::File::open(&self.file)
                .map_err(|error| Error::new(Kind::Config, "cannot open the texts").source(error))?;
            Box::new(BufReader::new(file))
        };
        let format = self.format.unwrap_or_else(|| {
            let is_json = self.file.extension().is_some_and(|name| name == "jsonl" || name == "ndjson");
            if is_json { Format::Jsonl } else { Format::Plain }
        });
        let parsed = |(number, line): (usize, Result<String>)| {
            parse(format, number - 1, line.map_err(|error| error.with("line", number))?)
        };
        lines_of(reader).map(parsed).collect()
    }

    async fn embed(&self, engine: &Engine, lines: &[TextLine]) -> Result<LookupCounts> {
        let mut output = self.open_output()?;
        let progress = terminal::bar(lines.len());
        let mut counts = LookupCounts::default();
        for chunk in lines.chunks(CHUNK_TEXTS) {
            let response = engine.embeddings.embed(&self.request(&engine.models, chunk)?).await?;
            for (line, entry) in chunk.iter().zip(&response.entries) {
                write_line(&mut output, line, &entry.value)?;
            }
            counts.hits += response.counts.hits;
            counts.misses += response.counts.misses;
            counts.coalesced += response.counts.coalesced;
            progress.inc(chunk.len() as u64);
        }
        output.flush().map_err(|error| Error::io("cannot write the vectors", error))?;
        progress.finish_and_clear();
        Ok(counts)
    }

    fn open_output(&self) -> Result<Box<dyn Write>> {
        Ok(match &self.output {
            None => Box::new(BufWriter::new(io::stdout())),
            Some(path) => {
                let file = fs_err::File::create(path)
                    .map_err(|error| Error::new(Kind::Config, "cannot create the output").source(error))?;
                Box::new(BufWriter::new(file))
            }
        })
    }

    fn request(&self, models: &ModelRegistry, lines: &[TextLine]) -> Result<Request> {
        Ok(Request {
            model: Arc::clone(models.default_model()?),
            texts: lines.iter().map(|line| line.text.clone()).collect(),
            input_type: self.input_type.map(|purpose| match purpose {
                Purpose::Query => InputType::Query,
                Purpose::Document => InputType::Document,
            }),
            truncate: true,
            principal: Arc::new(Principal::default()),
            directives: Directives::default(),
            is_background: false,
        })
    }
}

fn parse(format: Format, index: usize, line: String) -> Result<TextLine> {
    if format == Format::Plain {
        return Ok(TextLine { id: index.into(), text: line });
    }
    let fault = |error: Error| error.with("line", index + 1);
    let json: JsonLine = serde_json::from_str(&line)
        .map_err(|error| fault(Error::invalid("text", "cannot read a line as JSON").source(error)))?;
    if json.text.is_empty() {
        return Err(fault(Error::invalid("text", "text must not be empty")));
    }
    Ok(TextLine { id: json.id.unwrap_or_else(|| index.into()), text: json.text })
}

fn write_line(output: &mut dyn Write, line: &TextLine, vector: &[u8]) -> Result<()> {
    let numbers: Vec<f32> =
        vector.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let json = serde_json::json!({ "id": line.id, "text": line.text, "embedding": numbers });
    writeln!(output, "{json}").map_err(|error| Error::io("cannot write the vectors", error))
}
