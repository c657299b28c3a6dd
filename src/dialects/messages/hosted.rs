//! Requests whose answer depends on more than they say: on what the upstream runs, calls or holds.

use crate::dialects::Uncacheable;
use crate::dialects::conversation::is_unset;
use crate::request_identity::Json;

/// Why the answer to a request has no place in the cache. `None` if it has one.
pub(super) fn uncacheable(request: &Json<'_>) -> Option<Uncacheable> {
    let tools = request.get("tools").and_then(Json::as_list).unwrap_or_default();
    let is_set = |name: &str| request.get(name).is_some_and(|value| !is_unset(value));
    if tools.iter().any(is_hosted) {
        Some(Uncacheable::HostedTool)
    } else if is_set("mcp_servers") {
        Some(Uncacheable::McpServer)
    } else if is_set("container") {
        Some(Uncacheable::Container)
    } else if ["messages", "system"].iter().any(|name| request.get(name).is_some_and(refers_to_file)) {
        Some(Uncacheable::File)
    } else {
        None
    }
}

/// Whether a tool has a type of the upstream's. The client's own have none, or `custom`.
fn is_hosted(tool: &Json<'_>) -> bool {
    match tool.get("type") {
        None | Some(Json::Null) => false,
        Some(kind) => kind.as_text() != Some("custom"),
    }
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

    fn reason(members: &str) -> Option<Uncacheable> {
        let body = format!(r#"{{"model":"m",{members}}}"#);
        uncacheable(&Json::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn what_the_upstream_runs_calls_or_holds_bypasses_the_cache() {
        let file = r#"{"type":"document","source":{"type":"file","file_id":"file_1"}}"#;
        for (members, expected) in [
            (
                r#""tools":[{"name":"f"},{"type":"web_search_20250305","name":"web_search"}]"#.to_owned(),
                Uncacheable::HostedTool,
            ),
            (r#""tools":[{"type":7}]"#.into(), Uncacheable::HostedTool),
            (r#""mcp_servers":[{"type":"url","url":"https://a.test"}]"#.into(), Uncacheable::McpServer),
            (r#""container":"container_1""#.into(), Uncacheable::Container),
            (r#""container":{"skills":[]}"#.into(), Uncacheable::Container),
            (format!(r#""messages":[{{"role":"user","content":[{file}]}}]"#), Uncacheable::File),
            (format!(r#""system":[{file}]"#), Uncacheable::File),
            (
                format!(
                    r#""messages":[{{"role":"user","content":[{{"type":"tool_result","content":[{file}]}}]}}]"#
                ),
                Uncacheable::File,
            ),
            (
                r#""messages":[{"role":"user","content":[{"type":"container_upload","file_id":"f"}]}]"#
                    .into(),
                Uncacheable::File,
            ),
        ] {
            assert_eq!(reason(&members), Some(expected), "{members}");
        }
    }

    #[test]
    fn what_a_request_says_in_full_does_not() {
        for members in [
            r#""tools":[{"name":"f"},{"type":"custom","name":"g"},{"type":null,"name":"h"}]"#,
            r#""tools":[],"mcp_servers":[],"container":null"#,
            r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","data":"AA"}}]}]"#,
            r#""messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"type":"file","file_id":"f"}}]}]"#,
        ] {
            assert_eq!(reason(members), None, "{members}");
        }
    }
}
