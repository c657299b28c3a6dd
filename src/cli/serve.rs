//! `likewise serve`.

use clap::Args;
use likewise::error::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    sources: super::Sources,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl Serve {
    pub(super) async fn run(self) -> Result<()> {
        let config = self.sources.load(self.listen.as_deref())?;
        let mut terminate =
            signal(SignalKind::terminate()).map_err(|error| Error::io("listen for SIGTERM", error))?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        let announce = |address, model: &str| {
            super::say(&format!(
                "listening on http://{address}\n\
                 try: curl -s http://{address}/v1/embeddings -H 'content-type: application/json' \
                 -d '{{\"model\":\"{model}\",\"input\":\"una camiseta azul\"}}'\n"
            ));
        };
        likewise::app::serve(config, announce, stop).await
    }
}
