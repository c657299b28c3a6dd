//! The fingerprints of a request.

use super::form::{Form, Spellings};
use super::json::Json;
use crate::domain::{Key, KeyHasher, Tenant};

/// Who asks, whom, and through what: everything outside the request that must be equal for two to share an answer.
#[derive(Debug, Clone, Copy)]
pub struct Partition<'a> {
    /// Whose answer it is.
    pub tenant: &'a Tenant,
    /// The namespace that it is kept in.
    pub namespace: &'a str,
    /// The credential that the request came with, where answers are not shared between credentials.
    pub credential: Option<&'a [u8]>,
    /// Who is asked.
    pub upstream: &'a str,
    /// The query of the request's address.
    pub query: Option<&'a str>,
    /// Headers that are passed on.
    pub headers: &'a [(String, String)],
}

/// What makes two requests the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Equal for requests that ask the same in the same scope; their answer is kept under it.
    pub key: Key,
    /// Equal only for requests that ask it in the same words.
    pub exact: Key,
    /// Equal for requests that may share answers at all.
    pub scope: Key,
}

impl Partition<'_> {
    fn hasher(&self, domain: &str) -> KeyHasher {
        let mut hasher = KeyHasher::new(domain);
        hasher.field(self.tenant.as_str().as_bytes()).field(self.namespace.as_bytes());
        optional(&mut hasher, self.credential);
        hasher.field(self.upstream.as_bytes());
        optional(&mut hasher, self.query.map(str::as_bytes));
        hasher.field(&(self.headers.len() as u64).to_le_bytes());
        for (name, value) in self.headers {
            hasher.field(name.as_bytes()).field(value.as_bytes());
        }
        hasher
    }
}

/// The identity of a parsed request. `scope` is the hash of everything but its question, within the key domain `domain`.
pub fn of_request(
    partition: &Partition<'_>,
    domain: &str,
    scope: &Key,
    question: Option<&str>,
    form: Option<&Form>,
) -> Identity {
    let scope = partition.hasher(domain).field(&scope.0).finish();
    of_scope(scope, question, form)
}

/// The identity of a question that is asked in words within a scope of any kind.
pub fn of_text(
    partition: &Partition<'_>,
    scope: &Json<'_>,
    question: &str,
    spellings: Spellings,
) -> Identity {
    let form = Form::within(scope, question, spellings);
    let scope = partition.hasher("likewise/scope/text/v2").field(&scope.canonical()).finish();
    of_scope(scope, Some(question), form.as_ref())
}

/// `form` is what questions that are to be one have in common. Those of different rules never share a key: what was joined by
/// rules that are off now is not found.
fn of_scope(scope: Key, question: Option<&str>, form: Option<&Form>) -> Identity {
    let mut exact = KeyHasher::new("likewise/answer/exact/v2");
    optional(exact.field(&scope.0), question.map(str::as_bytes));
    let exact = exact.finish();
    let of_form = |domain, form: &str| KeyHasher::new(domain).field(&scope.0).field(form.as_bytes()).finish();
    let key = match form {
        Some(Form::Composed(form)) => of_form("likewise/answer/composed/v2", form),
        Some(Form::Plain(form)) => of_form("likewise/answer/plain/v2", form),
        None => exact,
    };
    Identity { key, exact, scope }
}

/// Nothing and an empty text are two things.
fn optional(hasher: &mut KeyHasher, field: Option<&[u8]>) {
    hasher.field(&[u8::from(field.is_some())]).field(field.unwrap_or_default());
}
