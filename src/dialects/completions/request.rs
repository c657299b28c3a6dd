//! Parses a request for a completion.
//!
//! A prompt in words is the question. Lists of prompts, lists of tokens and a missing prompt have no words of their own: they are part
//! of the scope, and are cached as it is. A prompt is continued from its last letter on, so no two spellings of it are one.

use std::borrow::Cow;

use crate::dialects::choices::request::{Members, drop_single_choice, text_of};
use crate::dialects::null_members::drop_null;
use crate::dialects::{Dialect, HostedFeatures, ParsedRequest};
use crate::domain::KeyHasher;
use crate::error::Result;
use crate::request_identity::{IdentityParts, IdentityRules, QuestionPart};

/// Members that are as `null` what they are if absent. Source: OpenAI's reference of `POST /v1/completions`.
const NULLABLE: [&str; 12] = [
    "best_of",
    "echo",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "suffix",
    "temperature",
    "top_p",
];

/// Parses a request of `dialect`. The upstream checks the members that are not read here. `rules` say which requests are one.
///
/// # Errors
/// `InvalidInput`, naming the field.
pub(super) fn parse(
    dialect: &'static dyn Dialect,
    body: &[u8],
    rules: &IdentityRules,
) -> Result<ParsedRequest> {
    let (members, question) = canonical(body, rules)?;
    let Members { model, streams, wants_usage, temperature, has_directives, is_exact, scope } = members;
    let scope = KeyHasher::new("likewise/request/completions/v1").field(&scope.canonical()).finish();
    Ok(ParsedRequest {
        dialect,
        scope_domain: "likewise/scope/completions/v1",
        model,
        streams,
        wants_usage,
        temperature,
        has_tools: false,
        hosted: HostedFeatures::default(),
        is_credential_bound: false,
        has_directives,
        is_exact,
        form: None,
        scope,
        question: question.map(Into::into),
    })
}

/// [`Dialect::identity_parts`].
///
/// # Errors
/// As [`parse`].
pub(super) fn identity_parts<'a>(body: &'a [u8], rules: &IdentityRules) -> Result<IdentityParts<'a>> {
    let (Members { scope, .. }, question) = canonical(body, rules)?;
    let question = question.map(|text| QuestionPart::new("prompt".to_owned(), text, None));
    Ok(IdentityParts { scope, question })
}

/// A request in canonical form, split into scope and question.
fn canonical<'a>(body: &'a [u8], rules: &IdentityRules) -> Result<(Members<'a>, Option<Cow<'a, str>>)> {
    let mut members = Members::parse(body, rules)?;
    drop_single_choice(&mut members.scope);
    drop_null(&mut members.scope, &NULLABLE);
    members.scope.sort();
    let prompt = members.scope.get_mut("prompt").filter(|prompt| prompt.as_text().is_some());
    let question = prompt.map(std::mem::take).and_then(text_of);
    Ok((members, question))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::completions::Completions;
    use crate::dialects::test_requests::assert_null_is_absent;

    #[test]
    fn null_is_absent_where_the_api_says_so() {
        let body = serde_json::json!({ "model": "m", "prompt": "what?" });
        assert_null_is_absent(&Completions, &body, &NULLABLE);
    }
}
