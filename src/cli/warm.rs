//! `likewise warm FILE`: fills the caches of a running server before its clients come.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use likewise::service::warming::{LineRequest, WarmLine, has_json_lines};
use reqwest::Method;
use serde_json::Value;

use super::client::answer_when_ready;
use super::line_requests::{LineAnswer, LineArgs, LineJob};

/// Fill the caches of a running server from a file of lines: texts, conversations, searches and objects.
///
/// What its caches have is not made again. Exit code: 0 all lines are done, 3 some are not.
#[derive(Debug, Args)]
pub(super) struct WarmFile {
    #[command(flatten)]
    lines: LineArgs,
    /// JSON objects, one a line: with `text` (or `input`) to embed; with `messages` or `prompt` to answer; with `collection` to search, and
    /// the fields of a search; with `namespace`, `key` and `value` to store; or with `url` and `body`, such as OpenAI's batch lines. `-` reads
    /// standard input.
    file: PathBuf,
    /// Read the lines as `plain` texts to embed or as `jsonl`; by default the file's name decides.
    #[arg(long, value_name = "FORMAT")]
    format: Option<WarmFormat>,
    /// The model of texts whose line names none; by default that of the server.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WarmFormat {
    Plain,
    Jsonl,
}

/// How lines are read.
struct WarmJob {
    format: WarmFormat,
    model: TextModel,
}

/// The model of texts whose line names none.
enum TextModel {
    Named(String),
    /// Nothing is sent, and so it need not be known.
    Unknown,
    /// Why there is none.
    Missing(&'static str),
}

impl WarmFile {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut job = WarmJob { format: self.format(), model: self.text_model().await? };
        if self.lines.is_dry_run() {
            let report = self.lines.describe(&self.file, &mut job).await?;
            eprint!("{}", report.faults());
            return Ok(report.exit_code());
        }
        let report = self.lines.send(&self.file, &mut job).await?;
        eprint!("{}", report.faults());
        eprintln!("{}", report.summary("new"));
        Ok(report.exit_code())
    }

    fn format(&self) -> WarmFormat {
        let by_name = if has_json_lines(&self.file) { WarmFormat::Jsonl } else { WarmFormat::Plain };
        self.format.unwrap_or(by_name)
    }

    async fn text_model(&self) -> Result<TextModel> {
        if let Some(name) = &self.model {
            return Ok(TextModel::Named(name.clone()));
        }
        if self.lines.is_dry_run() {
            return Ok(TextModel::Unknown);
        }
        let request = || Ok(self.lines.target().request(Method::GET, &["readyz"])?.query(&[("verbose", "")]));
        let broken = |error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error);
        let ready: Value = answer_when_ready(request).await?.json().await.map_err(broken)?;
        let name = ready["models"][0].as_str().map(str::to_owned);
        let missing = TextModel::Missing("the server has no model of its own; name one by --model");
        Ok(name.map_or(missing, TextModel::Named))
    }
}

impl TextModel {
    /// Its name; `None` if it need not be known.
    ///
    /// # Errors
    /// `InvalidInput` if there is none.
    fn name(&self) -> Result<Option<&str>> {
        match self {
            TextModel::Named(name) => Ok(Some(name)),
            TextModel::Unknown => Ok(None),
            TextModel::Missing(why) => Err(Error::new(Kind::InvalidInput, *why)),
        }
    }
}

impl LineJob for WarmJob {
    type Ticket = ();

    fn read(&mut self, _: usize, line: &str) -> Result<Option<((), LineRequest)>> {
        let request = match self.format {
            WarmFormat::Plain => WarmLine::of_text(line, self.model.name()?),
            WarmFormat::Jsonl => WarmLine::read(line)?.request(|| self.model.name()),
        };
        request.map(|request| Some(((), request)))
    }

    fn answered(&mut self, _: usize, (): (), _: &LineAnswer) -> Result<()> {
        Ok(())
    }

    fn refused(&mut self, _: usize, _: &str, _: &Error) -> Result<()> {
        Ok(())
    }
}
