//! Requests whose answer depends on more than they say: on what the upstream runs, calls or holds.

use crate::dialects::conversation::is_unset;
use crate::dialects::tool_types::ToolTypes;
use crate::dialects::{HostedFeature, HostedFeatures};
use crate::request_identity::Json;

/// Tools of the API's. Source: Anthropic's reference of `POST /v1/messages`, `tools`.
const TOOLS: ToolTypes = ToolTypes(&[
    ("bash", HostedFeature::Bash),
    ("code_execution", HostedFeature::CodeExecution),
    ("computer", HostedFeature::Computer),
    ("mcp_toolset", HostedFeature::Mcp),
    ("memory", HostedFeature::Memory),
    ("text_editor", HostedFeature::TextEditor),
    ("web_fetch", HostedFeature::WebFetch),
    ("web_search", HostedFeature::WebSearch),
]);

/// What the answer to a request depends on beside what the request says.
pub(super) fn hosted_features(request: &Json<'_>) -> HostedFeatures {
    let is_set = |name: &str| request.get(name).is_some_and(|value| !is_unset(value));
    let has_files = ["messages", "system"].iter().any(|name| request.get(name).is_some_and(refers_to_file));
    let of_members = [
        (is_set("mcp_servers"), HostedFeature::Mcp),
        (is_set("container"), HostedFeature::Container),
        (has_files, HostedFeature::File),
    ];
    let of_members =
        of_members.into_iter().filter(|(is_used, _)| *is_used).map(|(_, feature)| feature.into());
    of_members.chain(tools(request).iter().map(of_tool)).collect()
}

/// Whether a request offers tools that its client may have to run.
pub(super) fn offers_own_tools(request: &Json<'_>) -> bool {
    !tools(request).iter().all(|tool| TOOLS.runs_upstream(tool))
}

/// The client's own tools have no type, or `custom`.
fn of_tool(tool: &Json<'_>) -> HostedFeatures {
    match tool.get("type") {
        None | Some(Json::Null) => HostedFeatures::default(),
        Some(kind) => match kind.as_text() {
            Some("custom") => HostedFeatures::default(),
            Some(name) => TOOLS.features(name),
            None => HostedFeatures::UNKNOWN_TOOL,
        },
    }
}

fn tools<'a>(request: &'a Json<'_>) -> &'a [Json<'a>] {
    request.get("tools").and_then(Json::as_list).unwrap_or_default()
}

/// Whether messages, blocks or their sources refer to an uploaded file. The input of a tool is no block.
fn refers_to_file(value: &Json<'_>) -> bool {
    match value {
        Json::List(elements) => elements.iter().any(refers_to_file),
        Json::Object(_) => {
            let kind = value.get("type").and_then(Json::as_text);
            let inner = ["content", "source"].iter().filter_map(|name| value.get(name));
            matches!(kind, Some("file" | "container_upload")) || inner.into_iter().any(refers_to_file)
        }
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) | Json::Text(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(members: &str) -> HostedFeatures {
        let body = format!(r#"{{"model":"m",{members}}}"#);
        hosted_features(&Json::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn what_the_upstream_runs_calls_or_holds_is_named() {
        let file = r#"{"type":"document","source":{"type":"file","file_id":"file_1"}}"#;
        for (members, expected) in [
            (
                r#""tools":[{"name":"f"},{"type":"web_search_20250305","name":"web_search"}]"#.to_owned(),
                HostedFeature::WebSearch.into(),
            ),
            (r#""tools":[{"type":7}]"#.into(), HostedFeatures::UNKNOWN_TOOL),
            (r#""tools":[{"type":"advisor_20260301"}]"#.into(), HostedFeatures::UNKNOWN_TOOL),
            (r#""tools":[{"type":"bash_20250124","name":"bash"}]"#.into(), HostedFeature::Bash.into()),
            (r#""tools":[{"type":"mcp_toolset","mcp_server_name":"a"}]"#.into(), HostedFeature::Mcp.into()),
            (
                r#""tools":[{"type":"code_execution_20250825"},{"type":"web_fetch_20250910"}],"container":"c""#.into(),
                [HostedFeature::CodeExecution, HostedFeature::WebFetch, HostedFeature::Container]
                    .into_iter()
                    .collect(),
            ),
            (r#""mcp_servers":[{"type":"url","url":"https://a.test"}]"#.into(), HostedFeature::Mcp.into()),
            (r#""container":"container_1""#.into(), HostedFeature::Container.into()),
            (r#""container":{"skills":[]}"#.into(), HostedFeature::Container.into()),
            (format!(r#""messages":[{{"role":"user","content":[{file}]}}]"#), HostedFeature::File.into()),
            (format!(r#""system":[{file}]"#), HostedFeature::File.into()),
            (
                format!(
                    r#""messages":[{{"role":"user","content":[{{"type":"tool_result","content":[{file}]}}]}}]"#
                ),
                HostedFeature::File.into(),
            ),
            (
                r#""messages":[{"role":"user","content":[{"type":"container_upload","file_id":"f"}]}]"#
                    .into(),
                HostedFeature::File.into(),
            ),
        ] {
            assert_eq!(features(&members), expected, "{members}");
        }
    }

    #[test]
    fn what_a_request_says_in_full_is_no_feature() {
        for members in [
            r#""tools":[{"name":"f"},{"type":"custom","name":"g"},{"type":null,"name":"h"}]"#,
            r#""tools":[],"mcp_servers":[],"container":null"#,
            r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","data":"AA"}}]}]"#,
            r#""messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"type":"file","file_id":"f"}}]}]"#,
        ] {
            assert!(features(members).is_empty(), "{members}");
        }
    }
}
