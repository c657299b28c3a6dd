//! What an upstream runs or holds for a request. Its answer then depends on more than the request says, or does more than answer, so that
//! it is cached only where the operator has switched that on by name.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::labels::{Label as _, label_enum};

label_enum! {
    /// A feature of an API whose answers are cached only where `answers.cached_features` names it.
    #[derive(Serialize, Deserialize)]
    #[serde(try_from = "String", into = "String")]
    pub enum HostedFeature {
        /// The answer is fetched later, by its id.
        Background = "background",
        /// The request continues a conversation that the upstream holds, and adds to it.
        Conversation = "conversation",
        /// A shell whose schema the upstream knows, and which the client runs.
        Bash = "bash",
        /// Code that the upstream runs (`/v1/messages`).
        CodeExecution = "code_execution",
        /// Code that the upstream runs (`/v1/responses`).
        CodeInterpreter = "code_interpreter",
        /// A screen that the client operates.
        Computer = "computer",
        /// A search in files that the upstream holds.
        FileSearch = "file_search",
        /// Images that the upstream generates.
        ImageGeneration = "image_generation",
        /// Files of a memory whose schema the upstream knows, and which the client holds.
        Memory = "memory",
        /// An editor whose schema the upstream knows, and which the client runs.
        TextEditor = "text_editor",
        /// Pages that the upstream fetches.
        WebFetch = "web_fetch",
        /// A search in the web.
        WebSearch = "web_search",
        /// Servers of tools (MCP) that the upstream calls.
        Mcp = "mcp",
        /// A container, whose files change.
        Container = "container",
        /// Uploaded files, by their ids.
        File = "file",
    }
}

impl HostedFeature {
    /// Whether it is a tool that the upstream runs by itself: its client has nothing to do before the answer is complete.
    pub(super) fn runs_upstream(self) -> bool {
        matches!(
            self,
            HostedFeature::CodeExecution
                | HostedFeature::CodeInterpreter
                | HostedFeature::FileSearch
                | HostedFeature::ImageGeneration
                | HostedFeature::WebFetch
                | HostedFeature::WebSearch
        )
    }

    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl TryFrom<String> for HostedFeature {
    type Error = Error;

    fn try_from(name: String) -> Result<HostedFeature> {
        HostedFeature::ALL.iter().copied().find(|feature| feature.as_str() == name).ok_or_else(|| {
            let known = HostedFeature::WORDS.join(", ");
            Error::new(Kind::Config, format!("a cached feature must be one of {known}, got {name:?}"))
        })
    }
}

impl From<HostedFeature> for String {
    fn from(feature: HostedFeature) -> String {
        feature.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_known_is_refused_with_those_that_are() {
        assert_eq!(HostedFeature::try_from("mcp".to_owned()).unwrap(), HostedFeature::Mcp);
        for unknown in ["", "web-search", "MCP"] {
            let message = HostedFeature::try_from(unknown.to_owned()).unwrap_err().to_string();
            assert!(message.contains("background, conversation, bash"), "{message}");
            assert!(message.ends_with(&format!("{unknown:?}")), "{message}");
        }
    }
}
