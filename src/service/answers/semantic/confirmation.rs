//! Confirms stored questions, so that callers with other API keys are answered from them in other words.

use super::SemanticLookup;
use super::question::{QuestionScopes, RowOwner, SemanticQuestion, SemanticRequest};
use crate::domain::Key;
use crate::service::answers::stored_answer::StoredAnswer;

impl SemanticLookup {
    /// Whether a request that was answered in the same words confirms the stored question: its API key is another one than that which has
    /// stored it since the start, and the answer is the upstream's.
    ///
    /// Cost: two hashes, and none where the question is not one that is found in other words.
    pub(in crate::service::answers) fn is_confirmed_by(
        &self,
        asked: &SemanticRequest<'_>,
        key: &Key,
        stored: &StoredAnswer<'_>,
    ) -> bool {
        if !stored.is_semantic || stored.is_text {
            return false;
        }
        let QuestionScopes { confirmed: Some(confirmed), owner, .. } =
            QuestionScopes::of(asked, self.options.across_keys)
        else {
            return false;
        };
        let author = self.index.owner_of(&stored.scope, key);
        author.is_some_and(|author| author.is_other_than(owner)) && !self.index.contains(&confirmed, key)
    }

    /// Confirms the stored question with the same words. Without a vector nothing is confirmed until it is asked once more.
    ///
    /// The confirmation is in memory only: after a start, it takes another one.
    pub(in crate::service::answers) async fn confirm(&self, key: Key, mut question: SemanticQuestion) {
        if self.embed_question(&mut question, false).await.is_err() {
            return;
        }
        if let (Some(confirmed), Some(vector)) = (question.scopes.confirmed, &question.vector) {
            self.index.add(confirmed, RowOwner::NONE, key, vector);
        }
    }
}
