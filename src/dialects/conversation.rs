//! Conversations: what requests with a list of `messages` have in common, and the question that such a list ends in.

use std::borrow::Cow;

use super::HostedFeatures;
use super::choices::request::{Members, text_of};
use crate::domain::{Key, KeyHasher};
use crate::error::{Error, Result};
use crate::request_identity::{IdentityParts, Json, NormalizedQuestion, QuestionPart};

/// A longer body is not searched for what the answer depends on.
pub(super) const REWORDABLE_BYTES_MAX: usize = 64 * 1024;

/// The last words of the user.
#[derive(Debug)]
pub(super) struct UserQuestion<'a> {
    pub(super) text: Cow<'a, str>,
    /// Which message, and which of its parts.
    pub(super) place: (usize, Option<usize>),
    /// Whether the message has no other words.
    pub(super) is_alone: bool,
}

/// A request with a list of messages in canonical form, split into scope and question.
pub(super) struct CanonicalConversation<'a> {
    /// With the request without its question as the scope.
    pub(super) members: Members<'a>,
    pub(super) question: Option<UserQuestion<'a>>,
    /// The normalized question, if the message has no other words.
    pub(super) form: Option<NormalizedQuestion>,
    pub(super) has_tools: bool,
    pub(super) hosted: HostedFeatures,
}

impl<'a> CanonicalConversation<'a> {
    /// What its identity is made of.
    pub(super) fn into_parts(self) -> IdentityParts<'a> {
        let CanonicalConversation { members, question, form, .. } = self;
        let question = question.map(|question| QuestionPart::new(question.path(), question.text, form));
        IdentityParts { scope: members.scope, question }
    }
}

impl UserQuestion<'_> {
    /// The path of the words in the request.
    pub(super) fn path(&self) -> String {
        match self.place {
            (message, None) => format!("messages[{message}].content"),
            (message, Some(part)) => format!("messages[{message}].content[{part}].text"),
        }
    }
}

/// Checks that a request has messages, each of which has a role.
///
/// # Errors
/// `InvalidInput`, naming the field.
pub(super) fn check_messages(request: &Json<'_>) -> Result<()> {
    let fault = |message: &str| Err(Error::invalid("messages", message));
    let Some(messages) = request.get("messages").and_then(Json::as_list) else {
        return fault("messages must be a list of messages");
    };
    if messages.is_empty() {
        return fault("messages is an empty list");
    }
    if !messages.iter().all(|message| message.get("role").and_then(Json::as_text).is_some()) {
        return fault("every message is an object with a role");
    }
    Ok(())
}

/// Whether there is anything in a list of tools.
///
/// # Errors
/// `InvalidInput` if it is no list.
pub(super) fn offers(request: &Json<'_>, name: &'static str) -> Result<bool> {
    match request.get(name) {
        None | Some(Json::Null) => Ok(false),
        Some(value) => match value.as_list() {
            Some(list) => Ok(!list.is_empty()),
            None => Err(Error::invalid(name, format!("{name} must be a list"))),
        },
    }
}

/// Whether a member says no more than its absence does.
pub(super) fn is_unset(value: &Json<'_>) -> bool {
    *value == Json::Null || value.as_list().is_some_and(<[_]>::is_empty)
}

/// Takes the last words of the user out of the request.
pub(super) fn take_question<'a>(request: &mut Json<'a>) -> Option<UserQuestion<'a>> {
    let Json::List(messages) = request.get_mut("messages")? else { return None };
    let is_user = |message: &Json<'a>| message.get("role").and_then(Json::as_text) == Some("user");
    let message = messages.iter().rposition(is_user)?;
    match messages[message].get_mut("content")? {
        content @ Json::Text(_) => {
            let text = text_of(std::mem::take(content))?;
            Some(UserQuestion { text, place: (message, None), is_alone: true })
        }
        Json::List(parts) => {
            let is_text = |part: &Json<'a>| part.get("text").and_then(Json::as_text).is_some();
            let part = parts.iter().rposition(is_text)?;
            let is_alone = parts.iter().position(is_text) == Some(part);
            let text = text_of(std::mem::take(parts[part].get_mut("text")?))?;
            Some(UserQuestion { text, place: (message, Some(part)), is_alone })
        }
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) | Json::Object(_) => None,
    }
}

/// Writes a list of one part that says no more than its text as that text: its type is `of_type`, and it has no other members.
pub(super) fn unwrap_single_text(content: &mut Json<'_>, of_type: &str) {
    if let Json::List(parts) = content
        && let [part] = parts.as_mut_slice()
        && part.has_only(&["text", "type"])
        && part.get("type").and_then(Json::as_text) == Some(of_type)
        && let Some(text @ Json::Text(_)) = part.get_mut("text")
    {
        *content = std::mem::take(text);
    }
}

/// The hash of a request without its question, and of the place of that, within the key domain `domain`.
pub(super) fn fingerprint(domain: &str, question: Option<&UserQuestion<'_>>, rest: &Json<'_>) -> Key {
    let place = match question {
        None => String::new(),
        Some(UserQuestion { place: (message, None), .. }) => format!("{message}"),
        Some(UserQuestion { place: (message, Some(part)), .. }) => format!("{message}.{part}"),
    };
    KeyHasher::new(domain).field(place.as_bytes()).field(&rest.canonical()).finish()
}
