//! `/v1/answers`: the cache of answers for applications that ask their model themselves.

use std::sync::Arc;

use axum::Json as AxumJson;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Endpoint;
use super::answer_id::{AnswerId, format_id};
use super::contract::CacheHeaders;
use crate::domain::{Credential, Principal};
use crate::error::{Error, Kind, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::credential::credential;
use crate::http::extract::directives::AnswerCacheObject;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::json::lifetime_seconds;
use crate::http::label_value::{LabelValue, MatchLayer};
use crate::http::response::headers::describe_propagation;
use crate::request_identity::Json;
use crate::service::Directives;
use crate::service::answers::{LookupResult, Question, SemanticOutcome, SemanticReport};
use crate::service::objects::TAGS_MAX;

/// Bytes that a question may have, and its scope.
const FIELD_BYTES_MAX: usize = 1 << 20;

/// Fields of a question in its request.
pub(super) const FIELDS: FieldNames = FieldNames(&[("ttl_seconds", "ttl")]);

/// An answer to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GiveRequest {
    /// The question.
    #[schema(min_length = 1)]
    prompt: String,
    /// The answer.
    answer: String,
    /// Any JSON. Two questions share an answer only if their scopes are equal, the order of members included.
    #[schema(value_type = Option<serde_json::Value>)]
    scope: Option<Box<RawValue>>,
    /// The tags of the answer.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    tags: Option<BoundedList<String, TAGS_MAX>>,
    /// Lifetime in seconds.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "lifetime_seconds")]
    ttl: Option<u32>,
    /// Answers of different namespaces are different answers.
    namespace: Option<String>,
    /// Whether questions in other words find the answer. If absent, its namespace decides.
    semantic: Option<bool>,
}

/// The id of a stored answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct GiveAnswer {
    /// For `DELETE /v1/answers/{id}`.
    id: String,
}

/// A question to be looked up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LookupRequest {
    /// The question.
    #[schema(min_length = 1)]
    pub(super) prompt: String,
    /// The scope with which the answer was stored.
    #[schema(value_type = Option<serde_json::Value>)]
    pub(super) scope: Option<Box<RawValue>>,
    /// Tags that the answer must have.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    pub(super) tags: Option<BoundedList<String, TAGS_MAX>>,
    /// The namespace of the answer.
    pub(super) namespace: Option<String>,
    /// Whether the answer to a question in other words is found. If absent, the namespace decides.
    pub(super) semantic: Option<bool>,
}

/// The result of a lookup.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct LookupAnswer {
    /// Whether an answer is stored.
    hit: bool,
    /// How the question matches the stored one.
    #[schema(required)]
    layer: Option<MatchLayer>,
    /// The id of the answer.
    #[schema(required)]
    id: Option<String>,
    /// The answer.
    #[schema(required)]
    answer: Option<String>,
    /// The cosine similarity of the questions, 1 for equal ones; of a miss in other words that of the nearest stored question.
    #[schema(required)]
    similarity: Option<f64>,
    /// How likely the answer is the right one: 1 for equal questions, not known for one in other words.
    #[schema(required)]
    probability: Option<f64>,
    /// Why no answer is returned.
    #[schema(required)]
    reason: Option<String>,
    /// Seconds since the answer was stored.
    #[schema(required)]
    age: Option<u32>,
    /// Seconds until the answer expires; negative after that.
    #[schema(required)]
    ttl: Option<i64>,
    /// Whether the answer is stale.
    stale: bool,
    /// Whether this caller is to compute the answer, and to store it: it is missing or stale, or by chance it is to be refreshed early
    /// (`answers.early_refresh_beta`). Of several callers of a node one gets `true`, until it has stored the answer, for a minute at most.
    compute: bool,
}

/// Looks up the answer to a question.
#[utoipa::path(
    post,
    path = "/v1/answers/lookup",
    operation_id = "lookupAnswer",
    tag = "answers",
    params(CacheHeaders),
    request_body = LookupRequest,
    responses(
        (status = 200, body = LookupAnswer, description = "Whether an answer is stored, and which one"),
        (status = 400, body = ErrorBody, description = "A field or header of the request is invalid; `param` names it"),
    )
)]
pub(in crate::http) async fn lookup(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Received { head, body }: Received,
) -> Result<AxumJson<LookupAnswer>, Problem> {
    let wire: LookupRequest = body.json().await?;
    check_sizes(&wire.prompt, wire.scope.as_deref())?;
    let object = AnswerCacheObject::of(wire.tags.unwrap_or_default().0, None, wire.namespace, wire.semantic);
    let options = QuestionOptions::new(&head.headers, object)?;
    let scope = scope(wire.scope.as_deref())?;
    let known = endpoint.answers.lookup(&options.question(&principal, &wire.prompt, &scope)).await;
    let known = known.map_err(|error| FIELDS.apply(error))?;
    let LookupResult { hit, semantic, computes } = known;
    let Some(known) = hit else {
        return Ok(AxumJson(LookupAnswer {
            hit: false,
            layer: None,
            id: None,
            answer: None,
            similarity: semantic.and_then(|report| report.similarity).map(rounded),
            probability: None,
            reason: Some(reason_of(semantic)),
            age: None,
            ttl: None,
            stale: false,
            compute: computes,
        }));
    };
    Ok(AxumJson(LookupAnswer {
        hit: true,
        layer: Some(LabelValue(known.match_kind)),
        id: Some(format_id(known.id)),
        answer: Some(known.answer),
        similarity: known.similarity.map(rounded),
        probability: semantic.is_none().then_some(1.0),
        reason: None,
        age: Some(known.age_seconds),
        ttl: Some(known.fresh_seconds),
        stale: known.is_stale,
        compute: computes,
    }))
}

/// Stores an answer.
#[utoipa::path(
    post,
    path = "/v1/answers",
    operation_id = "storeAnswer",
    tag = "answers",
    params(CacheHeaders),
    request_body = GiveRequest,
    responses(
        (status = 201, body = GiveAnswer, description = "The answer is stored, on disk too"),
        (status = 400, body = ErrorBody, description = "A field or header of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "The namespace is not declared, and the server accepts declared ones only"),
        (status = 409, body = ErrorBody, description = "One of its tags, or its namespace, was invalidated while the request was read"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: the answer is not stored on disk"),
    )
)]
pub(in crate::http) async fn store(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Received { head, body }: Received,
) -> Result<(StatusCode, AxumJson<GiveAnswer>), Problem> {
    // Before the first byte: what is invalidated while the body arrives was made before.
    let stamp = endpoint.answers.stamp();
    let wire: GiveRequest = body.json().await?;
    check_sizes(&wire.prompt, wire.scope.as_deref())?;
    let object =
        AnswerCacheObject::of(wire.tags.unwrap_or_default().0, wire.ttl, wire.namespace, wire.semantic);
    let options = QuestionOptions::new(&head.headers, object)?;
    if options.directives.no_store {
        return Err(Error::invalid("cache-control", "cache-control must not contain no-store").into());
    }
    let scope = scope(wire.scope.as_deref())?;
    let question = options.question(&principal, &wire.prompt, &scope);
    let id = endpoint.answers.store(&question, &wire.answer, stamp).await;
    let id = id.map_err(|error| FIELDS.apply(error))?;
    Ok((StatusCode::CREATED, AxumJson(GiveAnswer { id: format_id(id) })))
}

/// Removes an answer. A generation in flight under this id is not stored.
#[utoipa::path(
    delete,
    path = "/v1/answers/{id}",
    operation_id = "deleteAnswer",
    tag = "answers",
    params(("id" = String, Path, description = "The id of the answer, as `x-likewise-answer-id` or a lookup returns it", pattern = "^ans_[0-9A-Fa-f]{64}$")),
    responses(
        (status = 204, headers(("x-likewise-propagation")), description = "No such answer is stored any more"),
        (status = 400, body = ErrorBody, description = "The id is not that of an answer"),
        (status = 503, body = ErrorBody, description = "The disk refuses writes: the answer is hidden until the next start only. Or this node does not have it, and Redis, which says whose it is, is not reachable: it is not removed"),
    )
)]
pub(in crate::http) async fn delete(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    AnswerId(id): AnswerId,
) -> Result<Response, Problem> {
    let propagation = endpoint.answers.delete(&principal, id).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    describe_propagation(propagation, response.headers_mut());
    Ok(response)
}

/// A similarity with the digits that mean something.
pub(super) fn rounded(similarity: f32) -> f64 {
    (f64::from(similarity) * 1000.0).round() / 1000.0
}

/// Why no answer is returned.
fn reason_of(semantic: Option<SemanticReport>) -> String {
    let because = semantic.and_then(|report| report.because).unwrap_or_default();
    match semantic.map(|report| report.outcome) {
        None => "no answer to this question is kept".to_owned(),
        Some(SemanticOutcome::None | SemanticOutcome::Hit) => {
            "no answer to this question is kept, nor to one that is near enough".to_owned()
        }
        Some(SemanticOutcome::Refused) if matches!(because, "verifier_busy" | "verifier_cannot_read") => {
            format!("no answer to this question is kept, and one that is near was not verified ({because})")
        }
        Some(SemanticOutcome::Refused) => {
            format!(
                "no answer to this question is kept, and one that is near asks something else ({because})"
            )
        }
        Some(SemanticOutcome::ExactOnly) => {
            format!("no answer to this question is kept; it is not answered in other words ({because})")
        }
        Some(SemanticOutcome::Unavailable) => {
            format!("no answer to this question is kept; other words could not be searched for ({because})")
        }
    }
}

/// What a request says beside its question.
pub(super) struct QuestionOptions {
    directives: Directives,
    tags: Vec<crate::domain::Tag>,
    credential: Option<Credential>,
}

impl QuestionOptions {
    pub(super) fn new(headers: &HeaderMap, object: AnswerCacheObject) -> Result<QuestionOptions> {
        let (directives, tags) = object.with_headers(headers, "tags")?;
        Ok(QuestionOptions { directives, tags, credential: credential(headers) })
    }

    pub(super) fn question<'a>(
        &'a self,
        principal: &'a Arc<Principal>,
        prompt: &'a str,
        scope: &'a Json<'a>,
    ) -> Question<'a> {
        Question {
            principal,
            credential: self.credential.as_ref(),
            prompt,
            scope,
            directives: &self.directives,
            tags: &self.tags,
        }
    }
}

/// Refuses what would take long to normalize: that is done on the runtime.
pub(super) fn check_sizes(prompt: &str, scope: Option<&RawValue>) -> Result<()> {
    for (field, bytes) in [("prompt", prompt.len()), ("scope", scope.map_or(0, |scope| scope.get().len()))] {
        if bytes > FIELD_BYTES_MAX {
            let message = format!("{field} must have at most {FIELD_BYTES_MAX} bytes, got {bytes}");
            return Err(Error::invalid(field, message));
        }
    }
    Ok(())
}

pub(super) fn scope(raw: Option<&RawValue>) -> Result<Json<'_>> {
    let Some(raw) = raw else { return Ok(Json::Null) };
    Json::parse(raw.get().as_bytes())
        .map_err(|error| Error::new(Kind::InvalidInput, error.message()).param("scope"))
}
