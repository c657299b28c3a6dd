//! The options of commands that read the configuration.

use std::path::PathBuf;

use clap::Args;
use likewise::config::{Config, Overrides};
use likewise::error::Result;

use super::model;

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// Configuration file (TOML). Every key can also be given as LIKEWISE__SECTION__KEY.
    #[arg(long, value_name = "FILE", env = "LIKEWISE_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory; one process at a time.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Embedding model: a directory in the layout of sentence-transformers, or a model of the Hugging Face hub as OWNER/NAME, which
    /// is fetched once; none for a server without a model. By default all-MiniLM-L6-v2.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
}

impl Sources {
    /// With the model, which is fetched if need be.
    pub(super) async fn load(&self) -> Result<Config> {
        let mut config = self.load_with(Overrides::default())?;
        model::resolve(&mut config).await?;
        Ok(config)
    }

    /// With what the command says beside its sources.
    pub(super) fn load_with(&self, overrides: Overrides) -> Result<Config> {
        let overrides = Overrides { data_dir: self.data_dir.clone(), model: self.model.clone(), ..overrides };
        Config::load(self.config.as_deref(), &overrides)
    }
}
