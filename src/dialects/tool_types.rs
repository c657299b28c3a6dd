//! The types of tools that an API knows, and the features that they belong to.

use super::{HostedFeature, HostedFeatures};
use crate::request_identity::Json;

/// Types of tools, and the features that they belong to. A type may have versions: `web_search_20250305` is a `web_search`.
pub(super) struct ToolTypes(pub(super) &'static [(&'static str, HostedFeature)]);

impl ToolTypes {
    /// The feature of the tools of type `name`. `None` if no feature is known of it.
    pub(super) fn feature(&self, name: &str) -> Option<HostedFeature> {
        self.0.iter().find(|(family, _)| is_version_of(name, family)).map(|(_, feature)| *feature)
    }

    /// What a request has of a tool of the upstream's, whose type is `name`.
    pub(super) fn features(&self, name: &str) -> HostedFeatures {
        self.feature(name).map_or(HostedFeatures::UNKNOWN_TOOL, Into::into)
    }

    /// Whether the upstream runs a tool by itself.
    pub(super) fn runs_upstream(&self, tool: &Json<'_>) -> bool {
        let feature = tool.get("type").and_then(Json::as_text).and_then(|name| self.feature(name));
        feature.is_some_and(HostedFeature::runs_upstream)
    }
}

/// Whether a type is `family` itself, or a version of it: its name goes on with a date or `preview`.
fn is_version_of(name: &str, family: &str) -> bool {
    let is_version = |part: &str| {
        part == "preview" || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match name.strip_prefix(family) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('_').is_some_and(|version| version.split('_').all(is_version)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_a_tool_is_that_tool() {
        let types = ToolTypes(&[("web_search", HostedFeature::WebSearch), ("mcp", HostedFeature::Mcp)]);
        for name in [
            "web_search",
            "web_search_20250305",
            "web_search_preview",
            "web_search_preview_2025_03_11",
            "web_search_2025_08_26",
        ] {
            assert_eq!(types.feature(name), Some(HostedFeature::WebSearch), "{name}");
        }
        for name in ["", "web", "web_search_", "web_search_x", "web_search2", "web_search__1", "mcp_toolset"]
        {
            assert_eq!(types.feature(name), None, "{name}");
        }
    }
}
