//! Why the answer to a request has no place in the cache, if the request itself is the reason.

/// Why a request bypasses the cache: its answer depends on more than the request says, or does more than answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Uncacheable {
    /// Its answer is fetched later, by its id.
    Background,
    /// It continues a conversation that the upstream holds, and adds to it.
    Conversation,
    /// It offers a tool that the upstream runs.
    HostedTool,
    /// It names servers of tools (MCP) that the upstream calls.
    McpServer,
    /// It names a container, whose files change.
    Container,
    /// It refers to an uploaded file by its id.
    File,
}
