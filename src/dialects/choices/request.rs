//! The members of requests that decide how they are cached, and that every dialect of choices has.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::usage_member::with_usage;
use crate::dialects::ParsedRequest;
use crate::dialects::ignored_members::remove_ignored;
use crate::error::{Error, Kind, Result};
use crate::raw_object;
use crate::request_identity::{IdentityRules, Json};

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
    /// Parses the body of a request. `rules` name further members that do not change the answer.
    ///
    /// # Errors
    /// `InvalidInput`, naming the field.
    pub(in crate::dialects) fn parse<'a>(body: &'a [u8], rules: &IdentityRules) -> Result<Members<'a>> {
        Members::parse_with(body, rules, model)
    }

    /// As [`Members::parse`]; `model_of` the request returns its model.
    ///
    /// # Errors
    /// `InvalidInput`, naming the field.
    pub(in crate::dialects) fn parse_with<'a>(
        body: &'a [u8],
        rules: &IdentityRules,
        model_of: impl for<'r> FnOnce(&'r Json<'_>) -> Result<&'r str>,
    ) -> Result<Members<'a>> {
        let mut scope = Json::parse(body)?;
        if !matches!(scope, Json::Object(_)) {
            return Err(Error::new(Kind::InvalidInput, "the body must be a JSON object"));
        }
        let model = model_of(&scope)?.into();
        let streams = flag(&scope, "stream", "stream")?;
        let (wants_usage, temperature) = (wants_usage(&scope)?, temperature(&scope)?);
        let (has_directives, is_exact) = (scope.get(DIRECTIVES).is_some(), scope.is_exact());
        drop_delivery(&mut scope);
        remove_ignored(&mut scope);
        rules.remove_ignored(&mut scope);
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

/// The model of a request.
///
/// # Errors
/// `InvalidInput` if it names none, or one that is too long.
pub(in crate::dialects) fn model<'a>(request: &'a Json<'_>) -> Result<&'a str> {
    let model = request.get("model").and_then(Json::as_text).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Error::invalid("model", "model must be the name of a model"))?;
    if model.len() > MODEL_BYTES_MAX {
        let message = format!("model must have at most {MODEL_BYTES_MAX} bytes, got {}", model.len());
        return Err(Error::invalid("model", message));
    }
    Ok(model)
}

/// Drops `n` where it asks for one choice, as a request without it does.
pub(in crate::dialects) fn drop_single_choice(request: &mut Json<'_>) {
    if request.get("n") == Some(&Json::Integer(1)) {
        request.take("n");
    }
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

/// A member that is true or false; false if it is absent. `param` names it in the error.
///
/// # Errors
/// `InvalidInput` for anything else.
pub(in crate::dialects) fn flag(object: &Json<'_>, name: &str, param: &'static str) -> Result<bool> {
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
