//! The work of a job that warms.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::options::{WarmSpec, has_json_lines};
use super::target::{WarmOutcome, WarmTarget};
use super::tokens::estimate;
use super::warm_line::{LineRequest, WarmLine};
use crate::domain::TokenUsage;
use crate::error::{Error, Kind, Result};
use crate::line_files::{self, LineStream};
use crate::service::background_work::{Interruption, WorkControl};
use crate::sync::lock;
use crate::upstream::Prices;

/// Lines that are asked for at the same time.
const LINES_AT_ONCE: usize = 8;
/// Bytes from which on a line is parsed off the runtime: a tokenizer reads some megabytes a second.
const OFFLOADED_BYTES: usize = 16 << 10;
/// How often a line is asked for while the server or a model is busy.
const ATTEMPTS_MAX: usize = 8;

/// What came of warming.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmReport {
    /// Lines that a cache had.
    pub cached: u64,
    /// Lines that were made.
    pub made: u64,
    /// Lines that are wrong, or were refused.
    pub failed: u64,
}

/// What the work is done with.
pub(in crate::service) struct WarmWork<'a> {
    pub(in crate::service) spec: &'a WarmSpec,
    pub(in crate::service) target: &'a dyn WarmTarget,
    pub(in crate::service) prices: &'a Prices,
    pub(in crate::service) control: &'a WorkControl,
}

/// A line of a file.
struct NumberedLine {
    file: PathBuf,
    number: usize,
    content: Result<String>,
}

/// Asks for all lines of all files, in their order.
///
/// # Errors
/// `Failed` for a file that cannot be read; `Paused` before a line that would exceed the cost; the interruption that is ordered meanwhile.
pub(in crate::service) async fn warm(work: WarmWork<'_>) -> Result<WarmReport, Interruption> {
    let files = work.spec.files.clone();
    let total = blocking(move || files.iter().map(|file| line_files::count(file)).sum::<Result<usize>>());
    let total = total.await?;
    work.control.clear_errors();
    let report = Mutex::new(WarmReport::default());
    let run = WarmRun { work, total: total as u64, report };
    run.count(|_| ());
    let lines = stream::iter(run.work.spec.files.clone()).then(lines_of).try_flatten();
    lines.try_for_each_concurrent(LINES_AT_ONCE, |line| run.warm_line(line)).await?;
    Ok(*lock(&run.report))
}

/// A step of a line.
#[derive(Clone, Copy)]
enum WarmStep {
    LookUp,
    Make,
}

/// One run of the work.
struct WarmRun<'a> {
    work: WarmWork<'a>,
    total: u64,
    report: Mutex<WarmReport>,
}

impl WarmRun<'_> {
    async fn warm_line(&self, line: NumberedLine) -> Result<(), Interruption> {
        let NumberedLine { file, number, content } = line;
        let outcome = match self.request(&file, content).await {
            Ok(request) => self.ask(request).await?,
            // What cannot be read any more is no fault of a line.
            Err(error) if error.kind() == Kind::Io => return Err(error.into()),
            Err(fault) => WarmOutcome::Refused(fault.to_string()),
        };
        match outcome {
            WarmOutcome::Cached => self.count(|report| report.cached += 1),
            WarmOutcome::Made { .. } => self.count(|report| report.made += 1),
            WarmOutcome::Refused(reason) => self.refuse(&file, number, &reason),
            WarmOutcome::Busy(_) => self.refuse(&file, number, "the server or the model is busy"),
            WarmOutcome::Missing => self.refuse(&file, number, "it was not made"),
        }
        Ok(())
    }

    fn refuse(&self, file: &Path, number: usize, reason: &str) {
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        self.work.control.refuse(&format!("{name}:{number}"), reason);
        self.count(|report| report.failed += 1);
    }

    async fn request(&self, file: &Path, content: Result<String>) -> Result<LineRequest> {
        let content = content?;
        let named = self.work.spec.text_model.as_deref();
        let model = named.or_else(|| self.work.target.default_model()).map(str::to_owned);
        let is_json = has_json_lines(file);
        off_runtime(content.len(), move || {
            let missing = "the server has no model of its own; name one by warm.model or in the line";
            let missing = || Error::new(Kind::InvalidInput, missing);
            let model = || model.as_deref().map(Some).ok_or_else(missing);
            if is_json {
                WarmLine::read(&content)?.request(model)
            } else {
                WarmLine::of_text(&content, model()?)
            }
        })
        .await
    }

    /// Asks for a line: from the caches, and then from a model, in the turn of its pace and behind clients.
    async fn ask(&self, request: LineRequest) -> Result<WarmOutcome, Interruption> {
        let control = self.work.control;
        let known = self.until_not_busy(&request, WarmStep::LookUp).await?;
        if known != WarmOutcome::Missing {
            return Ok(known);
        }
        let (request, model, tokens) = off_runtime(request.body.len(), move || {
            let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
            Ok((request, body["model"].as_str().map(str::to_owned), estimate(&body)))
        })
        .await?;
        let model = model.as_deref();
        let prompt_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let usd = self.usd(model, TokenUsage::new(prompt_tokens, 0));
        if usd.is_none() && control.has_cost_limit() && !self.is_free(model) {
            let model = model.unwrap_or_default();
            let reason =
                format!("the price of the model {model} is not known: list it under upstream.prices");
            return Ok(WarmOutcome::Refused(reason));
        }
        control.spend_usd(tokens, usd).await?;
        let outcome = self.until_not_busy(&request, WarmStep::Make).await?;
        if let WarmOutcome::Made { completion_tokens } = outcome
            && let Some(usd) = self.usd(model, TokenUsage::new(0, completion_tokens))
        {
            control.charge(usd);
        }
        Ok(outcome)
    }

    /// Asks until the answer is another one than that the server is busy, or often enough.
    async fn until_not_busy(
        &self,
        request: &LineRequest,
        step: WarmStep,
    ) -> Result<WarmOutcome, Interruption> {
        for _ in 1..ATTEMPTS_MAX {
            let outcome = self.ask_once(request, step).await;
            let WarmOutcome::Busy(wait) = outcome else { return Ok(outcome) };
            self.work.control.wait(wait).await?;
        }
        Ok(self.ask_once(request, step).await)
    }

    async fn ask_once(&self, request: &LineRequest, step: WarmStep) -> WarmOutcome {
        let target = self.work.target;
        match step {
            WarmStep::LookUp => target.look_up(request).await,
            WarmStep::Make => {
                target.when_idle().await;
                target.make(request).await
            }
        }
    }

    fn usd(&self, model: Option<&str>, usage: TokenUsage) -> Option<f64> {
        self.work.prices.cost_usd(model?, usage)
    }

    /// Whether no upstream is paid for what a model does. A search is embedded by the model of its collection.
    fn is_free(&self, model: Option<&str>) -> bool {
        model.is_none_or(|model| self.work.target.is_own_model(model))
    }

    /// Counts a line that is done.
    fn count(&self, count: impl FnOnce(&mut WarmReport)) {
        let mut report = lock(&self.report);
        count(&mut report);
        self.work.control.set_progress(report.cached + report.made + report.failed, self.total);
    }
}

/// The lines of a file.
async fn lines_of(
    file: PathBuf,
) -> Result<stream::BoxStream<'static, Result<NumberedLine, Interruption>>, Interruption> {
    let path = file.clone();
    let lines = blocking(move || LineStream::of(line_files::open(&path)?)).await?;
    let lines = stream::unfold(lines, move |mut lines| {
        let file = file.clone();
        async move {
            let (number, content) = lines.next().await?;
            Some((Ok(NumberedLine { file, number, content }), lines))
        }
    });
    Ok(lines.boxed())
}

/// Runs `work` over so many bytes, on a thread for blocking work if it takes long.
async fn off_runtime<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes < OFFLOADED_BYTES { work() } else { blocking(work).await }
}

/// Runs `work` on a thread for blocking work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|died| {
        Err(Error::new(Kind::Internal, "the work on a line has panicked").source(died))
    })
}
