//! `likewise get NAMESPACE KEY`: an object from a running server.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use reqwest::Method;

use super::client::{ServerArgs, answer};

/// Print an object of a running server. Exits with 3 if it is not cached.
#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    target: ServerArgs,
    /// The namespace, such as `products`.
    namespace: String,
    /// The key.
    key: String,
    /// Where the bytes go; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Get {
    pub(super) async fn run(self) -> Result<()> {
        let request = self.target.request(Method::GET, &["v1", "cache", &self.namespace, &self.key])?;
        let read = |error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error);
        let bytes = answer(request).await?.bytes().await.map_err(read)?;
        match &self.output {
            Some(path) => {
                fs_err::write(path, &bytes).map_err(|error| Error::io("cannot write the object", error))
            }
            None => {
                let mut stdout = std::io::stdout().lock();
                let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
                written.map_err(|error| Error::io("cannot write the object", error))
            }
        }
    }
}
