//! `likewise snapshot COLLECTION`: an index on disk, of all that a running server has.

use std::time::Duration;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use reqwest::Method;
use serde::Deserialize;

use super::client::{ServerArgs, answer};

/// How often the server is asked whether it is done.
const POLL: Duration = Duration::from_millis(200);

/// Build the index of a collection of a running server, and keep it on disk. Waits until it is done.
#[derive(Debug, Args)]
pub(super) struct TakeSnapshot {
    #[command(flatten)]
    target: ServerArgs,
    /// The collection.
    collection: String,
}

#[derive(Deserialize)]
struct Snapshots {
    data: Vec<SnapshotInfo>,
    is_indexing: bool,
    error: Option<String>,
}

#[derive(Deserialize)]
struct SnapshotInfo {
    number: u64,
    factory: String,
    rows: usize,
    bytes: usize,
    version: u64,
}

impl TakeSnapshot {
    pub(super) async fn run(self) -> Result<()> {
        let before = self.ask(Method::POST).await?.data.pop().map(|snapshot| snapshot.number);
        loop {
            let mut now = self.ask(Method::GET).await?;
            match now.data.pop() {
                _ if now.is_indexing => tokio::time::sleep(POLL).await,
                Some(made) if before.is_none_or(|before| made.number != before) => {
                    let SnapshotInfo { number, factory, rows, bytes, version } = made;
                    eprintln!(
                        "snapshot {number}: {factory} of {rows} rows at version {version}, {bytes} bytes"
                    );
                    return Ok(());
                }
                _ => {
                    let reason = now.error.unwrap_or_else(|| "there are no documents".into());
                    let message = format!("no snapshot was taken: {reason}");
                    return Err(Error::new(Kind::Unavailable, message).with("collection", &self.collection));
                }
            }
        }
    }

    async fn ask(&self, method: Method) -> Result<Snapshots> {
        let path = ["v1", "collections", &self.collection, "snapshots"];
        let read = |error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error);
        answer(self.target.request(method, &path)?).await?.json().await.map_err(read)
    }
}
