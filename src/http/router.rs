//! The router: the routes of all features over what they need, behind admission.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::from_fn_with_state;
use tokio::sync::Semaphore;

use super::admission::cors::Cors;
use super::admission::{self, Admission, HttpService};
use super::api_key::ApiKey;
use super::forward::target::ForwardTarget;
use super::metrics::ServerMetrics;
use super::operations::{Operations, Readiness};
use super::routes::RouteTable;
use super::stats::{LoadLimits, Statistics};
use super::{
    Options, answers, collections, contract, embeddings, forward, home, invalidation, jobs, listing, models,
    nodes, objects, operations, rerank,
};
use crate::byte_budget::ByteBudget;
use crate::cache::{SharedTier, Tiers};
use crate::dialects::of_path;
use crate::domain::is_credential;
use crate::embed::ModelRegistry;
use crate::error::{Error, Kind, Result};
use crate::nodes::{LocalNode, Nodes};
use crate::service::answers::CachedRouteOptions;
use crate::service::embeddings::UpstreamEmbeddings;
use crate::service::{Answers, Collections, Embeddings, Invalidation, Jobs, Listing, Objects, Rerank};
use crate::upstream::{Origin, is_hop_by_hop};

/// What the routes are built over.
pub struct RouterParts {
    /// Embeds.
    pub embeddings: Arc<Embeddings>,
    /// The embedding models.
    pub models: Arc<ModelRegistry>,
    /// Keeps objects.
    pub objects: Arc<Objects>,
    /// Hides what is no longer true.
    pub invalidation: Arc<Invalidation>,
    /// Lists what is cached.
    pub listing: Arc<Listing>,
    /// Searches collections.
    pub collections: Arc<Collections>,
    /// Long work in the background.
    pub jobs: Arc<Jobs>,
    /// Answers, once.
    pub answers: Arc<Answers>,
    /// The upstreams, if there are any.
    pub origin: Option<Arc<dyn Origin>>,
    /// Headers of a request that are passed on and part of what is asked.
    pub forwarded_headers: Vec<String>,
    /// Whether `Cache-Group-Invalidation` of an upstream's reply hides entries.
    pub obeys_group_invalidation: bool,
    /// Models that only an upstream has. None where no upstream is configured.
    pub upstream_embeddings: Option<Arc<UpstreamEmbeddings>>,
    /// Models of upstreams that score documents. None where no upstream is configured.
    pub rerank: Option<Arc<Rerank>>,
    /// The tiers, for numbers.
    pub tiers: Arc<Tiers>,
    /// What nodes share, if they share a Redis.
    pub shared: Option<Arc<SharedTier>>,
    /// The nodes that share it.
    pub nodes: Arc<Nodes>,
    /// What the readiness probe reads.
    pub readiness: Arc<Readiness>,
    /// Bytes that requests in flight may hold.
    pub budget: Arc<ByteBudget>,
    /// Texts that may wait for a model.
    pub queue_texts_max: usize,
    /// Tokens of one forward pass.
    pub batch_tokens_max: usize,
    /// The metrics.
    pub metrics: ServerMetrics,
}

/// Headers that are written again for the upstream.
const NOT_PASSED_ON: [HeaderName; 3] = [header::ACCEPT_ENCODING, header::CONTENT_TYPE, header::HOST];

/// Every route behind admission. From now on the node announces itself to others.
///
/// # Errors
/// `Config` if the keys cannot be read, if `http.cors` lists what is no origin, or if others can reach the address and there are none.
pub fn router(options: &Options, parts: RouterParts) -> Result<HttpService> {
    let keys = checked_keys(options)?;
    let cors = Cors::new(&options.cors)?;
    let (budget, metrics) = (Arc::clone(&parts.budget), Arc::clone(&parts.metrics.http));
    let permits = Arc::new(Semaphore::new(options.requests_max));
    let endpoints = Endpoints::new(options, !keys.is_empty(), &permits, parts)?;
    let mut table = table(Some(&endpoints));
    if endpoints.forward.origin.is_some() {
        table.name_fallback(forward::ROUTE);
    }
    let admission = Admission::new(options, &keys, cors, table.matcher(), permits, budget, metrics);
    let (forward, other_method) = (Arc::clone(&endpoints.forward), endpoints.forward);
    let routes = table
        .into_router()
        .fallback(move |request| forward::forward(State(Arc::clone(&forward)), request))
        .method_not_allowed_fallback(move |request| {
            forward::other_method(State(Arc::clone(&other_method)), request)
        });
    Ok(HttpService::new(admission, routes))
}

/// Checks the keys of the options, and that there are some where others can reach the address. Returns their number.
///
/// # Errors
/// As [`router`].
pub fn check_keys(options: &Options) -> Result<usize> {
    checked_keys(options).map(|keys| keys.len())
}

fn checked_keys(options: &Options) -> Result<Vec<ApiKey>> {
    let keys = admission::read_keys(options)?;
    if keys.is_empty() && !is_loopback(&options.listen) {
        return Err(Error::new(
            Kind::Config,
            "http.listen is not a loopback address, so http.api_keys or http.api_keys_file must be set",
        )
        .with("listen", &options.listen)
        .advise(
            "give --listen 127.0.0.1:8420 for this machine only, or set keys first: \
             export LIKEWISE__HTTP__API_KEYS=$(openssl rand -hex 24)",
        ));
    }
    Ok(keys)
}

/// The contract, as `/openapi.json` serves it and the repository keeps it.
pub fn openapi() -> String {
    contract::json(&table(None))
}

/// All routes; without endpoints they are described, and not served.
fn table(endpoints: Option<&Endpoints>) -> RouteTable {
    let mut table = RouteTable::new(contract::frame());
    table.add(contract::routes(), endpoints.map(|all| &all.contract));
    table.add(home::routes(), endpoints.map(|all| &all.home));
    table.add(operations::routes(), endpoints.map(|all| &all.operations));
    table.add(nodes::routes(), endpoints.map(|all| &all.nodes));
    table.add(embeddings::routes(), endpoints.map(|all| &all.embeddings));
    for routes in rerank::all_routes() {
        table.add(routes, endpoints.map(|all| &all.rerank));
    }
    for routes in embeddings::apis::all_routes() {
        table.add(routes, endpoints.map(|all| &all.embeddings));
    }
    table.add(objects::routes(), endpoints.map(|all| &all.objects));
    table.add(listing::routes(), endpoints.map(|all| &all.listing));
    table.add(invalidation::routes(), endpoints.map(|all| &all.invalidation));
    table.add_within(collections::routes(), endpoints.map(|all| &all.collections), |router| {
        // A node that shares nothing has all collections that there are.
        match endpoints.filter(|all| all.elsewhere.nodes.are_shared()) {
            None => router,
            Some(all) => {
                router.route_layer(from_fn_with_state(Arc::clone(&all.elsewhere), collections::pass_on))
            }
        }
    });
    table.add(jobs::routes(), endpoints.map(|all| &all.jobs));
    table.add(models::routes(), endpoints.map(|all| &all.models));
    table.add(answers::routes(), endpoints.map(|all| &all.answers));
    // A dialect is served only with an upstream.
    let has_upstream = |all: &&Endpoints| all.forward.origin.is_some();
    let upstream = endpoints.filter(has_upstream);
    for (dialect, routes) in answers::dialect_routes() {
        let endpoint = upstream.map(|all| Arc::new(all.answers.for_dialect(dialect)));
        table.add(routes.in_dialect(dialect), endpoint.as_ref());
    }
    for endpoint in upstream.into_iter().map(|all| &all.answers) {
        let is_of_upstream = |options: &&CachedRouteOptions| of_path(&options.path).is_none();
        for options in endpoint.answers.cached_routes().iter().filter(is_of_upstream) {
            let (routes, state) = answers::cached_route(endpoint, options);
            table.add(routes, Some(&state));
        }
    }
    table
}

/// Checks that no route of the configuration is one of this server's own, or lies below one; but for those of dialects.
///
/// # Errors
/// `Config`, naming the key.
pub fn check_cached_paths(routes: &[CachedRouteOptions]) -> Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    let table = table(None);
    let (matcher, own_segments) = (table.matcher(), table.own_segments());
    let is_own = |path: &str| matcher.at(path).is_ok() || ForwardTarget::read(path, &own_segments).is_none();
    let is_refused = |path: &str| of_path(path).is_none() && is_own(path);
    match routes.iter().enumerate().find(|(_, route)| is_refused(&route.path)) {
        None => Ok(()),
        Some((place, route)) => Err(Error::new(
            Kind::Config,
            format!(
                "answers.routes[{place}].path must be a route of the upstream that this server does not serve itself, got `{}`",
                route.path
            ),
        )),
    }
}

/// The state of each feature's handlers.
struct Endpoints {
    contract: Arc<str>,
    home: Arc<home::HomeEndpoint>,
    operations: Arc<Operations>,
    nodes: Arc<Nodes>,
    embeddings: Arc<embeddings::Endpoint>,
    rerank: Arc<rerank::Endpoint>,
    objects: Arc<objects::Endpoint>,
    listing: Arc<listing::Endpoint>,
    invalidation: Arc<invalidation::Endpoint>,
    collections: Arc<collections::Endpoint>,
    elsewhere: Arc<collections::Elsewhere>,
    jobs: Arc<jobs::Endpoint>,
    models: Arc<models::Endpoint>,
    answers: Arc<answers::Endpoint>,
    forward: Arc<forward::Forward>,
}

impl Endpoints {
    fn new(
        options: &Options,
        has_keys: bool,
        permits: &Arc<Semaphore>,
        parts: RouterParts,
    ) -> Result<Endpoints> {
        let described = table(None);
        let limits = LoadLimits {
            permits: Arc::clone(permits),
            requests_max: options.requests_max,
            budget: Arc::clone(&parts.budget),
            origin: parts.origin.clone(),
            queue_texts_max: parts.queue_texts_max,
        };
        let body_bytes_max = options.body_bytes_max;
        let forward = Arc::new(forward::Forward {
            origin: parts.origin,
            own_segments: described.own_segments(),
            near_routes: described.near_routes(),
            invalidation: Arc::clone(&parts.invalidation),
            obeys_group_invalidation: parts.obeys_group_invalidation,
            body_bytes_max,
            metrics: Arc::clone(&parts.metrics.answers),
        });
        let forwarded_headers = forwarded_headers(&parts.forwarded_headers)?;
        let answers = answers::Endpoint {
            answers: Arc::clone(&parts.answers),
            forwarded_headers: forwarded_headers.clone(),
            body_bytes_max,
        };
        let statistics = Arc::new(Statistics {
            collections: Arc::clone(&parts.collections),
            answers: Arc::clone(&parts.answers),
            embeddings: Arc::clone(&parts.embeddings),
            listing: Arc::clone(&parts.listing),
            models: Arc::clone(&parts.models),
            tiers: parts.tiers,
            shared: parts.shared,
            metrics: parts.metrics,
            limits,
            started: Instant::now(),
        });
        parts.nodes.announce(Arc::clone(&statistics) as Arc<dyn LocalNode>);
        Ok(Endpoints {
            contract: contract::json(&described).into(),
            home: Arc::new(home::HomeEndpoint { statistics: Arc::clone(&statistics), has_keys }),
            nodes: Arc::clone(&parts.nodes),
            operations: Arc::new(Operations { readiness: parts.readiness, statistics }),
            rerank: Arc::new(rerank::Endpoint {
                rerank: parts.rerank,
                forwarded_headers: forwarded_headers.clone(),
                forward: Arc::clone(&forward),
                body_bytes_max,
            }),
            embeddings: Arc::new(embeddings::Endpoint {
                embeddings: parts.embeddings,
                models: Arc::clone(&parts.models),
                upstream: parts.upstream_embeddings,
                requests_max: options.requests_max,
                batch_tokens_max: parts.batch_tokens_max,
                forwarded_headers,
                forward: Arc::clone(&forward),
                body_bytes_max,
                budget: Arc::clone(&parts.budget),
            }),
            listing: Arc::new(listing::Endpoint {
                listing: Arc::clone(&parts.listing),
                objects: Arc::clone(&parts.objects),
                budget: Arc::clone(&parts.budget),
            }),
            objects: Arc::new(objects::Endpoint {
                objects: parts.objects,
                body_bytes_max,
                budget: Arc::clone(&parts.budget),
            }),
            invalidation: Arc::new(invalidation::Endpoint {
                invalidation: parts.invalidation,
                listing: parts.listing,
                body_bytes_max,
            }),
            elsewhere: Arc::new(collections::Elsewhere {
                collections: Arc::clone(&parts.collections),
                nodes: Arc::clone(&parts.nodes),
                body_bytes_max,
            }),
            jobs: Arc::new(jobs::Endpoint {
                jobs: parts.jobs,
                collections: Arc::clone(&parts.collections),
                nodes: Arc::clone(&parts.nodes),
            }),
            collections: Arc::new(collections::Endpoint {
                collections: parts.collections,
                body_bytes_max,
                budget: parts.budget,
            }),
            models: Arc::new(models::Endpoint { models: parts.models, forward: Arc::clone(&forward) }),
            answers: Arc::new(answers),
            forward,
        })
    }
}

/// The names of headers that are passed on.
fn forwarded_headers(names: &[String]) -> Result<Vec<HeaderName>> {
    let read = |name: &String| {
        let read = HeaderName::try_from(name).ok();
        let fault =
            |what: &str| Error::new(Kind::Config, format!("upstream.forwarded_headers: `{name}` is {what}"));
        if read.as_ref().is_some_and(|name| is_credential(name.as_str())) {
            return Err(fault(
                "a credential: it is passed on only where upstream.forward_client_key says so",
            ));
        }
        let read =
            read.filter(|name| !NOT_PASSED_ON.contains(name) && !is_hop_by_hop(name, &HeaderMap::new()));
        read.ok_or_else(|| fault("no header that can be passed on"))
    };
    names.iter().map(read).collect()
}

/// Whether only this machine can reach the address. A name that does not resolve here is taken as reachable.
fn is_loopback(listen: &str) -> bool {
    use std::net::ToSocketAddrs as _;
    listen.to_socket_addrs().is_ok_and(|mut addresses| addresses.all(|address| address.ip().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::Access;

    /// Patterns of which this holds.
    fn patterns(table: &RouteTable, holds: impl Fn(Access) -> bool) -> Vec<String> {
        let found = table.routes().iter().filter(|route| holds(route.access));
        let mut patterns: Vec<String> = found.map(|route| route.pattern.to_string()).collect();
        patterns.sort();
        patterns
    }

    #[test]
    fn only_these_routes_need_less_than_a_key_and_a_permit() {
        let table = table(None);
        assert_eq!(
            patterns(&table, |access| !access.needs_key()),
            ["/", "/health", "/healthz", "/openapi.json", "/readyz"]
        );
        assert_eq!(patterns(&table, |access| access == Access::Probe), ["/health", "/healthz", "/readyz"]);
        assert_eq!(patterns(&table, |access| access == Access::OptionalKey), ["/"]);
        assert_eq!(
            patterns(&table, |access| access == Access::Monitoring),
            ["/metrics", "/v1/nodes", "/v1/stats"]
        );
        assert_eq!(
            patterns(&table, |access| !access.counts_answers()),
            ["/health", "/healthz", "/metrics", "/readyz", "/v1/nodes", "/v1/stats"]
        );
    }

    #[test]
    fn no_slip_in_a_route_is_forwarded() {
        let table = table(None);
        let own = table.own_segments();
        let shared = [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/messages",
            "/v1/models",
            "/v1/models/{id}",
            "/v1/models/{owner}/{*rest}",
            "/v1/responses",
        ];
        for route in table.routes().iter().filter(|route| route.pattern.starts_with("/v1/")) {
            let path = route.pattern.replace(['{', '}', '*'], "");
            let slips = [format!("{path}/x"), path.replace('s', "%73")];
            let is_forwarded = slips.iter().any(|slip| ForwardTarget::read(slip, &own).is_some());
            assert_eq!(is_forwarded, shared.contains(&&*route.pattern), "{slips:?}");
        }
        for unknown in ["/v1/files", "/v1/responses/r/cancel"] {
            assert!(ForwardTarget::read(unknown, &own).is_some(), "{unknown}");
        }
    }
}
