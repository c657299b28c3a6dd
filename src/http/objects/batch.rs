//! `/v1/cache/{namespace}/batch`: several objects in one request, as JSON.

use std::sync::Arc;

use axum::extract::{Extension, FromRequestParts, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::content::{DEFAULT_CONTENT_TYPE, unknown_coding};
use super::endpoint::Endpoint;
use crate::cache::Stamp;
use crate::domain::{ContentCoding, Principal, Tag};
use crate::error::{Error, Kind, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::UnreadBody;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::json::parse;
use crate::http::extract::path::path;
use crate::http::offload::offload;
use crate::http::reservation::ResponseReservation;
use crate::http::response::headers::describe_propagation;
use crate::service::Objects;
use crate::service::objects::{
    Address, BATCH_MAX, Condition, Object, ObjectBatch, ObjectDraft, TAGS_MAX, Validators, check_batch_len,
    check_value_bytes,
};

/// Fields of a batch in its request.
const FIELDS: FieldNames = FieldNames(&[
    ("gets", "get"),
    ("puts", "put"),
    ("deletes", "delete"),
    ("ttl_seconds", "ttl"),
    ("content_type", "content-type"),
]);

/// Keys to look up, objects to store and keys to remove. No key may occur twice.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    /// Keys to look up.
    #[schema(value_type = Option<Vec<String>>, max_items = 1024)]
    get: Option<BoundedList<String, BATCH_MAX>>,
    /// Objects to store.
    #[schema(value_type = Option<Vec<PutObject>>, max_items = 1024)]
    put: Option<BoundedList<PutObject, BATCH_MAX>>,
    /// Keys to remove.
    #[schema(value_type = Option<Vec<String>>, max_items = 1024)]
    delete: Option<BoundedList<String, BATCH_MAX>>,
}

/// An object to store: `value` or `value_base64`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutObject {
    /// Its key.
    #[schema(min_length = 1, max_length = 1024)]
    key: String,
    /// The bytes, if they are text.
    value: Option<String>,
    /// The bytes in base64.
    #[schema(content_encoding = "base64")]
    value_base64: Option<String>,
    /// Their media type.
    content_type: Option<String>,
    /// Their content coding: `gzip`, `deflate`, `br`, `zstd` or `compress`.
    content_encoding: Option<String>,
    /// Lifetime in seconds.
    #[schema(minimum = 1)]
    ttl: Option<u32>,
    /// The tags of the object.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    tags: Option<BoundedList<String, TAGS_MAX>>,
}

/// What was found, stored and removed, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    /// The objects that were looked up.
    get: Vec<GotObject>,
    /// The objects that were stored.
    put: Vec<StoredObject>,
    /// The number of removed objects.
    deleted: usize,
}

/// A key that was looked up. Only a hit has the members besides `key` and `hit`.
#[derive(Debug, Default, Serialize, ToSchema)]
struct GotObject {
    /// The key.
    key: String,
    /// Whether the object is cached.
    hit: bool,
    /// The bytes, if they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    value: Option<String>,
    /// The bytes in base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, content_encoding = "base64")]
    value_base64: Option<String>,
    /// Their media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_type: Option<String>,
    /// Their content coding, if they were stored with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_encoding: Option<&'static str>,
    /// The entity tag, without quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    etag: Option<String>,
    /// Seconds since the object was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    age: Option<u32>,
    /// Seconds until the object expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ttl: Option<i64>,
}

/// An object that was stored.
#[derive(Debug, Serialize, ToSchema)]
struct StoredObject {
    /// Its key.
    key: String,
    /// The entity tag, without quotes.
    etag: String,
}

/// The name of a namespace, in the path.
pub(super) struct NamespaceName(String);

impl<S: Sync> FromRequestParts<S> for NamespaceName {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<NamespaceName, Problem> {
        Ok(NamespaceName(path(head, "namespace").await?))
    }
}

/// Looks up, stores and removes several objects of one namespace.
///
/// Everything is checked before anything is changed.
#[utoipa::path(
    post,
    path = "/v1/cache/{namespace}/batch",
    operation_id = "batchObjects",
    tag = "objects",
    params(("namespace" = String, Path, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]{1,128}$", description = "A namespace or an alias of one")),
    request_body = BatchRequest,
    responses(
        (status = 200, body = BatchAnswer, headers(("x-likewise-propagation")), description = "What was found, stored and removed"),
        (status = 400, body = ErrorBody, description = "A field is invalid; nothing was changed"),
        (status = 404, body = ErrorBody, description = "The namespace is not declared, and the server accepts declared ones only"),
        (status = 409, body = ErrorBody, description = "A tag, a key or the namespace was invalidated while the request was read"),
        (status = 413, body = ErrorBody, description = "The body, a value, or the objects found exceed a limit; nothing was changed"),
        (status = 415, body = ErrorBody, description = "A `content_encoding` is unknown; nothing was changed"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: nothing was stored"),
    )
)]
pub(in crate::http) async fn batch(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    NamespaceName(namespace): NamespaceName,
    body: UnreadBody,
) -> Result<Response, Problem> {
    let stamp = endpoint.objects.stamp();
    let objects = Arc::clone(&endpoint.objects);
    let read = move |body: &[u8]| ParsedBatch::read(body, &objects, &principal, &namespace, stamp);
    let ParsedBatch { gets, puts, mut batch } = body.parse(read).await?;
    batch.answer_bytes_max = endpoint.body_bytes_max;
    let mut reservation = endpoint.budget.empty();
    let done = endpoint.objects.batch(batch, &mut reservation).await;
    let done = done.map_err(|error| FIELDS.apply(error))?;
    let bytes = done.gets.iter().flatten().map(|object| object.value.len()).sum();
    let propagation = done.propagation;
    let written = offload(bytes, move || {
        let get = gets.into_iter().zip(done.gets).map(|(key, object)| got(key, object)).collect();
        let stored = |(key, validator)| StoredObject { key, etag: format!("{validator:032x}") };
        let put = puts.into_iter().zip(done.puts).map(stored).collect();
        serde_json::to_vec(&BatchAnswer { get, put, deleted: done.deleted })
    });
    let json = written.await?.expect("an answer is made of texts and numbers: this is a bug");
    let mut answer = ([(header::CONTENT_TYPE, "application/json")], json).into_response();
    describe_propagation(propagation, answer.headers_mut());
    Ok(ResponseReservation::reserved(reservation).attach(answer))
}

/// Stores the objects of a batch under whose keys there are none. Returns how many it has stored.
///
/// # Errors
/// Those of the fields of `body`, and of the first object that cannot be stored; those behind it are not stored then.
pub(in crate::http) async fn put_absent(
    objects: &Arc<Objects>,
    principal: &Principal,
    namespace: &str,
    body: &[u8],
) -> Result<usize> {
    let parsed = ParsedBatch::read(body, objects, principal, namespace, objects.stamp());
    let mut stored = 0;
    for (address, draft) in parsed.map_err(|error| FIELDS.apply(error))?.batch.puts {
        let condition = Condition { matches: None, matches_none: Some(Validators::Any) };
        match objects.put(&address, ObjectDraft { condition, ..draft }).await {
            Ok(_) => stored += 1,
            Err(error) if error.kind() == Kind::PreconditionFailed => {}
            Err(error) => return Err(FIELDS.apply(error)),
        }
    }
    Ok(stored)
}

/// A batch with the keys as the request names them.
struct ParsedBatch {
    gets: Vec<String>,
    puts: Vec<String>,
    batch: ObjectBatch,
}

impl ParsedBatch {
    fn read(
        body: &[u8],
        objects: &Objects,
        principal: &Principal,
        namespace: &str,
        stamp: Stamp,
    ) -> Result<ParsedBatch> {
        let BatchRequest { get, put, delete } = parse(body)?;
        let (gets, deletes) = (get.unwrap_or_default().0, delete.unwrap_or_default().0);
        let BoundedList(drafts) = put.unwrap_or_default();
        check_batch_len(gets.len() + drafts.len() + deletes.len())?;
        let address = |key: &String, field: &'static str| {
            let address = objects.address(principal, namespace, key);
            address.map_err(|error| error.map_field(|path| path.renamed("key", field)))
        };
        let addresses = |keys: &[String], field: &'static str| {
            keys.iter().map(|key| address(key, field)).collect::<Result<Vec<Address>>>()
        };
        let puts: Vec<String> = drafts.iter().map(|put| put.key.clone()).collect();
        let drafts = drafts.into_iter().map(|put| {
            let address = address(&put.key, "put")?;
            let draft = draft(put, stamp, address.value_bytes_max())?;
            Ok((address, draft))
        });
        let drafts = drafts.collect::<Result<_>>()?;
        let (found, removed) = (addresses(&gets, "get")?, addresses(&deletes, "delete")?);
        let batch = ObjectBatch { gets: found, puts: drafts, deletes: removed, answer_bytes_max: 0 };
        Ok(ParsedBatch { gets, puts, batch })
    }
}

fn draft(put: PutObject, stamp: Stamp, value_bytes_max: usize) -> Result<ObjectDraft> {
    let key = put.key;
    let fault = |what: &str| Error::invalid("put", format!("the object {key:?} {what}"));
    let (value, content_type) = match (put.value, put.value_base64) {
        (Some(text), None) => (text.into_bytes(), "text/plain; charset=utf-8"),
        (None, Some(base64)) => {
            // Three bytes in four letters, of which the last two may be padding.
            check_value_bytes((base64.len() / 4 * 3).saturating_sub(2), value_bytes_max)?;
            let bytes = STANDARD.decode_to_vec(base64);
            (bytes.map_err(|_| fault("has a value_base64 that is not base64"))?, DEFAULT_CONTENT_TYPE)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(fault("needs either a value or a value_base64"));
        }
    };
    let tag = |name: &String| Tag::named(name).ok_or_else(|| Error::invalid("put", Tag::RULE));
    let coding = |name: &String| ContentCoding::named(name).ok_or_else(|| unknown_coding("put", name));
    Ok(ObjectDraft {
        stamp,
        key,
        value: value.into(),
        content_type: put.content_type.unwrap_or_else(|| content_type.to_owned()),
        content_coding: put.content_encoding.as_ref().map(coding).transpose()?.unwrap_or_default(),
        tags: put.tags.unwrap_or_default().0.iter().map(tag).collect::<Result<_>>()?,
        ttl_seconds: put.ttl,
        lease: None,
        condition: Condition::default(),
    })
}

fn got(key: String, object: Option<Object>) -> GotObject {
    let Some(object) = object else { return GotObject { key, ..GotObject::default() } };
    let meta = &object.found.entry.meta;
    let (value, value_base64) = match std::str::from_utf8(&object.value) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode_to_string(&object.value))),
    };
    let is_coded = meta.content_coding != ContentCoding::Identity;
    GotObject {
        key,
        hit: true,
        value,
        value_base64,
        content_type: Some(meta.content_type.to_string()),
        content_encoding: is_coded.then(|| meta.content_coding.as_str()),
        etag: Some(format!("{:032x}", meta.validator)),
        age: Some(object.age_seconds),
        ttl: Some(object.fresh_seconds),
    }
}
