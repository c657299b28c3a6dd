//! The members of requests that decide how they are cached, and that every dialect of choices has.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::usage_member::with_usage;
use crate::dialects::ParsedRequest;
use crate::dialects::ignored_members::remove_ignored;
use crate::error::{Error, Kind, Result};
use crate::raw_object;
use crate::request_identity::Json;

/// The member with the cache directives.
const DIRECTIVES: &str = "cache";
/// Members that do not change the answer.
const NO_IDENTITY: [&str; 2] = [DIRECTIVES, "stream"];
/// Options of streams that do not change the answer.
const NO_IDENTITY_OF_STREAMS: [&str; 2] = ["include_obfuscation", "include_usage"];

/// The longest name of a model. Each chunk of a stream repeats it.
const MODEL_BYTES_MAX: usize = 256;

/// The members that every dialect of choices has.
pub(in crate::dialects) struct Members<'a> {
    pub(in crate::dialects) model: Arc<str>,
    pub(in crate::dialects) streams: bool,
    pub(in crate::dialects) wants_usage: bool,
    pub(in crate::dialects) temperature: Option<f64>,
    pub(in crate::dialects) has_directives: bool,
    pub(in crate::dialects) is_exact: bool,
    /// The request without the members that do not change the answer.
    pub(in crate::dialects) scope: Json<'a>,
}

impl Members<'_> {
    /// Parses the body of a request.
    ///
    /// # Errors
    /// `InvalidInput`, naming the field.
    pub(in crate::dialects) fn parse(body: &[u8]) -> Result<Members<'_>> {
        let mut scope = Json::parse(body)?;
        if !matches!(scope, Json::Object(_)) {
            return Err(Error::new(Kind::InvalidInput, "the body must be a JSON object"));
        }
        let model = model(&scope)?.into();
        let streams = flag(&scope, "stream", "stream")?;
        let (wants_usage, temperature) = (wants_usage(&scope)?, temperature(&scope)?);
        let (has_directives, is_exact) = (scope.get(DIRECTIVES).is_some(), scope.is_exact());
        drop_delivery(&mut scope);
        remove_ignored(&mut scope);
        Ok(Members { model, streams, wants_usage, temperature, has_directives, is_exact, scope })
    }
}

/// The body that the upstream gets ([`super::super::Dialect::upstream_body`]).
///
/// # Errors
/// `InvalidInput` for a body that is no object.
pub(in crate::dialects) fn upstream_body(
    request: &ParsedRequest,
    body: &Bytes,
    requests_usage: bool,
) -> Result<Bytes> {
    let mut body = body.clone();
    if request.has_directives {
        body = raw_object::without(&body, DIRECTIVES)?;
    }
    if request.streams && requests_usage && !request.wants_usage {
        body = with_usage(&body)?;
    }
    Ok(body)
}

fn wants_usage(request: &Json<'_>) -> Result<bool> {
    match request.get("stream_options") {
        None | Some(Json::Null) => Ok(false),
        Some(options @ Json::Object(_)) => flag(options, "include_usage", "stream_options.include_usage"),
        Some(_) => Err(Error::invalid("stream_options", "stream_options must be an object")),
    }
}

fn model<'a>(request: &'a Json<'_>) -> Result<&'a str> {
    let model = request.get("model").and_then(Json::as_text).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Error::invalid("model", "model must be the name of a model"))?;
    if model.len() > MODEL_BYTES_MAX {
        let message = format!("model must have at most {MODEL_BYTES_MAX} bytes, got {}", model.len());
        return Err(Error::invalid("model", message));
    }
    Ok(model)
}

/// Drops the members that say how the answer is delivered. Unknown options of streams stay.
fn drop_delivery(request: &mut Json<'_>) {
    NO_IDENTITY.iter().for_each(|name| _ = request.take(name));
    let Some(options) = request.get_mut("stream_options") else { return };
    NO_IDENTITY_OF_STREAMS.iter().for_each(|name| _ = options.take(name));
    if matches!(options, Json::Null) || *options == Json::Object(Vec::new()) {
        request.take("stream_options");
    }
}

fn flag(object: &Json<'_>, name: &str, param: &'static str) -> Result<bool> {
    match object.get(name) {
        None | Some(Json::Null) => Ok(false),
        Some(Json::Bool(value)) => Ok(*value),
        Some(_) => Err(Error::invalid(param, format!("{param} must be true or false"))),
    }
}

fn temperature(request: &Json<'_>) -> Result<Option<f64>> {
    match request.get("temperature") {
        None | Some(Json::Null) => Ok(None),
        Some(value) => match value.as_number() {
            Some(number) => Ok(Some(number)),
            None => Err(Error::invalid("temperature", "temperature must be a number")),
        },
    }
}

/// The text of a string.
pub(in crate::dialects) fn text_of(json: Json<'_>) -> Option<Cow<'_, str>> {
    if let Json::Text(text) = json { Some(text) } else { None }
}
