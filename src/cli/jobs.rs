//! `likewise jobs`: the background work of a running server, and what it prints of a job.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use likewise::error::{Error, Kind, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{ServerArgs, answer};
use super::terminal;

/// How often the server is asked how far a job is.
const POLL: Duration = Duration::from_millis(500);
/// Errors of a job that are printed.
const ERRORS_SHOWN: usize = 20;
/// The exit code of a job that has left out a part.
const PARTLY: u8 = 3;

/// List the background work of a running server, or pause, resume, cancel or watch a job.
#[derive(Debug, Args)]
pub(super) struct JobsCommand {
    #[command(flatten)]
    target: ServerArgs,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all jobs, newest first; also without a subcommand.
    List,
    /// Print a job as JSON.
    Show {
        /// The id of the job.
        id: String,
    },
    /// Show how far a job is until it ends.
    Watch {
        /// The id of the job.
        id: String,
    },
    /// Stop a job until it is resumed.
    Pause {
        /// The id of the job.
        id: String,
    },
    /// Go on with a job that is paused or has failed, and show how far it is.
    Resume {
        /// The id of the job.
        id: String,
        /// A new limit of its cost in dollars, over all of its runs.
        #[arg(long, value_name = "USD")]
        cost_max: Option<f64>,
        /// Serve the collection without the documents that the model refuses.
        #[arg(long)]
        leave_refused: bool,
    },
    /// Stop a job for good and remove what it has made.
    Cancel {
        /// The id of the job.
        id: String,
    },
}

/// What is read of a job.
#[derive(Debug, Deserialize)]
pub(super) struct JobLine {
    id: String,
    kind: String,
    state: String,
    collection: Option<String>,
    #[serde(default)]
    files: Vec<String>,
    model: Option<String>,
    done: u64,
    total: u64,
    rate_per_second: Option<f64>,
    seconds_left: Option<f64>,
    tokens: u64,
    cost_usd: Option<f64>,
    errors: Vec<ItemFault>,
    errors_total: u64,
    message: Option<String>,
    plan: Option<Value>,
    report: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct ItemFault {
    item: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct JobLines {
    data: Vec<JobLine>,
}

impl JobsCommand {
    pub(super) async fn run(self) -> Result<ExitCode> {
        match self.action.unwrap_or(Action::List) {
            Action::List => list(&self.target).await?,
            Action::Show { id } => {
                let job: Value = ask(&self.target, Method::GET, &["v1", "jobs", &id], None).await?;
                terminal::say(&format!("{job:#}\n"));
            }
            Action::Watch { id } => return watch(&self.target, &id).await,
            Action::Pause { id } => print(&order(&self.target, &id, "pause", None).await?),
            Action::Cancel { id } => print(&order(&self.target, &id, "cancel", None).await?),
            Action::Resume { id, cost_max, leave_refused } => {
                let mut changes = Map::new();
                changes.extend(cost_max.map(|max| ("cost_usd_max".to_owned(), json!(max))));
                changes.extend(leave_refused.then(|| ("leave_refused".to_owned(), json!(true))));
                order(&self.target, &id, "resume", Some(changes.into())).await?;
                return watch(&self.target, &id).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(target: &ServerArgs) -> Result<()> {
    let jobs: JobLines = ask(target, Method::GET, &["v1", "jobs"], None).await?;
    for job in &jobs.data {
        print(job);
    }
    Ok(())
}

fn print(job: &JobLine) {
    terminal::say(&format!("{}\n", line_of(job)));
}

/// A job in one line.
fn line_of(job: &JobLine) -> String {
    let JobLine { id, kind, state, done, total, .. } = job;
    let subject = job.collection.clone().unwrap_or_else(|| job.files.join(", "));
    let mut line = format!("{id}  {kind}  {state}  {subject}");
    let _ = match &job.model {
        Some(model) => write!(line, " -> {model}  {done}/{total}"),
        None => write!(line, "  {done}/{total}"),
    };
    if let Some(left) = job.seconds_left {
        let _ = write!(line, "  {left:.0} s left");
    }
    if job.errors_total > 0 {
        let _ = write!(line, "  {} errors", job.errors_total);
    }
    if let Some(message) = &job.message {
        let _ = write!(line, "  {message}");
    }
    line
}

async fn order(target: &ServerArgs, id: &str, order: &str, body: Option<Value>) -> Result<JobLine> {
    ask(target, Method::POST, &["v1", "jobs", id, order], body).await
}

async fn ask<T: serde::de::DeserializeOwned>(
    target: &ServerArgs,
    method: Method,
    path: &[&str],
    body: Option<Value>,
) -> Result<T> {
    let request = target.request(method, path)?;
    let request = match &body {
        Some(body) => request.json(body),
        None => request,
    };
    let read = |error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error);
    answer(request).await?.json().await.map_err(read)
}

/// Begins a job.
pub(super) async fn begin(target: &ServerArgs, input: Value) -> Result<JobLine> {
    ask(target, Method::POST, &["v1", "jobs"], Some(input)).await
}

impl JobLine {
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Shows how far a job is until it ends, and what came of it. Ending the command does not end the job.
pub(super) async fn watch(target: &ServerArgs, id: &str) -> Result<ExitCode> {
    let progress = terminal::bar(0);
    loop {
        let job: JobLine = ask(target, Method::GET, &["v1", "jobs", id], None).await?;
        progress.set_length(job.total);
        progress.set_position(job.done);
        if matches!(&*job.state, "queued" | "running") {
            tokio::time::sleep(POLL).await;
            continue;
        }
        progress.finish_and_clear();
        return conclude(&job);
    }
}

/// Prints what came of a job.
///
/// # Errors
/// Why it is paused or has failed.
fn conclude(job: &JobLine) -> Result<ExitCode> {
    for error in job.errors.iter().take(ERRORS_SHOWN) {
        eprintln!("{}: {}", error.item, error.message);
    }
    if job.errors_total > ERRORS_SHOWN as u64 {
        eprintln!("and {} more: likewise jobs show {}", job.errors_total - ERRORS_SHOWN as u64, job.id);
    }
    let id = &job.id;
    match &*job.state {
        "succeeded" => {
            for result in job.plan.iter().chain(&job.report) {
                terminal::say(&format!("{result:#}\n"));
            }
            let rate = job.rate_per_second.map(|rate| format!(", {rate:.0} a second")).unwrap_or_default();
            let cost = job.cost_usd.map(|cost| format!(", ${cost:.6}")).unwrap_or_default();
            eprintln!("{id}: {} of {} done{rate}, {} tokens{cost}", job.done, job.total, job.tokens);
            Ok(if job.errors_total > 0 { ExitCode::from(PARTLY) } else { ExitCode::SUCCESS })
        }
        state => {
            let reason = job.message.as_deref().unwrap_or("a client has asked for it");
            Err(Error::new(Kind::Conflict, format!("{id} is {state}: {reason}")))
        }
    }
}
