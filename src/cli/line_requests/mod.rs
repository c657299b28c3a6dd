//! Files whose lines are requests to a running server: read as a stream, sent at a pace, and counted.
//!
//! What a line means, and what becomes of its answer, belongs to the command ([`LineJob`]). Here is how lines are sent: so many at a time,
//! so many a minute, later where the server is busy. No more lines are in memory than are in flight, with a few that are read ahead.

mod dry_run;
mod line_report;
mod pace;
mod sender;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use likewise::config::{Config, Overrides};
use likewise::error::{Error, Kind, Result};
use likewise::line_files::LineStream;
use likewise::service::warming::LineRequest;
use likewise::upstream::Prices;
use reqwest::Method;
use tokio::task::JoinSet;

use self::dry_run::DryRun;
pub(super) use self::line_report::LineReport;
use self::pace::RequestPace;
pub(super) use self::sender::LineAnswer;
use self::sender::LineSender;
#[cfg(test)]
pub(super) use self::sender::Served;
use super::client::{ServerArgs, ServerClient};
use super::json_lines::{count, is_standard_input, open_lines};
use super::terminal;

/// How the lines of a file are sent.
#[derive(Debug, Args)]
pub(super) struct LineArgs {
    #[command(flatten)]
    target: ServerArgs,
    /// Requests that start within a minute, at most; by default as many as the server answers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// Requests in flight, at most.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Say what the lines ask for, with an estimate of their tokens, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// For --dry-run: the configuration file of the server, which has the prices of models (`upstream.prices`).
    #[arg(long, value_name = "FILE", env = "LIKEWISE_CONFIG")]
    config: Option<PathBuf>,
}

/// What a command makes of the lines of a file, and of their answers.
pub(super) trait LineJob {
    /// What the command remembers of a line until it is answered.
    type Ticket: Send + 'static;

    /// What a line asks for; `None` for a line that is to be left out.
    ///
    /// # Errors
    /// `InvalidInput` for a line that is wrong, which is refused then.
    fn read(&mut self, number: usize, line: &str) -> Result<Option<(Self::Ticket, LineRequest)>>;

    /// Takes the answer of a line, whatever its status.
    ///
    /// # Errors
    /// What ends the command, such as an output that cannot be written.
    fn answered(&mut self, number: usize, ticket: Self::Ticket, answer: &LineAnswer) -> Result<()>;

    /// Takes a line that is wrong.
    ///
    /// # Errors
    /// What ends the command.
    fn refused(&mut self, number: usize, line: &str, fault: &Error) -> Result<()>;
}

impl LineArgs {
    /// Whether nothing is to be sent.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The server that is asked.
    pub(super) fn target(&self) -> &ServerArgs {
        &self.target
    }

    /// Sends the lines of `file` to the server. A line that is wrong or refused is counted, and the others go on.
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached; `Unauthorized` if it refuses the key before it has answered anything; those of the
    /// file and of `job`.
    pub(super) async fn send(&self, file: &Path, job: &mut impl LineJob) -> Result<LineReport> {
        let sender =
            Arc::new(LineSender::new(self.target.client()?, RequestPace::new(self.requests_per_minute)));
        let progress = match known_count(file)? {
            Some(count) => terminal::bar(count),
            None => terminal::counter(),
        };
        let mut lines = LineStream::of(open_lines(file)?)?;
        let mut report = LineReport::default();
        let mut flights = JoinSet::new();
        let mut has_ended = false;
        loop {
            tokio::select! {
                biased;
                Some(landed) = flights.join_next() => {
                    let (number, ticket, answer) = landed
                        .map_err(|error| Error::new(Kind::Internal, "a request was lost").source(error))?;
                    let answer: LineAnswer = answer?;
                    report.take(number, &answer)?;
                    job.answered(number, ticket, &answer)?;
                    progress.inc(1);
                }
                line = lines.next(), if !has_ended && flights.len() < usize::from(self.concurrency) => {
                    let Some((number, line)) = line else {
                        has_ended = true;
                        continue;
                    };
                    if let Some((ticket, request)) = read(job, &mut report, number, line)? {
                        let sender = Arc::clone(&sender);
                        flights.spawn(async move { (number, ticket, sender.send(&request).await) });
                    } else {
                        progress.inc(1);
                    }
                }
                else => break,
            }
        }
        progress.finish_and_clear();
        Ok(report)
    }

    /// Says what the lines of `file` ask for, on standard output.
    ///
    /// # Errors
    /// Those of the file and of the configuration.
    pub(super) async fn describe(&self, file: &Path, job: &mut impl LineJob) -> Result<LineReport> {
        let config = Config::load(self.config.as_deref(), &Overrides::default())?;
        let mut dry_run = DryRun::new(Prices::new(&config.upstream.prices));
        let mut lines = LineStream::of(open_lines(file)?)?;
        let mut report = LineReport::default();
        while let Some((number, line)) = lines.next().await {
            if let Some((_, request)) = read(job, &mut report, number, line)? {
                dry_run.add(&request);
            }
        }
        terminal::say(&dry_run.to_string());
        Ok(report)
    }
}

/// What a line asks for; `None` if it is left out or wrong, which is counted.
fn read<J: LineJob>(
    job: &mut J,
    report: &mut LineReport,
    number: usize,
    line: Result<String>,
) -> Result<Option<(J::Ticket, LineRequest)>> {
    let (line, fault) = match line {
        Ok(line) => match job.read(number, &line) {
            Ok(Some(request)) => return Ok(Some(request)),
            Ok(None) => {
                report.skip();
                return Ok(None);
            }
            Err(fault) => (line, fault),
        },
        // What cannot be read any more is no fault of a line.
        Err(fault) if fault.kind() != Kind::InvalidInput => return Err(fault.with("line", number)),
        Err(fault) => (String::new(), fault),
    };
    report.refuse(number, &fault.to_string());
    job.refused(number, &line, &fault)?;
    Ok(None)
}

/// The request of a line as it is sent.
fn post(request: &LineRequest, client: &ServerClient) -> reqwest::RequestBuilder {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let headers = request.headers().iter().chain(&[("content-type", "application/json")]);
    let posted = client.request(Method::POST, &path, request.key_header()).body(request.body.clone());
    headers.fold(posted, |posted, (name, value)| posted.header(*name, *value))
}

/// How many lines a file has; `None` where that is not known before they are read.
///
/// # Errors
/// `Config` if the file cannot be opened.
fn known_count(file: &Path) -> Result<Option<usize>> {
    let is_counted = !is_standard_input(file) && file.is_file();
    is_counted.then(|| count(file)).transpose()
}
