//! `likewise serve`.

use clap::Args;
use likewise::config::Overrides;
use likewise::error::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    sources: super::Sources,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where chat completions are answered, such as https://api.openai.com/v1; its key is in OPENAI_API_KEY.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

impl Serve {
    pub(super) async fn run(self) -> Result<()> {
        likewise::storage::files::restrict_new_files();
        let overrides = Overrides { listen: self.listen, upstream: self.upstream, ..Overrides::default() };
        let config = self.sources.load_with(overrides)?;
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
