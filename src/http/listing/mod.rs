//! What is cached: `/v1/namespaces`, `/v1/cache/{namespace}` and `/v1/tags/{tag}`.

mod entries;
pub(super) mod namespaces;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request as HttpRequest, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::routes;

use self::entries::EntryList;
use crate::byte_budget::{ByteBudget, UNCOUNTED_BYTES};
use crate::domain::{Principal, Tag};
use crate::error::{Error, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::path::path;
use crate::http::extract::query::QueryFields;
use crate::http::offload::offload;
use crate::http::reservation::ResponseReservation;
use crate::http::routes::Routes;
use crate::service::listing::{Page, PageRequest};
use crate::service::{Listing, Objects};

/// Entries of a page that sets no limit.
const LIMIT: usize = 100;

/// What the handlers need.
pub(super) struct Endpoint {
    pub(super) listing: Arc<Listing>,
    pub(super) objects: Arc<Objects>,
    pub(super) budget: Arc<ByteBudget>,
}

/// Bytes that each byte of a page may need until it is sent: the page, and its JSON.
const PAGE_COST: usize = 2;

impl Endpoint {
    async fn respond(&self, page: Page) -> Result<Response, Problem> {
        let mut reservation = self.budget.empty();
        if page.bytes > UNCOUNTED_BYTES {
            reservation.try_cover(PAGE_COST * page.bytes)?;
        }
        let bytes = page.bytes;
        let write = move || serde_json::to_vec(&EntryList::page(page));
        let json = offload(bytes, write).await?.expect("a page is made of texts and numbers: this is a bug");
        let response = ([(header::CONTENT_TYPE, "application/json")], json).into_response();
        Ok(ResponseReservation::reserved(reservation).attach(response))
    }
}

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add(routes!(namespaces::list)).add(routes!(list_keys)).add(routes!(get_tag))
}

/// Lists the entries of a namespace.
///
/// The list is read from the disk, in the order of the disk, and has the objects and answers that a lookup would serve. A page reads
/// at most 10,000 records and has about 1 MiB: it may have fewer entries than `limit`, or none, and still a `next`. An entry that is cached throughout is
/// listed exactly once, whatever is stored and removed meanwhile.
#[utoipa::path(
    get,
    path = "/v1/cache/{namespace}",
    operation_id = "listKeys",
    tag = "objects",
    params(
        ("namespace" = String, Path, description = "The namespace, or an alias of it"),
        ("prefix" = Option<String>, Query, description = "List the objects whose key begins with this. Answers have no key"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Entries of the page at most; 100 by default"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
        ("key" = Option<String>, Query, min_length = 1, max_length = 1024, description = "List this object alone; without the other parameters"),
    ),
    responses(
        (status = 200, body = EntryList, description = "A page of entries"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "The namespace is not declared, and the server accepts declared ones only"),
        (status = 503, body = ErrorBody, description = "The store is off since an error of the disk"),
    )
)]
pub(super) async fn list_keys(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (mut head, _) = request.into_parts();
    let namespace: String = path(&mut head, "namespace").await?;
    let fields = QueryFields::read(&head, &["prefix", "limit", "after", "key"])?;
    let page = page_request(&fields)?;
    let prefix = fields.text("prefix").unwrap_or_default();
    let Some(key) = fields.text("key") else {
        let page = endpoint.listing.keys(&principal, &namespace, prefix, &page).await?;
        return endpoint.respond(page).await;
    };
    if let Some(other) = ["prefix", "limit", "after"].into_iter().find(|name| fields.text(name).is_some()) {
        return Err(Problem(Error::invalid(other, format!("{other} must not be given with key"))));
    }
    let address = endpoint.objects.address(&principal, &namespace, key)?;
    let listed = endpoint.listing.key(&principal, &address).await?;
    Ok(Json(EntryList::of(listed)).into_response())
}

/// Lists the entries that carry a tag.
///
/// They are what an invalidation of the tag would hide on disk. A page reads at most 10,000 records of all entries: it may have fewer
/// entries than `limit`, or none, and still a `next`. `/v1/invalidate` with `dry_run` counts them.
#[utoipa::path(
    get,
    path = "/v1/tags/{tag}",
    operation_id = "getTag",
    tag = "invalidation",
    params(
        ("tag" = String, Path, description = "The tag, percent-encoded", min_length = 1, max_length = 128),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Entries of the page at most; 100 by default"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, body = EntryList, description = "A page of entries"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 503, body = ErrorBody, description = "The store is off since an error of the disk"),
    )
)]
pub(super) async fn get_tag(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (mut head, _) = request.into_parts();
    let tag: String = path(&mut head, "tag").await?;
    let tag = Tag::named(&tag).ok_or_else(|| Error::invalid("tag", Tag::RULE))?;
    let page = page_request(&QueryFields::read(&head, &["limit", "after"])?)?;
    endpoint.respond(endpoint.listing.tagged(&principal, &tag, &page).await?).await
}

fn page_request(fields: &QueryFields) -> Result<PageRequest> {
    let after = fields.text("after").map(entries::position).transpose()?;
    Ok(PageRequest { limit: fields.number("limit")?.unwrap_or(LIMIT), after })
}
