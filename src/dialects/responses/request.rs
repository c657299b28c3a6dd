//! Parses a request for a response and splits it into scope and question.
//!
//! The input is a text, or a list of items whose last user message has the question. A text and a list of one user message with that text
//! are one input, and so are a text and a list of one part with it, in any message.

use std::borrow::Cow;

use super::hosted::{hosted_features, is_given, offers_own_tools};
use crate::dialects::choices::request::{Members, model, text_of};
use crate::dialects::conversation::unwrap_single_text;
use crate::dialects::null_members::drop_null;
use crate::dialects::{Dialect, HostedFeatures, ParsedRequest};
use crate::domain::KeyHasher;
use crate::error::{Error, Result};
use crate::request_identity::{
    IdentityParts, IdentityRules, Json, Normalization, NormalizedQuestion, QuestionPart,
};

/// Members with which a request continues what only the upstream knows.
const HIDDEN_CONTEXT: [&str; 3] = ["conversation", "previous_response_id", "prompt"];

/// Members of items and of their parts that are read by their names, in whatever order they stand. An object with any other may be shown to
/// the model as it is.
const OF_ITEMS: [&str; 12] = [
    "arguments",
    "call_id",
    "content",
    "encrypted_content",
    "id",
    "input",
    "name",
    "output",
    "role",
    "status",
    "summary",
    "type",
];
const OF_PARTS: [&str; 9] =
    ["detail", "file_data", "file_id", "file_url", "filename", "image_url", "refusal", "text", "type"];

/// Members that are as `null` what they are if absent. Sources: the references of `POST /v1/responses` by OpenAI and by Open Responses. Left out
/// are those of which a server is known to take `null` for another thing than its default: `background`, `parallel_tool_calls`, `store`, `truncation`.
const NULLABLE: [&str; 19] = [
    "conversation",
    "frequency_penalty",
    "include",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "reasoning",
    "safety_identifier",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
];

/// The last words of the user.
struct InputQuestion<'a> {
    text: Cow<'a, str>,
    /// Which item, and which of its parts. `None` if the input is these words.
    place: Option<(usize, Option<usize>)>,
    /// Whether the message has no other words.
    is_alone: bool,
}

/// A request in canonical form, split into scope and question.
struct CanonicalInput<'a> {
    /// With the request without its question as the scope.
    members: Members<'a>,
    question: Option<InputQuestion<'a>>,
    form: Option<NormalizedQuestion>,
    has_tools: bool,
    hosted: HostedFeatures,
}

/// Reads a request of `dialect`. Only members that decide how it is cached are checked; the upstream checks the others. `rules` say which
/// requests are one.
///
/// # Errors
/// `InvalidInput`, naming the field.
pub(super) fn parse(
    dialect: &'static dyn Dialect,
    body: &[u8],
    rules: &IdentityRules,
) -> Result<ParsedRequest> {
    let CanonicalInput { members, question, form, has_tools, hosted } = canonical(body, rules)?;
    let Members { model, streams, temperature, has_directives, is_exact, scope, .. } = members;
    let place = question.as_ref().map_or_else(String::new, InputQuestion::place_text);
    Ok(ParsedRequest {
        dialect,
        scope_domain: "likewise/scope/responses/v1",
        model,
        streams,
        // A stream ends with the complete response, and that reports usage.
        wants_usage: true,
        temperature,
        has_tools,
        hosted,
        is_credential_bound: true,
        has_directives,
        is_exact,
        form,
        scope: KeyHasher::new("likewise/request/responses/v1")
            .field(place.as_bytes())
            .field(&scope.canonical())
            .finish(),
        question: question.map(|question| question.text.into()),
    })
}

/// [`Dialect::identity_parts`].
///
/// # Errors
/// As [`parse`].
pub(super) fn identity_parts<'a>(body: &'a [u8], rules: &IdentityRules) -> Result<IdentityParts<'a>> {
    let CanonicalInput { members, question, form, .. } = canonical(body, rules)?;
    let question = question.map(|question| QuestionPart::new(question.path(), question.text, form));
    Ok(IdentityParts { scope: members.scope, question })
}

fn canonical<'a>(body: &'a [u8], rules: &IdentityRules) -> Result<CanonicalInput<'a>> {
    let mut members = Members::parse_with(body, rules, |request| {
        // A template may name the model, and the upstream knows it.
        let is_of_template = is_given(request, "prompt") && !is_given(request, "model");
        if is_of_template { Ok("") } else { model(request) }
    })?;
    let scope = &mut members.scope;
    check_input(scope)?;
    drop_null(scope, &NULLABLE);
    let has_tools = offers_own_tools(scope)?;
    let hosted = hosted_features(scope)?;
    scope.sort();
    normalize_input(scope);
    let question = take_question(scope);
    // What the model reads beside the request may be about the spelling of the question.
    let is_all_known = hosted.is_empty() && !HIDDEN_CONTEXT.iter().any(|name| is_given(scope, name));
    let normalization = if is_all_known { rules.normalization } else { Normalization::Minimal };
    let alone = question.as_ref().filter(|question| question.is_alone);
    let form = alone.and_then(|question| NormalizedQuestion::within(scope, &question.text, normalization));
    Ok(CanonicalInput { members, question, form, has_tools, hosted })
}

impl InputQuestion<'_> {
    /// The path of the words in the request.
    fn path(&self) -> String {
        match self.place {
            None => "input".to_owned(),
            Some((item, None)) => format!("input[{item}].content"),
            Some((item, Some(part))) => format!("input[{item}].content[{part}].text"),
        }
    }

    fn place_text(&self) -> String {
        match self.place {
            None => "input".to_owned(),
            Some((item, None)) => format!("{item}"),
            Some((item, Some(part))) => format!("{item}.{part}"),
        }
    }
}

fn check_input(request: &Json<'_>) -> Result<()> {
    match request.get("input") {
        Some(Json::Text(_) | Json::List(_)) => Ok(()),
        None | Some(Json::Null) if HIDDEN_CONTEXT.iter().any(|name| is_given(request, name)) => Ok(()),
        _ => Err(Error::invalid("input", "input must be a string or a list of items")),
    }
}

/// Writes what may be written in several ways in one of them: messages without a type, one text in place of a list of one part with it, and
/// members in the order of their names where that has no meaning.
fn normalize_input(request: &mut Json<'_>) {
    let Some(Json::List(items)) = request.get_mut("input") else { return };
    for item in items.iter_mut().filter(|item| item.has_only(&OF_ITEMS)) {
        if is_message(item) {
            item.take("type");
            normalize_content(item);
        }
        item.sort();
    }
}

fn normalize_content(message: &mut Json<'_>) {
    let is_of_model = role_of(message) == Some("assistant");
    let Some(content) = message.get_mut("content") else { return };
    let Json::List(parts) = content else { return };
    parts.iter_mut().filter(|part| part.has_only(&OF_PARTS)).for_each(Json::sort);
    if !is_of_model {
        unwrap_single_text(content, "input_text");
    }
}

/// Takes the last words of the user out of the request.
fn take_question<'a>(request: &mut Json<'a>) -> Option<InputQuestion<'a>> {
    let input = request.get_mut("input")?;
    let is_one_message =
        input.as_list().is_some_and(|items| matches!(items, [item] if is_plain_question(item)));
    if is_one_message || input.as_text().is_some() {
        let mut words = request.take("input")?;
        if let Json::List(items) = &mut words {
            words = items.pop()?.take("content")?;
        }
        let text = text_of(words)?;
        return Some(InputQuestion { text, place: None, is_alone: true });
    }
    let Json::List(items) = input else { return None };
    let item = items.iter().rposition(|item| is_message(item) && role_of(item) == Some("user"))?;
    match items[item].get_mut("content")? {
        content @ Json::Text(_) => {
            let text = text_of(std::mem::take(content))?;
            Some(InputQuestion { text, place: Some((item, None)), is_alone: true })
        }
        Json::List(parts) => {
            let is_text = |part: &Json<'a>| part.get("text").and_then(Json::as_text).is_some();
            let part = parts.iter().rposition(is_text)?;
            let is_alone = parts.iter().position(is_text) == Some(part);
            let text = text_of(std::mem::take(parts[part].get_mut("text")?))?;
            Some(InputQuestion { text, place: Some((item, Some(part))), is_alone })
        }
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) | Json::Object(_) => None,
    }
}

/// Whether a message says no more than a text in its place would.
fn is_plain_question(message: &Json<'_>) -> bool {
    message.has_only(&["content", "role"])
        && role_of(message) == Some("user")
        && message.get("content").and_then(Json::as_text).is_some()
}

fn is_message(item: &Json<'_>) -> bool {
    role_of(item).is_some() && matches!(type_of(item), None | Some("message"))
}

fn role_of<'a>(item: &'a Json<'_>) -> Option<&'a str> {
    item.get("role").and_then(Json::as_text)
}

fn type_of<'a>(value: &'a Json<'_>) -> Option<&'a str> {
    value.get("type").and_then(Json::as_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::responses::Responses;
    use crate::dialects::test_requests::assert_null_is_absent;

    #[test]
    fn null_is_absent_where_the_api_says_so() {
        let body = serde_json::json!({ "model": "m", "input": "what?" });
        assert_null_is_absent(&Responses, &body, &NULLABLE);
    }
}
