//! `/v1/jobs`: long work in the background.

mod object;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use self::object::{JobObject, describe, describe_work, work_of};
use crate::domain::Principal;
use crate::error::{Error, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::{BodyLimit, UnreadBody};
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::json::{parse, shortened};
use crate::http::extract::model_name::check_model_name;
use crate::http::extract::path::path;
use crate::http::routes::Routes;
use crate::nodes::{CollectionPlace, Nodes, on_other_node};
use crate::service::collections::ReembedSpec;
use crate::service::jobs::{JobLimits, ResumeChanges};
use crate::service::{Collections, Jobs};

/// Bytes of the body of a request for a job.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Fields of the use case in the request.
const FIELDS: FieldNames = FieldNames(&[("name", "collection")]);
/// Hours for which a former generation may be kept.
const KEEP_OLD_HOURS_MAX: u32 = 24 * 366;

/// What the handlers need.
pub(super) struct Endpoint {
    pub(super) jobs: Arc<Jobs>,
    pub(super) collections: Arc<Collections>,
    pub(super) nodes: Arc<Nodes>,
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }
}

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new()
        .add(routes!(list, create))
        .add(routes!(describe_one))
        .add(routes!(pause))
        .add(routes!(resume))
        .add(routes!(cancel))
}

/// The id of a job, in the path.
pub(super) struct JobId(String);

impl<S: Sync> FromRequestParts<S> for JobId {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<JobId, Problem> {
        Ok(JobId(path(head, "id").await?))
    }
}

/// What a job is to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobInput {
    /// `reembed`: embed a collection by another model.
    #[schema(pattern = "^reembed$")]
    kind: String,
    /// The collection.
    collection: String,
    /// The model whose vectors it is to hold.
    model: Option<String>,
    /// Serve the former vectors again, with all documents as they are now. In the place of `model`.
    #[serde(default)]
    rollback: bool,
    /// Say what it would take, and do nothing else.
    #[serde(default)]
    dry_run: bool,
    /// For how long the former vectors are kept, in hours; a day by default. With 0 they are removed at once.
    #[schema(maximum = 8784)]
    keep_old_hours: Option<u32>,
    /// Serve the collection without the documents that the model refuses. By default the job pauses before it would.
    #[serde(default)]
    leave_refused: bool,
    /// Requests of a minute to the model, at most.
    #[schema(minimum = 1)]
    requests_per_minute: Option<u64>,
    /// Tokens of a minute to the model, at most.
    #[schema(minimum = 1)]
    tokens_per_minute: Option<u64>,
    /// Dollars that the job may cost by the price table; it pauses before it would cost more.
    #[schema(minimum = 0)]
    cost_usd_max: Option<f64>,
}

/// With what a job is resumed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ResumeInput {
    /// A new limit of cost, in dollars over all runs.
    #[schema(minimum = 0)]
    cost_usd_max: Option<f64>,
    /// Whether the collection is served without the documents that the model refuses.
    leave_refused: Option<bool>,
}

/// All jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    /// `list`.
    object: &'static str,
    /// The jobs, newest first, behind the index builds, snapshots and compactions of collections that run.
    data: Vec<JobObject>,
}

/// Begins a job.
///
/// It is recorded when this is answered, and goes on after a crash. A job for a collection that is on another node is refused with the
/// address of that node.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    operation_id = "createJob",
    tag = "jobs",
    request_body = JobInput,
    responses(
        (status = 202, body = JobObject, description = "The job waits or runs"),
        (status = 400, body = ErrorBody, description = "A field of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection or model"),
        (status = 409, body = ErrorBody, description = "The collection has no model, has this one already, or has vectors that clients brought; there is nothing to be rolled back to; or another job works on the collection"),
        (status = 421, body = ErrorBody, description = "The collection is on another node"),
        (status = 429, body = ErrorBody, description = "There are too many jobs, or the server is at a limit of requests in flight"),
        (status = 503, body = ErrorBody, description = "The store takes no writes, or it is not known which node has the collection"),
    )
)]
pub(super) async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    body: UnreadBody,
) -> Result<(StatusCode, Json<JobObject>), Problem> {
    let input: JobInput = parse(&body.read().await?)?;
    let (spec, limits) = read(input)?;
    endpoint.check_place(&principal, &spec.collection).await?;
    let started = endpoint.jobs.start(&principal, spec, limits).await;
    let started = started.map_err(|error| FIELDS.apply(error))?;
    Ok((StatusCode::ACCEPTED, Json(describe(started))))
}

/// Lists all jobs, and the index builds, snapshots and compactions of collections that run.
///
/// Those end by themselves: they cannot be paused or cancelled.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    operation_id = "listJobs",
    tag = "jobs",
    responses(
        (status = 200, body = JobList, description = "The jobs, newest first"),
    )
)]
pub(super) async fn list(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
) -> Json<JobList> {
    let collections = endpoint.collections.list(&principal).into_iter();
    let works = collections.flat_map(|(name, collection)| {
        let works = collection.map(|collection| collection.running_work()).unwrap_or_default();
        works.into_iter().map(move |work| describe_work(&name, work)).collect::<Vec<_>>()
    });
    let jobs = endpoint.jobs.list(&principal).into_iter().map(describe);
    Json(JobList { object: "list", data: works.chain(jobs).collect() })
}

/// Describes a job.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    operation_id = "getJob",
    tag = "jobs",
    params(("id" = String, Path, description = "The id of the job")),
    responses(
        (status = 200, body = JobObject, description = "The job"),
        (status = 404, body = ErrorBody, description = "There is no such job"),
    )
)]
pub(super) async fn describe_one(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    JobId(id): JobId,
) -> Result<Json<JobObject>, Problem> {
    let work = work_of(&id).and_then(|(kind, name)| {
        let collection = endpoint.collections.get(&principal, name).ok()?;
        let work = collection.running_work().into_iter().find(|work| work.kind == kind)?;
        Some(describe_work(name, work))
    });
    match work {
        Some(work) => Ok(Json(work)),
        None => Ok(Json(describe(endpoint.jobs.get(&principal, &id)?))),
    }
}

/// Stops a job until it is resumed.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/pause",
    operation_id = "pauseJob",
    tag = "jobs",
    params(("id" = String, Path, description = "The id of the job")),
    responses(
        (status = 200, body = JobObject, description = "The job is paused, or will be when its present step ends, as `state` says"),
        (status = 404, body = ErrorBody, description = "There is no such job"),
        (status = 409, body = ErrorBody, description = "The job does not run or wait"),
    )
)]
pub(super) async fn pause(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    JobId(id): JobId,
) -> Result<Json<JobObject>, Problem> {
    Ok(Json(describe(endpoint.jobs.pause(&principal, &id).await?)))
}

/// Goes on with a job that is paused or has failed.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/resume",
    operation_id = "resumeJob",
    tag = "jobs",
    params(("id" = String, Path, description = "The id of the job")),
    request_body = Option<ResumeInput>,
    responses(
        (status = 202, body = JobObject, description = "The job waits or runs"),
        (status = 400, body = ErrorBody, description = "A field of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such job"),
        (status = 409, body = ErrorBody, description = "The job is neither paused nor has it failed, or another job works on the collection"),
        (status = 503, body = ErrorBody, description = "The store takes no writes"),
    )
)]
pub(super) async fn resume(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    JobId(id): JobId,
    body: UnreadBody,
) -> Result<(StatusCode, Json<JobObject>), Problem> {
    let body = body.read().await?;
    let input: Option<ResumeInput> = if body.is_empty() { None } else { parse(&body)? };
    let input = input.unwrap_or_default();
    check_cost(input.cost_usd_max)?;
    let changes = ResumeChanges { cost_usd_max: input.cost_usd_max, leave_refused: input.leave_refused };
    let resumed = endpoint.jobs.resume(&principal, &id, changes).await?;
    Ok((StatusCode::ACCEPTED, Json(describe(resumed))))
}

/// Stops a job for good and removes what it has made.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/cancel",
    operation_id = "cancelJob",
    tag = "jobs",
    params(("id" = String, Path, description = "The id of the job")),
    responses(
        (status = 200, body = JobObject, description = "The job is cancelled, or will be when its present step ends, as `state` says"),
        (status = 404, body = ErrorBody, description = "There is no such job"),
        (status = 409, body = ErrorBody, description = "The job has ended"),
    )
)]
pub(super) async fn cancel(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    JobId(id): JobId,
) -> Result<Json<JobObject>, Problem> {
    Ok(Json(describe(endpoint.jobs.cancel(&principal, &id).await?)))
}

impl Endpoint {
    /// # Errors
    /// `OnOtherNode` if another node has the collection; `Unavailable` if that cannot be found out.
    async fn check_place(&self, principal: &Principal, collection: &str) -> Result<()> {
        if self.collections.has(&principal.tenant, collection) {
            return Ok(());
        }
        match self.nodes.place(&principal.tenant, collection, false).await {
            CollectionPlace::Here => Ok(()),
            CollectionPlace::On(owner) => Err(on_other_node(&owner)),
            CollectionPlace::Unknown => Err(CollectionPlace::unknown()),
        }
    }
}

/// What a request asks for.
///
/// # Errors
/// `InvalidInput` naming the field.
fn read(input: JobInput) -> Result<(ReembedSpec, JobLimits)> {
    if input.kind != "reembed" {
        let kind = shortened(&input.kind);
        return Err(Error::invalid("kind", format!("kind must be reembed, got {kind:?}")));
    }
    input.model.as_deref().map(check_model_name).transpose()?;
    for (field, limit) in
        [("requests_per_minute", input.requests_per_minute), ("tokens_per_minute", input.tokens_per_minute)]
    {
        if limit == Some(0) {
            return Err(Error::invalid(field, format!("{field} must be at least 1")));
        }
    }
    check_cost(input.cost_usd_max)?;
    let keep_old_hours = input.keep_old_hours.unwrap_or(24);
    if keep_old_hours > KEEP_OLD_HOURS_MAX {
        let message = format!("keep_old_hours must be at most {KEEP_OLD_HOURS_MAX}, got {keep_old_hours}");
        return Err(Error::invalid("keep_old_hours", message));
    }
    let spec = ReembedSpec {
        collection: input.collection,
        model: input.model,
        rollback: input.rollback,
        dry_run: input.dry_run,
        keep_old_hours,
        leave_refused: input.leave_refused,
    };
    let limits = JobLimits {
        requests_per_minute: input.requests_per_minute,
        tokens_per_minute: input.tokens_per_minute,
        cost_usd_max: input.cost_usd_max,
    };
    Ok((spec, limits))
}

fn check_cost(cost_usd_max: Option<f64>) -> Result<()> {
    match cost_usd_max {
        Some(max) if !(max >= 0.0 && max.is_finite()) => {
            Err(Error::invalid("cost_usd_max", format!("cost_usd_max must be at least 0, got {max}")))
        }
        _ => Ok(()),
    }
}
