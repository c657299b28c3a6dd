//! `/v1/cache/{namespace}/batch`: several objects in one request, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request as HttpRequest, State};
use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body;
use super::objects::{DEFAULT_CONTENT_TYPE, Endpoint};
use super::problem::{ErrorBody, Problem};
use super::wire::parse;
use crate::cache::Stamp;
use crate::domain::{Tag, Tenant};
use crate::error::{Error, Result};
use crate::service::objects::{Address, Batch, Condition, Draft, Object};

/// What is to be done; no key may be named twice.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    /// Keys to look up.
    #[serde(default)]
    get: Vec<String>,
    /// Objects to store.
    put: Option<Vec<PutObject>>,
    /// Keys to remove.
    #[serde(default)]
    delete: Vec<String>,
}

/// An object to store: `value` or `value_base64`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutObject {
    /// Its key.
    key: String,
    /// The bytes, where they are text.
    value: Option<String>,
    /// The bytes in base64.
    value_base64: Option<String>,
    /// Their media type.
    content_type: Option<String>,
    /// Lifetime in seconds.
    ttl: Option<u32>,
    /// What the object depends on.
    #[serde(default)]
    tags: Vec<String>,
}

/// What was done, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    /// The objects that were looked up.
    get: Vec<GotObject>,
    /// The objects that were stored.
    put: Vec<StoredObject>,
    /// How many of the removed were there.
    deleted: usize,
}

/// An object that was looked up.
#[derive(Debug, Serialize, ToSchema)]
struct GotObject {
    /// Its key.
    key: String,
    /// Whether it was there.
    hit: bool,
    /// What was there.
    #[serde(flatten)]
    object: Option<FoundObject>,
}

/// An object that was found.
#[derive(Debug, Serialize, ToSchema)]
struct FoundObject {
    /// The bytes, where they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The bytes in base64, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// Their media type.
    content_type: String,
    /// The entity tag, without quotes.
    etag: String,
    /// Seconds since it was stored.
    age: u32,
    /// Seconds until it expires.
    ttl: i64,
}

/// An object that was stored.
#[derive(Debug, Serialize, ToSchema)]
struct StoredObject {
    /// Its key.
    key: String,
    /// The entity tag, without quotes.
    etag: String,
}

/// Looks up, stores and removes several objects of one namespace.
///
/// Everything is checked before anything is changed.
#[utoipa::path(
    post,
    path = "/v1/cache/{namespace}/batch",
    tag = "objects",
    params(("namespace" = String, Path, description = "A namespace or an alias of one")),
    request_body = BatchRequest,
    responses(
        (status = 200, body = BatchAnswer),
        (status = 400, body = ErrorBody, description = "A field is wrong; nothing was changed"),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "The namespace is unknown, and namespaces are closed"),
        (status = 409, body = ErrorBody, description = "Something was invalidated meanwhile"),
        (status = 413, body = ErrorBody, description = "The body or a value is past a limit; nothing was changed"),
        (status = 503, body = ErrorBody, description = "The disk takes no more"),
    )
)]
pub(super) async fn batch(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(tenant): Extension<Tenant>,
    namespace: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Result<Json<BatchAnswer>, Problem> {
    let stamp = endpoint.objects.stamp();
    let Path(namespace) = namespace.map_err(|rejection| {
        Error::invalid("namespace", format!("a namespace is UTF-8, percent-encoded: {rejection}"))
    })?;
    let body = body::read(request.into_body(), endpoint.body_bytes_max).await?;
    let wire: BatchRequest = parse(&body)?;
    let address = |key: &String, field: &str| {
        let address = endpoint.objects.address(&tenant, &namespace, key);
        address.map_err(|error| if error.param_name() == Some("key") { error.param(field) } else { error })
    };
    let addresses = |keys: &[String], field: &str| {
        keys.iter().map(|key| address(key, field)).collect::<Result<Vec<Address>>>()
    };
    let puts = wire.put.unwrap_or_default();
    let stored: Vec<String> = puts.iter().map(|put| put.key.clone()).collect();
    let puts = puts.into_iter().map(|put| Ok((address(&put.key, "put")?, draft(put, stamp)?)));
    let batch = Batch {
        gets: addresses(&wire.get, "get")?,
        puts: puts.collect::<Result<_>>()?,
        deletes: addresses(&wire.delete, "delete")?,
    };
    let done = endpoint.objects.batch(batch).await?;
    Ok(Json(BatchAnswer {
        get: wire.get.into_iter().zip(done.gets).map(|(key, object)| got(key, object)).collect(),
        put: stored
            .into_iter()
            .zip(done.puts)
            .map(|(key, validator)| StoredObject { key, etag: format!("{validator:032x}") })
            .collect(),
        deleted: done.deleted,
    }))
}

fn draft(put: PutObject, stamp: Stamp) -> Result<Draft> {
    let key = put.key;
    let fault = |what: &str| Error::invalid("put", format!("the object {key:?} {what}"));
    let (value, content_type) = match (put.value, put.value_base64) {
        (Some(text), None) => (text.into_bytes(), "text/plain; charset=utf-8"),
        (None, Some(base64)) => {
            let bytes = STANDARD.decode_to_vec(base64);
            (bytes.map_err(|_| fault("has a value_base64 that is not base64"))?, DEFAULT_CONTENT_TYPE)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(fault("needs either a value or a value_base64"));
        }
    };
    let tag = |name: &String| Tag::named(name).ok_or_else(|| Error::invalid("put", Tag::RULE));
    Ok(Draft {
        stamp,
        value: value.into(),
        content_type: put.content_type.unwrap_or_else(|| content_type.to_owned()),
        tags: put.tags.iter().map(tag).collect::<Result<_>>()?,
        ttl_seconds: put.ttl,
        lease: None,
        condition: Condition::None,
    })
}

fn got(key: String, object: Option<Object>) -> GotObject {
    let hit = object.is_some();
    let object = object.map(|object| {
        let meta = &object.found.entry.meta;
        let (value, value_base64) = match std::str::from_utf8(&object.value) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode_to_string(&object.value))),
        };
        FoundObject {
            value,
            value_base64,
            content_type: meta.content_type.to_string(),
            etag: format!("{:032x}", meta.validator),
            age: object.age_seconds,
            ttl: object.fresh_seconds,
        }
    });
    GotObject { key, hit, object }
}
