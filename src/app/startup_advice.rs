//! What an operator types about a fault of the start, where nothing more precise is known.

use crate::config::Config;
use crate::error::{Error, Kind};

/// The error with advice, if it has none yet.
pub(super) fn advise(config: &Config, error: Error) -> Error {
    let dir = config.data.dir.display();
    let advice = match error.kind() {
        Kind::Config => {
            "correct the option in the configuration file, in its variable LIKEWISE__SECTION__KEY or on the command line".into()
        }
        Kind::Model => "give --model another DIRECTORY, --model OWNER/NAME of a BERT or XLM-RoBERTa model of the Hugging Face \
                        hub, or no --model for the default one"
            .into(),
        Kind::Locked => "give --data-dir another directory".into(),
        Kind::Format => {
            format!("start the version of likewise that wrote {dir}, or give --data-dir another directory")
        }
        Kind::Corrupt => format!("type `likewise verify {dir}`, then `likewise verify {dir} --repair`"),
        Kind::DiskFull => format!("make room on the disk of {dir}, or give --data-dir a directory on another disk"),
        Kind::InvalidInput
        | Kind::TooLarge
        | Kind::UnsupportedCoding
        | Kind::Unauthorized
        | Kind::Forbidden
        | Kind::RequestTimeout
        | Kind::Loop
        | Kind::Unprocessable
        | Kind::NotFound
        | Kind::MethodNotAllowed
        | Kind::UpgradeRequired
        | Kind::ModelNotFound
        | Kind::Conflict
        | Kind::OnOtherNode
        | Kind::PreconditionFailed
        | Kind::NotCached
        | Kind::Overloaded
        | Kind::Timeout
        | Kind::Unavailable
        | Kind::Upstream
        | Kind::Io
        | Kind::Internal => "type `likewise doctor` to check this machine".into(),
    };
    error.advise(advice)
}
