//! A question that may be answered in other words, and the scopes within which it is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{Credential, Key, KeyHasher, KeyId, Principal};
use crate::service::answers::stored_answer::StoredAnswer;

/// A question that may be answered in other words.
#[derive(Debug, Clone)]
pub(in crate::service::answers) struct SemanticQuestion {
    pub(super) scopes: QuestionScopes,
    /// Whose vectors are cached.
    pub(super) principal: Arc<Principal>,
    pub(super) text: Arc<str>,
    /// None until it is embedded.
    pub(super) vector: Option<Arc<[f32]>>,
}

impl SemanticQuestion {
    /// The scope that is stored with its answer.
    pub(in crate::service::answers) fn scope(&self) -> Key {
        self.scopes.own
    }
}

/// Whose question it is, and where it stands.
pub(in crate::service::answers) struct SemanticRequest<'a> {
    pub(in crate::service::answers) principal: &'a Arc<Principal>,
    pub(in crate::service::answers) credential: Option<&'a Credential>,
    /// The scope of its identity.
    pub(in crate::service::answers) scope: &'a Key,
    pub(in crate::service::answers) text: &'a str,
}

/// When a caller is answered in other words from a question of another one, where `answers.share_across_keys` lets both share answers in
/// the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcrossKeys {
    /// Never.
    Never,
    /// Once another API key (`http.api_keys`) than that of the stored question has asked it in the same words, and the answer is the
    /// upstream's. Without API keys never: any client may make up another credential.
    #[default]
    Confirmed,
    /// As soon as it is stored.
    AtOnce,
}

/// The scopes of a question. Questions of other scopes are never compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuestionScopes {
    /// That of the questions with its credential; with [`AcrossKeys::AtOnce`], with any.
    pub(super) own: Key,
    /// That of the questions of all API keys that another one has confirmed.
    pub(super) confirmed: Option<Key>,
    /// Whose rows of the index those of its own scope are.
    pub(super) owner: RowOwner,
}

/// The API key that a row of the index counts for. Rows that come from the disk, or are for all, count for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RowOwner(Option<usize>);

impl RowOwner {
    pub(super) const NONE: RowOwner = RowOwner(None);

    pub(super) fn of(key: Option<KeyId>) -> RowOwner {
        RowOwner(key.map(|KeyId(place)| place))
    }

    /// Whether both are API keys, and not the same one.
    pub(super) fn is_other_than(self, other: RowOwner) -> bool {
        self.0.is_some() && other.0.is_some() && self != other
    }
}

impl QuestionScopes {
    pub(super) fn of(asked: &SemanticRequest<'_>, across_keys: AcrossKeys) -> QuestionScopes {
        let owner = RowOwner::of(asked.principal.key);
        let credential = asked.credential.map(Credential::as_bytes);
        let of_credential = || scope("likewise/scope/semantic/v1", asked.scope, credential);
        match across_keys {
            AcrossKeys::Never => QuestionScopes { own: of_credential(), confirmed: None, owner },
            AcrossKeys::Confirmed => {
                let confirmed = || scope("likewise/scope/semantic/confirmed/v1", asked.scope, None);
                let confirmed = (owner != RowOwner::NONE).then(confirmed);
                QuestionScopes { own: of_credential(), confirmed, owner }
            }
            AcrossKeys::AtOnce => {
                let own = scope("likewise/scope/semantic/all/v1", asked.scope, None);
                QuestionScopes { own, confirmed: None, owner: RowOwner::NONE }
            }
        }
    }

    /// Whether a row that was found in `scope` is that of a stored answer which may be served to questions in other words.
    pub(super) fn has_row(&self, scope: Key, stored: &StoredAnswer<'_>) -> bool {
        stored.is_semantic
            && match self.confirmed {
                Some(confirmed) if confirmed == scope => !stored.is_text,
                _ => stored.scope == scope,
            }
    }
}

fn scope(family: &str, of_identity: &Key, credential: Option<&[u8]>) -> Key {
    let mut hasher = KeyHasher::new(family);
    hasher
        .field(&of_identity.0)
        .field(&[u8::from(credential.is_some())])
        .field(credential.unwrap_or_default());
    hasher.finish()
}
