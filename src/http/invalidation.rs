//! `/v1/invalidate`: hides what is no longer true.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::cache::Propagation;
use crate::domain::{NamespaceId, Principal, Tag};
use crate::error::{Error, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::{BodyLimit, UnreadBody};
use crate::http::extract::bounded_list::BoundedList;
use crate::http::label_value::{EntryKindLabel, InvalidationMode, LabelValue, PropagationLabel};
use crate::http::routes::Routes;
use crate::service::invalidation::{Counts, GroupCount, NAMES_MAX, Target};
use crate::service::{Invalidation, Listing};

/// What the handler needs.
pub(super) struct Endpoint {
    pub(super) invalidation: Arc<Invalidation>,
    pub(super) listing: Arc<Listing>,
    pub(super) body_bytes_max: usize,
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add(routes!(invalidate))
}

/// What to hide: `tags`, `namespace` with or without `keys`, `entity`, or `all`; exactly one of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InvalidateRequest {
    /// Entries that have any of these tags.
    #[schema(value_type = Option<Vec<String>>, max_items = 1024)]
    tags: Option<BoundedList<String, NAMES_MAX>>,
    /// All entries of this namespace, or with `keys` those objects.
    namespace: Option<String>,
    /// Objects of `namespace`.
    #[schema(value_type = Option<Vec<String>>, max_items = 1024)]
    keys: Option<BoundedList<String, NAMES_MAX>>,
    /// Entries that have the tag `type:id`.
    entity: Option<Entity>,
    /// All entries of the tenant of the API key.
    all: Option<bool>,
    /// Whether entries are misses at once (`hard`, the default) or served stale while one request refreshes each.
    mode: Option<InvalidationMode>,
    /// Only counts the entries.
    dry_run: Option<bool>,
}

/// Something that entries are made from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Entity {
    /// Such as `product`; without colons.
    #[serde(rename = "type")]
    kind: String,
    /// Its identity among those of its type.
    id: EntityId,
}

/// A string or a whole number.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string or a whole number")]
enum EntityId {
    Text(String),
    Number(i64),
}

/// The effect of an invalidation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvalidateAnswer {
    /// How entries are hidden.
    mode: InvalidationMode,
    /// Whether the entries were only counted.
    dry_run: bool,
    /// With `dry_run`, the number of entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    entries: Option<EntryCounts>,
    /// Without `dry_run`, whether other nodes have the invalidation: every one applies it before it serves entries as fresh again. A
    /// pending one waits, durably, until Redis is reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    propagation: Option<PropagationLabel>,
}

/// Entries in each tier; one that is in both is counted in both.
#[derive(Debug, Serialize, ToSchema)]
struct EntryCounts {
    /// In memory. Objects named by their keys are counted here, wherever they are.
    memory: u64,
    /// On disk. Embeddings there do not keep their namespace: they are counted for `all` only.
    disk: u64,
    /// The same by kind and namespace, the largest first; of all but the 100 largest, those of one kind together. Objects named by
    /// their keys are not among them.
    groups: Vec<CountedGroup>,
}

/// Entries of one kind in one namespace.
#[derive(Debug, Serialize, ToSchema)]
struct CountedGroup {
    /// What they are.
    kind: EntryKindLabel,
    /// Their namespace. Absent for those of several, and where no entry on disk stores its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    namespace: Option<String>,
    /// In memory.
    memory: u64,
    /// On disk.
    disk: u64,
}

/// Hides entries.
///
/// When this has been answered, nothing that was stored before is served, nor after any restart, and nothing that is
/// being loaded from before is admitted. The cost does not depend on how many entries there are.
#[utoipa::path(
    post,
    path = "/v1/invalidate",
    operation_id = "invalidate",
    tag = "invalidation",
    request_body = InvalidateRequest,
    responses(
        (status = 200, body = InvalidateAnswer, description = "The entries are hidden, or counted with `dry_run`"),
        (status = 202, body = InvalidateAnswer, description = "The entries are hidden on this node; other nodes follow once Redis is reachable"),
        (status = 400, body = ErrorBody, description = "A field is invalid; nothing was hidden"),
        (status = 404, body = ErrorBody, description = "The namespace is not declared, and the server accepts declared ones only"),
        (status = 503, body = ErrorBody, description = "The disk refuses writes: the entries are hidden until the next start only"),
    )
)]
pub(super) async fn invalidate(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    body: UnreadBody,
) -> Result<(StatusCode, Json<InvalidateAnswer>), Problem> {
    let wire: InvalidateRequest = body.json().await?;
    let (mode, dry_run) = (wire.mode.unwrap_or_default(), wire.dry_run.unwrap_or_default());
    let target = target(wire)?;
    if dry_run {
        let counts = endpoint.invalidation.count(&principal, &target).await?;
        let entries = Some(describe(&endpoint.listing, &principal, counts).await);
        let answer = InvalidateAnswer { mode, dry_run, entries, propagation: None };
        return Ok((StatusCode::OK, Json(answer)));
    }
    let propagation = endpoint.invalidation.invalidate(&principal, &target, mode.0).await?;
    let status = match propagation {
        Propagation::Complete => StatusCode::OK,
        Propagation::Pending => StatusCode::ACCEPTED,
    };
    let propagation = Some(LabelValue(propagation));
    Ok((status, Json(InvalidateAnswer { mode, dry_run, entries: None, propagation })))
}

async fn describe(listing: &Listing, principal: &Principal, counts: Counts) -> EntryCounts {
    let namespaces: Vec<NamespaceId> = counts.groups.iter().filter_map(|group| group.namespace).collect();
    let names = listing.names_of(principal, namespaces).await;
    let group = |GroupCount { namespace, kind, memory, disk }: GroupCount| CountedGroup {
        kind: LabelValue(kind),
        namespace: namespace.and_then(|id| names.get(&id)).map(|name| name.as_ref().to_owned()),
        memory,
        disk,
    };
    let groups = counts.groups.into_iter().map(group).collect();
    EntryCounts { memory: counts.memory, disk: counts.disk, groups }
}

fn target(wire: InvalidateRequest) -> Result<Target> {
    let one = "give exactly one of tags, namespace (with or without keys), entity, and all";
    let InvalidateRequest { tags, namespace, keys, entity, all, .. } = wire;
    match (tags, namespace, keys, entity, all) {
        (Some(BoundedList(tags)), None, None, None, None) => {
            let named = |name: &String| Tag::named(name).ok_or_else(|| Error::invalid("tags", Tag::RULE));
            tags.iter().map(named).collect::<Result<_>>().map(Target::Tags)
        }
        (None, Some(namespace), Some(BoundedList(keys)), None, None) => Ok(Target::Keys { namespace, keys }),
        (None, Some(namespace), None, None, None) => Ok(Target::Namespace(namespace)),
        (None, None, None, Some(entity), None) => {
            let id = match entity.id {
                EntityId::Text(text) => text,
                EntityId::Number(number) => number.to_string(),
            };
            let tag = Tag::entity(&entity.kind, &id);
            let rule = "an entity has a type without colons and an id, which make a tag `type:id`";
            tag.map(|tag| Target::Tags(vec![tag])).ok_or_else(|| Error::invalid("entity", rule))
        }
        (None, None, None, None, Some(true)) => Ok(Target::Everything),
        (None, None, None, None, Some(false)) => Err(Error::invalid("all", "all must be true or absent")),
        (None, None, Some(_), None, None) => {
            Err(Error::invalid("namespace", "keys must come with their namespace"))
        }
        (None, None, None, None, None) => Err(Error::invalid("tags", one)),
        (_, _, _, _, Some(_)) => Err(Error::invalid("all", one)),
        (_, _, _, Some(_), _) => Err(Error::invalid("entity", one)),
        (Some(_), _, _, _, _) => Err(Error::invalid("tags", one)),
    }
}
