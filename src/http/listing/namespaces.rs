//! `/v1/namespaces`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::Principal;
use crate::error::Result;
use crate::http::error_response::{ErrorBody, Problem};
use crate::service::listing::NamespaceSummary;

/// The namespaces of the tenant of the API key.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct NamespaceList {
    /// `list`.
    object: &'static str,
    /// The declared namespaces, and those with most entries on disk, sorted by name; at most 1000.
    data: Vec<NamespaceObject>,
    /// All other namespaces together: those beyond 1000, and those of which no entry on disk stores the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    others: Option<NamespaceEntries>,
}

/// A namespace.
#[derive(Debug, Serialize, ToSchema)]
struct NamespaceObject {
    /// Its name.
    name: String,
    /// Other names of it.
    aliases: Vec<String>,
    /// Whether the configuration or the program declares it; other namespaces begin with their first entry.
    is_declared: bool,
    #[serde(flatten)]
    entries: NamespaceEntries,
}

/// The entries of a namespace in each tier; one that is in both is counted in both.
#[derive(Debug, Serialize, ToSchema)]
struct NamespaceEntries {
    /// On disk. Embeddings there do not store their namespace and are not counted.
    disk: DiskEntries,
    /// In memory.
    memory: MemoryEntries,
}

/// Entries on disk.
#[derive(Debug, Serialize, ToSchema)]
struct DiskEntries {
    /// All that are stored, ended and invalidated ones included: they make room for others.
    entries: u64,
    /// What they take of the budget.
    bytes: u64,
    /// Those whose lifetime has ended.
    ended: u64,
    /// Those that were invalidated.
    invalidated: u64,
}

/// Entries in memory.
#[derive(Debug, Serialize, ToSchema)]
struct MemoryEntries {
    /// All that are held, ended and invalidated ones included.
    entries: u64,
    /// Those whose lifetime has ended.
    ended: u64,
    /// Those that were invalidated.
    invalidated: u64,
}

/// Lists the namespaces with their entries.
///
/// Visits every entry in memory and the metadata of every entry on disk: its cost grows with their number.
#[utoipa::path(
    get,
    path = "/v1/namespaces",
    operation_id = "listNamespaces",
    tag = "objects",
    responses(
        (status = 200, body = NamespaceList, description = "The namespaces, sorted by name"),
        (status = 503, body = ErrorBody, description = "The store is off since an error of the disk"),
    )
)]
pub(in crate::http) async fn list(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
) -> Result<Json<NamespaceList>, Problem> {
    let list = endpoint.listing.namespaces(&principal).await?;
    let others = list.others.as_ref().map(NamespaceEntries::of);
    Ok(Json(NamespaceList {
        object: "list",
        data: list.named.into_iter().map(NamespaceObject::of).collect(),
        others,
    }))
}

impl NamespaceObject {
    fn of(summary: NamespaceSummary) -> NamespaceObject {
        let entries = NamespaceEntries::of(&summary);
        let NamespaceSummary { name, aliases, is_declared, .. } = summary;
        NamespaceObject { name: name.as_ref().to_owned(), aliases, is_declared, entries }
    }
}

impl NamespaceEntries {
    fn of(summary: &NamespaceSummary) -> NamespaceEntries {
        let (disk, memory) = (summary.disk, summary.memory);
        NamespaceEntries {
            disk: DiskEntries {
                entries: disk.total(),
                bytes: summary.disk_bytes,
                ended: disk.ended,
                invalidated: disk.invalidated,
            },
            memory: MemoryEntries {
                entries: memory.total(),
                ended: memory.ended,
                invalidated: memory.invalidated,
            },
        }
    }
}
