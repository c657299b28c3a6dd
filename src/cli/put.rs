//! `likewise put NAMESPACE KEY FILE`: an object into a running server.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use likewise::error::{Error, Result};
use reqwest::Method;

use super::client::{ServerArgs, answer};

/// Store an object in a running server.
#[derive(Debug, Args)]
pub(super) struct PutFile {
    #[command(flatten)]
    target: ServerArgs,
    /// The namespace, such as `products`.
    namespace: String,
    /// The key.
    key: String,
    /// The bytes; `-` reads standard input.
    file: PathBuf,
    /// Their media type.
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    content_type: String,
    /// Lifetime in seconds; by default that of the namespace.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    /// What the object depends on, separated by commas.
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    tags: Vec<String>,
}

impl PutFile {
    pub(super) async fn run(self) -> Result<()> {
        let bytes = self.read()?;
        let request = self.target.request(Method::PUT, &["v1", "cache", &self.namespace, &self.key])?;
        let mut request = request.header("content-type", &self.content_type).body(bytes);
        if let Some(ttl) = self.ttl {
            request = request.header("x-cache-ttl", ttl);
        }
        if !self.tags.is_empty() {
            request = request.header("x-cache-tags", self.tags.join(","));
        }
        answer(request).await.map(|_| ())
    }

    fn read(&self) -> Result<Vec<u8>> {
        let read = if self.file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        } else {
            fs_err::read(&self.file)
        };
        read.map_err(|error| Error::io("cannot read the object", error))
    }
}
