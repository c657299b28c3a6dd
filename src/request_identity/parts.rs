//! What the identity of a request is made of.

use std::borrow::Cow;

use super::json::Json;
use super::normalization::NormalizedQuestion;

/// What the identity of a request is made of: requests share one if and only if these are equal, in one partition.
#[derive(Debug, PartialEq)]
pub struct IdentityParts<'a> {
    /// The request in canonical form, with `null` in the place of its question.
    pub scope: Json<'a>,
    /// The question.
    pub question: Option<QuestionPart<'a>>,
}

impl IdentityParts<'_> {
    /// The same parts, with texts of their own.
    pub fn into_owned(self) -> IdentityParts<'static> {
        let owned = |QuestionPart { path, text }: QuestionPart<'_>| QuestionPart {
            path,
            text: text.into_owned().into(),
        };
        IdentityParts { scope: self.scope.into_owned(), question: self.question.map(owned) }
    }
}

/// The question of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionPart<'a> {
    /// Where it stands, such as `messages[1].content`.
    pub path: String,
    /// Its words, as far as they count.
    pub text: Cow<'a, str>,
}

impl<'a> QuestionPart<'a> {
    /// The question `text` at `path`, which is compared by `form` if it has one.
    pub fn new(path: String, text: Cow<'a, str>, form: Option<NormalizedQuestion>) -> QuestionPart<'a> {
        let text = match form {
            Some(NormalizedQuestion::Minimal(form) | NormalizedQuestion::WordLists(form)) => Cow::Owned(form),
            None => text,
        };
        QuestionPart { path, text }
    }
}
