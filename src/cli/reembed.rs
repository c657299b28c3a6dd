//! `likewise reembed COLLECTION`: the vectors of a collection of a running server by another model.

use std::process::ExitCode;

use clap::Args;
use likewise::error::Result;
use serde_json::{Map, Value, json};

use super::client::ServerArgs;
use super::jobs::{begin, watch};

/// Embed a collection of a running server by another model. Searches go on meanwhile, and find the new vectors once all are there.
#[derive(Debug, Args)]
pub(super) struct Reembed {
    #[command(flatten)]
    target: ServerArgs,
    /// The collection.
    collection: String,
    /// The model whose vectors it is to hold.
    #[arg(long, value_name = "NAME", required_unless_present = "rollback")]
    model: Option<String>,
    /// Serve the former vectors again, with all documents as they are now.
    #[arg(long, conflicts_with = "model")]
    rollback: bool,
    /// Say what it would take: documents, tokens, time, cost, disk.
    #[arg(long)]
    dry_run: bool,
    /// For how long the former vectors are kept for a rollback.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    keep_old: u32,
    /// Serve the collection without the documents that the model refuses. By default the job pauses before it would.
    #[arg(long)]
    leave_refused: bool,
    /// Requests of a minute to the model, at most.
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Tokens of a minute to the model, at most.
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// Dollars that it may cost by the price table; the job pauses before it would cost more.
    #[arg(long, value_name = "USD")]
    cost_max: Option<f64>,
    /// Print the id of the job and end; `likewise jobs watch ID` shows how far it is.
    #[arg(long)]
    detach: bool,
}

impl Reembed {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let job = begin(&self.target, self.input()).await?;
        eprintln!("{} on {}", job.id(), self.collection);
        if self.detach {
            super::terminal::say(&format!("{}\n", job.id()));
            return Ok(ExitCode::SUCCESS);
        }
        watch(&self.target, job.id()).await
    }

    fn input(&self) -> Value {
        let members = [
            ("kind", Some(json!("reembed"))),
            ("collection", Some(json!(self.collection))),
            ("model", self.model.as_ref().map(|model| json!(model))),
            ("rollback", Some(json!(self.rollback))),
            ("dry_run", Some(json!(self.dry_run))),
            ("keep_old_hours", Some(json!(self.keep_old))),
            ("leave_refused", Some(json!(self.leave_refused))),
            ("requests_per_minute", self.requests_per_minute.map(|limit| json!(limit))),
            ("tokens_per_minute", self.tokens_per_minute.map(|limit| json!(limit))),
            ("cost_usd_max", self.cost_max.map(|limit| json!(limit))),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<String, Value>>())
    }
}
