//! The routes, each with just what it needs, and the contract that is generated from them.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use utoipa::OpenApi as _;
use utoipa::openapi::{Content, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::byte_budget::ByteBudget;
use crate::cache::Tiers;
use crate::dialects::ParseCache;
use crate::dialects::chat_completions::ChatCompletions;
use crate::domain::is_credential;
use crate::embed::Embedder;
use crate::error::{Error, Kind, Result};
use crate::http::admission::cors::Cors;
use crate::http::admission::{self, Gate, Gated};
use crate::http::answers::{chat, direct};
use crate::http::collections::{documents, search, snapshots};
use crate::http::models::Names;
use crate::http::objects::batch;
use crate::http::operations::{Operations, Readiness};
use crate::http::{Options, collections, embeddings, forward, invalidation, models, objects, operations};
use crate::metrics::Metrics;
use crate::service::{Answers, Collections, Embeddings, Invalidation, Objects};
use crate::upstream::{Origin, is_hop_by_hop};

/// What the routes are built over.
pub struct Parts {
    /// Embeds.
    pub embeddings: Arc<Embeddings>,
    /// The model, for probes and numbers.
    pub embedder: Arc<dyn Embedder>,
    /// Keeps objects.
    pub objects: Arc<Objects>,
    /// Hides what is no longer true.
    pub invalidation: Arc<Invalidation>,
    /// Searches collections.
    pub collections: Arc<Collections>,
    /// Answers, once.
    pub answers: Arc<Answers>,
    /// The upstreams, if there are any.
    pub origin: Option<Arc<dyn Origin>>,
    /// Headers of a request that are passed on and part of what is asked.
    pub forwarded_headers: Vec<String>,
    /// The tiers, for numbers.
    pub tiers: Arc<Tiers>,
    /// The model's names.
    pub names: Arc<Names>,
    /// What the readiness probe reads.
    pub readiness: Arc<Readiness>,
    /// Bytes that requests in flight may hold.
    pub budget: Arc<ByteBudget>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
}

/// Where the contract itself is served.
const CONTRACT_ROUTE: &str = "/openapi.json";

/// Headers that are written again for the upstream.
const NOT_PASSED_ON: [HeaderName; 3] = [header::ACCEPT_ENCODING, header::CONTENT_TYPE, header::HOST];

/// Where a model is described whose name has slashes.
const MODELS_WITH_SLASHES: &str = "/v1/models/{owner}/{*rest}";

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Likewise",
    description = "One server between an application and its models that never pays twice for the same work."
))]
struct Contract;

/// Every route behind the gate.
///
/// # Errors
/// `Config` if the keys cannot be read, if `http.cors` lists what is no origin, or if others can reach the address and there are none.
pub fn router(options: &Options, parts: Parts) -> Result<Gated> {
    let keys = admission::read_keys(options)?;
    if keys.is_empty() && !is_loopback(&options.listen) {
        return Err(Error::new(
            Kind::Config,
            "http.listen is not a loopback address, so http.api_keys or http.api_keys_file must be set",
        )
        .with("listen", &options.listen));
    }
    let contract = contract();
    let own = contract.paths.paths.keys().map(String::as_str).chain([CONTRACT_ROUTE, MODELS_WITH_SLASHES]);
    let patterns = own.chain(parts.origin.as_ref().map(|_| forward::ROUTE));
    let cors = Cors::new(&options.cors)?;
    let (budget, metrics) = (Arc::clone(&parts.budget), Arc::clone(&parts.metrics));
    let gate = Gate::new(options, &keys, cors, patterns, budget, metrics);
    let forward =
        Arc::new(forward::Forward { origin: parts.origin.clone(), body_bytes_max: options.body_bytes_max });
    let other_method = Arc::clone(&forward);
    let routes = routes(parts, Arc::clone(&forward))?
        .route(CONTRACT_ROUTE, get(serve_contract).with_state(Arc::from(json(&contract))))
        .fallback(move |request| forward::forward(State(Arc::clone(&forward)), request))
        .method_not_allowed_fallback(move |request| {
            forward::other_method(State(Arc::clone(&other_method)), request)
        });
    Ok(Gated::new(gate, routes))
}

/// The contract, as `/openapi.json` serves it and the repository keeps it.
pub fn openapi() -> String {
    json(&contract())
}

fn contract() -> utoipa::openapi::OpenApi {
    let mut contract = Contract::openapi();
    contract.merge(embedding_routes().into_openapi());
    contract.merge(object_routes().into_openapi());
    contract.merge(invalidation_routes().into_openapi());
    contract.merge(collection_routes().into_openapi());
    contract.merge(chat_routes().into_openapi());
    contract.merge(answer_routes().into_openapi());
    contract.merge(model_routes().into_openapi());
    contract.merge(operation_routes().into_openapi());
    add_answers_of_the_gate(&mut contract);
    contract
}

/// What every route but the open ones may answer before it is asked.
fn add_answers_of_the_gate(contract: &mut utoipa::openapi::OpenApi) {
    let answers = [
        (
            "403",
            "Without keys: a page of another site asks, or the server is called by a name that is not this machine's",
        ),
        ("408", "The body stops coming"),
    ];
    for (route, item) in &mut contract.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let takes_body = operation.request_body.is_some();
            for (status, description) in answers {
                if !admission::OPEN_ROUTES.contains(&route.as_str()) && (status == "403" || takes_body) {
                    let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
                    let answer =
                        ResponseBuilder::new().description(description).content("application/json", body);
                    operation.responses.responses.insert(status.to_owned(), answer.build().into());
                }
            }
        }
    }
}

fn json(contract: &utoipa::openapi::OpenApi) -> String {
    let mut json = contract.to_pretty_json().expect("the contract is made of plain values: this is a bug");
    json.push('\n');
    json
}

fn routes(parts: Parts, forward: Arc<forward::Forward>) -> Result<Router> {
    let body_bytes_max = forward.body_bytes_max;
    let has_upstream = parts.origin.is_some();
    let answers = Arc::new(chat::Endpoint {
        parse_cache: ParseCache::new(&ChatCompletions, parts.answers.normalization()),
        answers: parts.answers,
        forwarded_headers: forwarded_headers(&parts.forwarded_headers)?,
        body_bytes_max,
    });
    let embeddings = Arc::new(embeddings::Endpoint {
        embeddings: parts.embeddings,
        names: Arc::clone(&parts.names),
        forward: Arc::clone(&forward),
        body_bytes_max,
        budget: Arc::clone(&parts.budget),
    });
    let budget = Arc::clone(&parts.budget);
    let objects = Arc::new(objects::Endpoint { objects: parts.objects, body_bytes_max, budget });
    let invalidation = Arc::new(invalidation::Endpoint { invalidation: parts.invalidation, body_bytes_max });
    let collections = Arc::new(collections::Endpoint {
        collections: Arc::clone(&parts.collections),
        names: Arc::clone(&parts.names),
        body_bytes_max,
        budget: parts.budget,
    });
    let models = Arc::new(models::Endpoint { names: parts.names, forward });
    let operations = Arc::new(Operations {
        collections: parts.collections,
        answers: Arc::clone(&answers.answers),
        readiness: parts.readiness,
        embedder: parts.embedder,
        tiers: parts.tiers,
        metrics: parts.metrics,
        started: Instant::now(),
    });
    let mut routes = Router::new()
        .merge(Router::from(embedding_routes().with_state(embeddings)))
        .merge(Router::from(object_routes().with_state(Arc::clone(&objects))))
        .merge(key_routes().with_state(objects))
        .merge(Router::from(invalidation_routes().with_state(invalidation)))
        .route(
            "/v1/collections/{name}/documents/delete",
            get(documents::get_document).with_state(Arc::clone(&collections)),
        )
        .merge(Router::from(collection_routes().with_state(collections)))
        .merge(Router::from(model_routes().with_state(Arc::clone(&models))))
        .route(MODELS_WITH_SLASHES, get(models::describe_below).with_state(models))
        .merge(Router::from(operation_routes().with_state(operations)))
        .merge(Router::from(answer_routes().with_state(Arc::clone(&answers))));
    if has_upstream {
        routes = routes.merge(Router::from(chat_routes().with_state(answers)));
    }
    Ok(routes)
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

fn embedding_routes() -> OpenApiRouter<Arc<embeddings::Endpoint>> {
    OpenApiRouter::new().routes(routes!(embeddings::create))
}

fn object_routes() -> OpenApiRouter<Arc<objects::Endpoint>> {
    OpenApiRouter::new()
        .routes(routes!(objects::get, objects::put, objects::delete))
        .routes(routes!(batch::batch))
}

/// Paths of objects that the contract describes as another's, and those that name no object.
fn key_routes() -> Router<Arc<objects::Endpoint>> {
    let batch_as_key = get(objects::get).put(objects::put).delete(objects::delete);
    Router::new()
        .route("/v1/cache/{namespace}/batch", batch_as_key)
        .route("/v1/cache/{namespace}/", any(objects::no_key))
        .route("/v1/cache/{namespace}/{key}/", any(objects::no_key))
        .route("/v1/cache/{namespace}/{key}/{*rest}", any(objects::no_key))
}

fn invalidation_routes() -> OpenApiRouter<Arc<invalidation::Endpoint>> {
    OpenApiRouter::new().routes(routes!(invalidation::invalidate))
}

fn collection_routes() -> OpenApiRouter<Arc<collections::Endpoint>> {
    OpenApiRouter::new()
        .routes(routes!(collections::list))
        .routes(routes!(collections::create, collections::describe_one, collections::drop_collection))
        .routes(routes!(documents::upsert, documents::export))
        .routes(routes!(documents::delete))
        .routes(routes!(documents::get_document))
        .routes(routes!(search::search))
        .routes(routes!(snapshots::take, snapshots::list))
        .routes(routes!(snapshots::index_file))
        .routes(routes!(snapshots::ids))
}

fn chat_routes() -> OpenApiRouter<Arc<chat::Endpoint>> {
    OpenApiRouter::new().routes(routes!(chat::create))
}

fn answer_routes() -> OpenApiRouter<Arc<chat::Endpoint>> {
    OpenApiRouter::new()
        .routes(routes!(direct::give))
        .routes(routes!(direct::lookup))
        .routes(routes!(direct::delete))
}

fn model_routes() -> OpenApiRouter<Arc<models::Endpoint>> {
    OpenApiRouter::new().routes(routes!(models::list)).routes(routes!(models::describe))
}

fn operation_routes() -> OpenApiRouter<Arc<Operations>> {
    OpenApiRouter::new()
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
        .routes(routes!(operations::stats))
}

async fn serve_contract(State(contract): State<Arc<str>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], contract.to_string())
}

/// Whether only this machine can reach the address. A name that does not resolve here is taken as reachable.
fn is_loopback(listen: &str) -> bool {
    use std::net::ToSocketAddrs as _;
    listen.to_socket_addrs().is_ok_and(|mut addresses| addresses.all(|address| address.ip().is_loopback()))
}
