//! Why the cache was bypassed or a reply was not stored: one word each, in headers, trailers and metrics.

use crate::dialects::{HostedFeature, Uncacheable, Unstorable};
use crate::labels::label_enum;

label_enum! {
    /// Why the cache was bypassed, or why a reply was not stored.
    pub enum Reason {
        /// The cache is bypassed: the request's temperature is above `answers.temperature_max`.
        Temperature = "temperature",
        /// The cache is bypassed: a number of the request cannot be represented exactly.
        Number = "number",
        /// The cache is bypassed: the answer is fetched later, by its id (`background`). This reason and the next five are of features that
        /// `answers.cached_features` switches on.
        Background = "background",
        /// The cache is bypassed: the request continues a conversation that the upstream holds.
        Conversation = "conversation",
        /// The cache is bypassed, or the reply is not stored: the request offers, or the reply has used, a tool of the upstream's.
        HostedTool = "hosted_tool",
        /// The cache is bypassed, or the reply is not stored: it is about servers of tools (MCP) that the upstream calls.
        McpServer = "mcp_server",
        /// The cache is bypassed: the request names a container, whose files change.
        Container = "container",
        /// The cache is bypassed: the request refers to an uploaded file by its id.
        File = "file",
        /// The cache is bypassed: answers of the route are not cached.
        Route = "route",
        /// The request sends `no-store`.
        NoStore = "no_store",
        /// The reply calls tools, and such answers are not stored for the request (`answers.cache_tool_calls`).
        ToolCalls = "tool_calls",
        /// The reply ended at the limit of tokens, and such answers are not stored for the request (`answers.cache_truncated`).
        Truncated = "truncated",
        /// The reply is larger than `upstream.answer_bytes_max`, or than its namespace allows.
        TooLarge = "too_large",
        /// One of its tags was invalidated since the generation began.
        Invalidated = "invalidated",
        /// It was deleted while it was in flight.
        Deleted = "deleted",
        /// The answer of a later generation was stored before, or another node has replaced or removed it.
        Superseded = "superseded",
        /// The disk write failed: it is in memory only.
        Disk = "disk",
        /// The reply is a success and no answer.
        NoAnswer = "no_answer",
        /// The status of the reply is not a success.
        Status = "status",
        /// The reply is compressed in a way that cannot be read.
        Encoding = "encoding",
        /// All clients disconnected before its end.
        Abandoned = "abandoned",
        /// It has a member, or a type of a known one, for which no exact replay is known.
        UnknownMember = "unknown_member",
        /// The same member came twice, in ways that have no certain sum.
        Uncertain = "uncertain",
        /// An event is neither JSON nor UTF-8.
        Garbled = "garbled",
        /// The reply carries an error.
        Error = "error",
        /// The stream ended before its last event.
        Incomplete = "incomplete",
        /// A choice ended by a filter, or gives no reason; a response of `/v1/responses` is not completed.
        Unfinished = "unfinished",
        /// A choice has no content.
        Empty = "empty",
        /// A member that every chunk of a replay repeats is too long.
        Envelope = "envelope",
        /// It is a stream, of a route that stores whole replies only.
        Stream = "stream",
    }
}

impl Reason {
    /// Whether the upstream sent a success that is no answer.
    pub(super) fn is_no_answer(self) -> bool {
        matches!(self, Reason::NoAnswer | Reason::Encoding)
    }
}

impl From<Uncacheable> for Reason {
    fn from(uncacheable: Uncacheable) -> Reason {
        match uncacheable {
            Uncacheable::Feature(HostedFeature::Background) => Reason::Background,
            Uncacheable::Feature(HostedFeature::Conversation) => Reason::Conversation,
            Uncacheable::Feature(HostedFeature::Mcp) => Reason::McpServer,
            Uncacheable::Feature(HostedFeature::Container) => Reason::Container,
            Uncacheable::Feature(HostedFeature::File) => Reason::File,
            Uncacheable::UnknownTool
            | Uncacheable::Feature(
                HostedFeature::Bash
                | HostedFeature::CodeExecution
                | HostedFeature::CodeInterpreter
                | HostedFeature::Computer
                | HostedFeature::FileSearch
                | HostedFeature::ImageGeneration
                | HostedFeature::Memory
                | HostedFeature::TextEditor
                | HostedFeature::WebFetch
                | HostedFeature::WebSearch,
            ) => Reason::HostedTool,
        }
    }
}

impl From<Unstorable> for Reason {
    fn from(unstorable: Unstorable) -> Reason {
        match unstorable {
            Unstorable::UnknownMember => Reason::UnknownMember,
            Unstorable::Uncertain => Reason::Uncertain,
            Unstorable::Garbled => Reason::Garbled,
            Unstorable::Error => Reason::Error,
            Unstorable::Incomplete => Reason::Incomplete,
            Unstorable::Unfinished => Reason::Unfinished,
            Unstorable::Empty => Reason::Empty,
            Unstorable::Envelope => Reason::Envelope,
            Unstorable::Stream => Reason::Stream,
            Unstorable::TooLarge => Reason::TooLarge,
        }
    }
}
