//! The headers of responses: one table with their schemas and descriptions.

use utoipa::ToSchema as _;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::response::{Response, Responses};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};

use crate::http::label_value::ReasonLabel;

/// The schema of a header's value.
#[derive(Clone, Copy)]
enum Value {
    Text,
    Count,
    Dollars,
    Reason,
}

/// Headers with their descriptions. The attributes of handlers name headers of this table.
const HEADERS: [(&str, Value, &str); 29] = [
    ("accept-encoding", Value::Text, "The content codings of request bodies that the server decodes"),
    ("age", Value::Count, "Seconds since the cached value was stored (RFC 9111)"),
    ("cache-control", Value::Text, "How caches between client and server may use the response (RFC 9111)"),
    ("cache-groups", Value::Text, "The tags of the value, as a list of strings (RFC 9875)"),
    (
        "cache-status",
        Value::Text,
        "Whether the cache had the value, in which tier, and for how long (RFC 9211)",
    ),
    (
        "content-encoding",
        Value::Text,
        "The content coding of the body: that with which an object was stored; of other bodies `zstd` or `gzip`, if the request accepts it",
    ),
    ("etag", Value::Text, "The entity tag of the object: equal tags are equal bytes"),
    ("retry-after", Value::Count, "Seconds after which a retry may succeed"),
    ("server-timing", Value::Text, "Durations in milliseconds (W3C Server Timing)"),
    ("vary", Value::Text, "`accept-encoding`, of a body that is compressed for requests that accept it"),
    ("www-authenticate", Value::Text, "The scheme of the key: `Bearer`"),
    ("x-cache-lease", Value::Text, "The lease that the client now holds; its PUT sends it"),
    ("x-cache-lease-seconds", Value::Count, "Seconds until the lease ends"),
    ("x-likewise-answer-id", Value::Text, "The id of the answer, for `DELETE /v1/answers/{id}`"),
    ("x-likewise-coalesced", Value::Count, "Texts or queries computed for another request at the same time"),
    ("x-likewise-cost-saved-usd", Value::Dollars, "What the upstream would have charged, by the price table"),
    (
        "x-likewise-differs",
        Value::Text,
        "The members in which a request that missed differs from the nearest stored one of the same caller, as `messages[0].content@118, user`",
    ),
    ("x-likewise-documents", Value::Count, "The number of lines"),
    ("x-likewise-hits", Value::Count, "Texts or queries found in the cache"),
    ("x-likewise-misses", Value::Count, "Texts or queries computed for this request"),
    (
        "x-likewise-node",
        Value::Text,
        "The node that has answered, if the request was passed on to another one",
    ),
    (
        "x-likewise-propagation",
        Value::Text,
        "`pending` if the change waits until Redis, through which other nodes get it, is reachable",
    ),
    ("x-likewise-reason", Value::Reason, "Why the cache was bypassed, or why the reply was not stored"),
    (
        "x-likewise-semantic",
        Value::Text,
        "What became of the search for a question in other words: `hit`, `none`, `refused`, `exact_only` or `unavailable`; `similarity` of the nearest question, and `because`",
    ),
    ("x-likewise-tokens-saved", Value::Count, "Tokens that the upstream would have used"),
    ("x-likewise-truncated", Value::Count, "Texts that the model did not read to their end"),
    ("x-likewise-version", Value::Count, "The version of the collection whose rows the file has"),
    ("x-request-id", Value::Text, "The id of the request: that of the client if it sent one, else a new one"),
    ("x-should-retry", Value::Text, "`false` if a retry fails alike"),
];

/// The headers of each response with this status code.
fn of_status(status: &str) -> &'static [&'static str] {
    match status {
        "401" => &["x-request-id", "www-authenticate"],
        "415" => &["x-request-id", "accept-encoding"],
        "429" | "503" => &["x-request-id", "retry-after"],
        "504" => &["x-request-id", "x-should-retry"],
        _ => &["x-request-id"],
    }
}

/// The headers of a response that is compressed for requests that accept it.
const COMPRESSION_HEADERS: [&str; 2] = ["content-encoding", "vary"];

/// Whether a long response is compressed: a success with text that has no entity tag. Errors are short.
fn is_compressed(status: &str, response: &Response) -> bool {
    let mut media_types = response.content.keys();
    status.starts_with('2')
        && !response.headers.contains_key("etag")
        && media_types.any(|media_type| {
            media_type == "application/json" || media_type == "application/openmetrics-text"
        })
}

/// Adds the header of responses that another node may have sent.
pub(super) fn add_node(responses: &mut Responses) {
    for response in responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        response.headers.insert("x-likewise-node".to_owned(), RefOr::T(Header::default()));
    }
}

/// Adds the headers that go with a status code, and describes those that the attributes name.
pub(super) fn describe(responses: &mut Responses) {
    for (status, response) in &mut responses.responses {
        let RefOr::T(response) = response else { continue };
        let of_compression = if is_compressed(status, response) { &COMPRESSION_HEADERS[..] } else { &[] };
        for name in of_status(status).iter().chain(of_compression) {
            response.headers.insert((*name).to_owned(), RefOr::T(Header::default()));
        }
        for (name, header) in &mut response.headers {
            if let Some((_, value, description)) = HEADERS.iter().find(|(known, ..)| known == name) {
                let described = HeaderBuilder::new().schema(Some(schema(*value)));
                *header = RefOr::T(described.description(Some(*description)).build());
            }
        }
    }
}

fn schema(value: Value) -> RefOr<Schema> {
    let of_type = |kind| ObjectBuilder::new().schema_type(kind);
    match value {
        Value::Text => of_type(Type::String).into(),
        Value::Count => of_type(Type::Integer).minimum(Some(0)).into(),
        Value::Dollars => of_type(Type::Number).minimum(Some(0)).into(),
        Value::Reason => Ref::from_schema_name(ReasonLabel::name()).into(),
    }
}
