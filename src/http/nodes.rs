//! `/v1/nodes`: the nodes that share a Redis.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::http::routes::{Access, Routes};
use crate::nodes::{NodeStatus, Nodes};

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Nodes>> {
    Routes::new().add_for(Access::Monitoring, routes!(list))
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeObject {
    /// Its id, which its data directory keeps: 16 hexadecimal digits. Without Redis `0000000000000000`.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    id: String,
    /// Whether it is the node that answers.
    is_self: bool,
    /// Whether it has announced itself within the last three heartbeats, as far as Redis has said.
    is_alive: bool,
    /// Milliseconds since it has announced itself.
    seen_ms_ago: u64,
    /// The address at which other nodes reach it (`nodes.advertise`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    address: Option<String>,
    /// The version of its program.
    version: String,
    /// When it was started, in seconds since 1970.
    started_at: u32,
    /// Changes of other nodes that are in Redis and that it had not applied when it announced itself. Absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    events_behind: Option<u64>,
    /// It has applied all changes of other nodes that are older than so many milliseconds.
    behind_ms: u64,
    /// Its own changes that wait until Redis answers.
    outbox: u64,
    /// How much of its limits it uses, from 0 to 1, at which it refuses requests.
    load_ratio: f64,
    /// Entries in its memory.
    entries: u64,
    /// Bytes of its memory tier.
    memory_bytes: u64,
    /// Collections that live on it.
    collections: u64,
}

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeList {
    /// `list`.
    object: &'static str,
    /// Whether Redis has named them within the last three heartbeats. If not, they are as they were known last.
    is_current: bool,
    /// The node that answers, then the others by their ids.
    data: Vec<NodeObject>,
}

/// Lists the nodes that share a Redis.
///
/// Without Redis it is the node that answers, alone.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    operation_id = "listNodes",
    tag = "operations",
    responses(
        (status = 200, body = NodeList, description = "The nodes"),
    )
)]
pub(super) async fn list(State(nodes): State<Arc<Nodes>>) -> Json<NodeList> {
    let (all, is_current) = nodes.all();
    Json(NodeList { object: "list", is_current, data: all.into_iter().map(describe).collect() })
}

fn describe(node: NodeStatus) -> NodeObject {
    NodeObject {
        id: format!("{:016x}", node.id),
        is_self: node.is_self,
        is_alive: node.is_alive,
        seen_ms_ago: millis(node.seen_ago),
        address: node.address,
        version: node.version,
        started_at: node.started_at.0,
        events_behind: node.events_behind,
        behind_ms: node.behind_ms,
        outbox: node.outbox,
        load_ratio: node.numbers.load_ratio,
        entries: node.numbers.entries,
        memory_bytes: node.numbers.memory_bytes,
        collections: node.numbers.collections,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
