//! Parses a request for a completion.
//!
//! A prompt in words is the question. Lists of prompts, lists of tokens and a missing prompt have no words of their own: they are part
//! of the scope, and are cached as it is. A prompt is continued from its last letter on, so no two spellings of it are one.

use crate::dialects::choices::request::{Members, text_of};
use crate::dialects::{Dialect, ParsedRequest};
use crate::domain::KeyHasher;
use crate::error::Result;

/// Parses a request of `dialect`. The upstream checks the members that are not read here.
///
/// # Errors
/// `InvalidInput`, naming the field.
pub(super) fn parse(dialect: &'static dyn Dialect, body: &[u8]) -> Result<ParsedRequest> {
    let Members { model, streams, wants_usage, temperature, has_directives, is_exact, mut scope } =
        Members::parse(body)?;
    scope.sort();
    let prompt = scope.get_mut("prompt").filter(|prompt| prompt.as_text().is_some());
    let question = prompt.map(std::mem::take).and_then(text_of);
    let scope = KeyHasher::new("likewise/request/completions/v1").field(&scope.canonical()).finish();
    Ok(ParsedRequest {
        dialect,
        scope_domain: "likewise/scope/completions/v1",
        model,
        streams,
        wants_usage,
        temperature,
        has_tools: false,
        has_directives,
        is_exact,
        uncacheable: None,
        form: None,
        scope,
        question: question.map(Into::into),
    })
}
