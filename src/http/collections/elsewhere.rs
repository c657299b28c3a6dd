//! Requests for collections that live on other nodes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::domain::{Principal, TenantId};
use crate::error::Result;
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::Problem;
use crate::http::extract::body;
use crate::nodes::{
    CollectionOwner, CollectionPlace, FORWARDED_BY, NodeReply, NodeRequest, Nodes, on_other_node,
};
use crate::service::Collections;
use crate::upstream::is_hop_by_hop;

/// Which node has answered a request that was passed on.
const NODE: HeaderName = HeaderName::from_static("x-likewise-node");

/// What passing requests on needs. Shared by `Arc`.
pub(in crate::http) struct Elsewhere {
    pub(in crate::http) collections: Arc<Collections>,
    pub(in crate::http) nodes: Arc<Nodes>,
    pub(in crate::http) body_bytes_max: usize,
}

/// A collection that a request names.
struct NamedCollection {
    tenant: TenantId,
    name: String,
    /// Whether the request is for the collection itself, not for something in it.
    is_itself: bool,
}

/// Answers a request for a collection of this node, or of none, and passes others on.
pub(in crate::http) async fn pass_on(
    State(elsewhere): State<Arc<Elsewhere>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let Some(named) = named(&mut head).await else {
        return Ok(next.run(Request::from_parts(head, body)).await);
    };
    let creates = named.is_itself && head.method == Method::PUT;
    let place = match elsewhere.collections.has(&named.tenant, &named.name) {
        true => CollectionPlace::Here,
        false => elsewhere.nodes.place(&named.tenant, &named.name, creates).await,
    };
    match place {
        CollectionPlace::Here => {
            let changes = creates || (named.is_itself && head.method == Method::DELETE);
            let response = next.run(Request::from_parts(head, body)).await;
            if changes && !elsewhere.collections.has(&named.tenant, &named.name) {
                elsewhere.nodes.release(&named.tenant, &named.name).await;
            }
            Ok(response)
        }
        CollectionPlace::On(owner) => Ok(elsewhere.ask(&named, &owner, head, body).await?),
        CollectionPlace::Unknown => Err(CollectionPlace::unknown().into()),
    }
}

/// The collection that a request names; none if it is for all of them.
async fn named(head: &mut Parts) -> Option<NamedCollection> {
    let parameters = RawPathParams::from_request_parts(head, &()).await.ok()?;
    let (_, name) = parameters.iter().find(|(parameter, _)| *parameter == "name")?;
    let principal = head.extensions.get::<Arc<Principal>>()?;
    // `/v1/collections/{name}` has three slashes.
    let is_itself = head.uri.path().matches('/').count() == 3;
    Some(NamedCollection { tenant: principal.tenant.clone(), name: name.to_owned(), is_itself })
}

impl Elsewhere {
    /// Passes a request on to the node that has its collection.
    async fn ask(
        &self,
        named: &NamedCollection,
        owner: &CollectionOwner,
        head: Parts,
        body: Body,
    ) -> Result<Response> {
        if head.headers.contains_key(FORWARDED_BY) {
            return Err(on_other_node(owner));
        }
        let body = body::read(body, self.body_bytes_max).await?;
        if let Some(permit) = head.extensions.get::<Arc<ConcurrencyPermit>>() {
            permit.release();
        }
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let request = NodeRequest { method: head.method, path, headers: passed_on(&head.headers), body };
        let reply = self.nodes.ask(&named.tenant, &named.name, owner, request).await?;
        Ok(response(owner, reply))
    }
}

/// The client's headers. Those by which a browser names the page were checked here, and are about this node's address.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let is_of_this_hop = |name: &HeaderName| {
        let is_of_browser = *name == header::ORIGIN
            || *name == header::REFERER
            || name.as_str().starts_with("sec-fetch-")
            || name.as_str().starts_with("access-control-");
        *name == header::HOST || *name == header::EXPECT || is_of_browser || is_hop_by_hop(name, headers)
    };
    let passed_on = headers.iter().filter(|(name, _)| !is_of_this_hop(name));
    passed_on.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn response(owner: &CollectionOwner, reply: NodeReply) -> Response {
    let mut response = Body::from_stream(reply.body).into_response();
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in &reply.headers {
        if *name != header::DATE && !is_hop_by_hop(name, &reply.headers) {
            headers.append(name.clone(), value.clone());
        }
    }
    let id = HeaderValue::from_str(&format!("{:016x}", owner.id));
    headers.insert(NODE, id.expect("hexadecimal digits are a valid header: this is a bug"));
    response
}
