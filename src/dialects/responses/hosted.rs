//! What a request has the upstream run or hold.

use crate::dialects::choices::request::flag;
use crate::dialects::tool_types::ToolTypes;
use crate::dialects::{HostedFeature, HostedFeatures};
use crate::error::{Error, Result};
use crate::request_identity::Json;

/// Tools of the client's own.
const OWN_TOOLS: [&str; 2] = ["custom", "function"];

/// Tools of the API's. Source: OpenAI's reference of `POST /v1/responses`, `tools`.
const TOOLS: ToolTypes = ToolTypes(&[
    ("code_interpreter", HostedFeature::CodeInterpreter),
    ("computer", HostedFeature::Computer),
    ("computer_use", HostedFeature::Computer),
    ("file_search", HostedFeature::FileSearch),
    ("image_generation", HostedFeature::ImageGeneration),
    ("mcp", HostedFeature::Mcp),
    ("web_search", HostedFeature::WebSearch),
]);

/// What the answer to a request depends on beside what the request says, or does beside answering.
///
/// # Errors
/// `InvalidInput`, naming the field.
pub(super) fn hosted_features(request: &Json<'_>) -> Result<HostedFeatures> {
    let is_background = flag(request, "background", "background")?;
    let is_conversation = is_given(request, "conversation");
    let of_tools = tools(request)?.iter().map(of_tool);
    let of_members =
        [(is_background, HostedFeature::Background), (is_conversation, HostedFeature::Conversation)];
    let of_members =
        of_members.into_iter().filter(|(is_used, _)| *is_used).map(|(_, feature)| feature.into());
    Ok(of_members.chain(of_tools).collect())
}

/// Whether a request offers tools that its client may have to run, or to approve.
///
/// # Errors
/// `InvalidInput` if `tools` is no list.
pub(super) fn offers_own_tools(request: &Json<'_>) -> Result<bool> {
    Ok(!tools(request)?.iter().all(|tool| TOOLS.runs_upstream(tool)))
}

/// Whether a request has a member that says something.
pub(super) fn is_given(request: &Json<'_>, name: &str) -> bool {
    request.get(name).is_some_and(|value| *value != Json::Null)
}

fn of_tool(tool: &Json<'_>) -> HostedFeatures {
    let Some(name) = tool.get("type").and_then(Json::as_text) else { return HostedFeatures::UNKNOWN_TOOL };
    if OWN_TOOLS.contains(&name) {
        return HostedFeatures::default();
    }
    // Without the id of one, each call has a container of its own.
    let names_container = tool.get("container").and_then(Json::as_text).is_some_and(|id| id != "auto");
    let container = names_container.then_some(HostedFeature::Container.into());
    TOOLS.features(name).with(container.unwrap_or_default())
}

fn tools<'a>(request: &'a Json<'_>) -> Result<&'a [Json<'a>]> {
    match request.get("tools") {
        None | Some(Json::Null) => Ok(&[]),
        Some(tools) => tools.as_list().ok_or_else(|| Error::invalid("tools", "tools must be a list")),
    }
}
