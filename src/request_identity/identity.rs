//! The hashes that make the identity of a request.

use super::json::Json;
use super::normalization::{Normalization, NormalizedQuestion};
use crate::domain::{Key, KeyHasher, TenantId};

/// Everything outside the body that must be equal for two requests to share an answer.
#[derive(Debug, Clone, Copy)]
pub struct Partition<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// The namespace of the answer.
    pub namespace: &'a str,
    /// The credential that the request came with, where answers are not shared between credentials.
    pub credential: Option<&'a [u8]>,
    /// The upstream.
    pub upstream: &'a str,
    /// The query string of the request.
    pub query: Option<&'a str>,
    /// Headers that are forwarded.
    pub headers: &'a [(String, String)],
}

/// The identity of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Equal for requests with the same normalized question and scope. Their answer is stored under it.
    pub key: Key,
    /// Equal only for requests with the same question, word for word.
    pub exact: Key,
    /// Equal for requests with the same scope.
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
    form: Option<&NormalizedQuestion>,
) -> Identity {
    let scope = partition.hasher(domain).field(&scope.0).finish();
    of_scope(scope, question, form)
}

/// The identity of a request whose client has named it by `cache_key`: within the partition, only the `path` of the API and the model must be
/// equal besides.
pub fn of_cache_key(partition: &Partition<'_>, path: &str, model: &str, cache_key: &str) -> Identity {
    let scope = partition
        .hasher("likewise/scope/cache-key/v1")
        .field(path.as_bytes())
        .field(model.as_bytes())
        .finish();
    let exact =
        KeyHasher::new("likewise/answer/cache-key/v1").field(&scope.0).field(cache_key.as_bytes()).finish();
    Identity { key: exact, exact, scope }
}

/// The identity of a question in words within a scope of any JSON value.
pub fn of_text(
    partition: &Partition<'_>,
    scope: &Json<'_>,
    question: &str,
    normalization: Normalization,
) -> Identity {
    let form = NormalizedQuestion::within(scope, question, normalization);
    let scope = partition.hasher("likewise/scope/text/v2").field(&scope.canonical()).finish();
    of_scope(scope, Some(question), form.as_ref())
}

/// `form` is the normalized question. Questions that were normalized by different rules never share a key, so that an answer is not
/// found by rules that are off now.
fn of_scope(scope: Key, question: Option<&str>, form: Option<&NormalizedQuestion>) -> Identity {
    let mut exact = KeyHasher::new("likewise/answer/exact/v2");
    optional(exact.field(&scope.0), question.map(str::as_bytes));
    let exact = exact.finish();
    let of_form = |domain, form: &str| KeyHasher::new(domain).field(&scope.0).field(form.as_bytes()).finish();
    let key = match form {
        Some(NormalizedQuestion::Minimal(form)) => of_form("likewise/answer/composed/v2", form),
        Some(NormalizedQuestion::WordLists(form)) => of_form("likewise/answer/plain/v2", form),
        None => exact,
    };
    Identity { key, exact, scope }
}

/// Nothing and an empty text are two things.
fn optional(hasher: &mut KeyHasher, field: Option<&[u8]>) {
    hasher.field(&[u8::from(field.is_some())]).field(field.unwrap_or_default());
}
