//! `likewise serve`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use likewise::config::Overrides;
use likewise::error::Result;

use super::model;
use super::signals;
use super::sources::Sources;
use super::terminal;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    sources: Sources,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where chat completions are answered, and texts embedded by models that are not served here, such as https://api.openai.com/v1; its key is in OPENAI_API_KEY.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Redis or Valkey that nodes share, such as redis://127.0.0.1:6379. A password is better given as LIKEWISE__REDIS__URL.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

impl Serve {
    pub(super) async fn run(self) -> Result<()> {
        likewise::storage::files::restrict_new_files();
        disable_huge_pages();
        let overrides = Overrides {
            listen: self.listen,
            upstream: self.upstream,
            redis: self.redis,
            ..Overrides::default()
        };
        let mut config = self.sources.load_with(overrides)?;
        let has_started = Arc::new(AtomicBool::new(false));
        let stops = signals::listen(Duration::from_secs(config.http.drain_seconds), &has_started)?;
        model::resolve(&mut config).await?;
        let announce = |address, model: Option<&str>| {
            has_started.store(true, Ordering::Release);
            let request = model.map_or_else(
                || format!("http://{address}/v1/models"),
                |model| {
                    format!(
                        "http://{address}/v1/embeddings -H 'content-type: application/json' \
                         -d '{{\"model\":\"{model}\",\"input\":\"una camiseta azul\"}}'"
                    )
                },
            );
            terminal::say(&format!("listening on http://{address}\ntry: curl -s {request}\n"));
        };
        likewise::app::serve(config, announce, stops).await
    }
}

/// Makes pages of 4 KiB the unit of memory. A transparent huge page is resident whole once a byte of it is used, and the
/// allocator gives none back of which a byte is in use: under floods of large requests, memory grew to twice what they held.
/// Exact searches take about 5 % longer without; embedding does not.
fn disable_huge_pages() {
    // A kernel without huge pages refuses, and has none to disable.
    _ = rustix::thread::disable_transparent_huge_pages(true);
}
