//! `likewise health`: whether a running server takes requests, for health checks of containers.

use std::time::Duration;

use clap::Args;
use likewise::error::Result;
use reqwest::Method;

use super::client::{ServerArgs, answer};
use super::terminal;

/// How long the server may take to answer. Probes are answered beyond every limit.
const WITHIN: Duration = Duration::from_secs(5);

/// Check that a running server takes requests. Exits with 1 if it does not.
#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    target: ServerArgs,
}

impl Health {
    pub(super) async fn run(self) -> Result<()> {
        answer(self.target.request(Method::GET, &["readyz"])?.timeout(WITHIN)).await?;
        terminal::say("ready\n");
        Ok(())
    }
}
