//! A question that is searched for in other words, and the scope within which it is.

use std::sync::Arc;

use crate::domain::{Credential, Key, KeyHasher, Principal};

/// A question that may be answered in other words.
#[derive(Debug, Clone)]
pub(in crate::service::answers) struct SemanticQuestion {
    /// Questions of other scopes are never compared.
    pub(in crate::service::answers) scope: Key,
    /// Whose vectors are cached.
    pub(super) principal: Arc<Principal>,
    pub(super) text: Arc<str>,
    /// None until it is embedded.
    pub(super) vector: Option<Arc<[f32]>>,
}

/// Whose question it is, and where it stands.
pub(in crate::service::answers) struct SemanticRequest<'a> {
    pub(in crate::service::answers) principal: &'a Arc<Principal>,
    pub(in crate::service::answers) credential: Option<&'a Credential>,
    /// The scope of its identity.
    pub(in crate::service::answers) scope: &'a Key,
    pub(in crate::service::answers) text: &'a str,
}

/// Questions with different credentials are never compared, also where they share answers in the same words: who stores an answer to a
/// near question must not choose the answers of others.
pub(super) fn scope_of(asked: &SemanticRequest<'_>) -> Key {
    let mut hasher = KeyHasher::new("likewise/scope/semantic/v1");
    let credential = asked.credential.map(Credential::as_bytes);
    hasher
        .field(&asked.scope.0)
        .field(&[u8::from(credential.is_some())])
        .field(credential.unwrap_or_default());
    hasher.finish()
}
