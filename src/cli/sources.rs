//! The options of commands that read the configuration.

use std::path::PathBuf;

use clap::Args;
use likewise::config::{Config, Overrides};
use likewise::error::Result;

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// Configuration file (TOML). Every key can also be given as LIKEWISE__SECTION__KEY.
    #[arg(long, value_name = "FILE", env = "LIKEWISE_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory; one process at a time.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Directory of the embedding model (sentence-transformers layout).
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

impl Sources {
    pub(super) fn load(&self) -> Result<Config> {
        self.load_with(Overrides::default())
    }

    /// With what the command says beside its sources.
    pub(super) fn load_with(&self, overrides: Overrides) -> Result<Config> {
        let overrides = Overrides { data_dir: self.data_dir.clone(), model: self.model.clone(), ..overrides };
        Config::load(self.config.as_deref(), &overrides)
    }
}
