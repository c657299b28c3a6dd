//! Rebuilds the index of stored questions after a start, from the answers on disk.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::SemanticLookup;
use super::question::RowOwner;
use crate::cache::{Position, ScanRequest, ScanScope, ScannedEntry, Tiers, Verdict};
use crate::domain::{Entry, Key, NamespaceId};
use crate::error::Result;
use crate::service::Directives;
use crate::service::answers::Answers;
use crate::service::answers::stored_answer::{CONTENT_TYPE, StoredAnswer};

/// Records that are read at a time. Their questions are embedded together; more than `embeddings.interactive_texts_max` wait behind requests.
const RECORDS: usize = 64;

/// Failures one after another, such as a busy model, after which the rest of a namespace is left out; and the pause behind each.
const FAILURES_MAX: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// A question whose answer is stored.
struct StoredQuestion {
    key: Key,
    scope: Key,
    text: String,
}

impl Answers {
    /// Adds the questions of stored answers to the index, until all are added or the last owner drops these answers. Requests are served
    /// meanwhile; a question that is not added yet is found in the same words only.
    ///
    /// Cost: reads all fresh answers on disk once. Vectors that are cached are not computed again, but for those of other tenants than the
    /// default one, whose names are not known here; where only declared namespaces are accepted, theirs are left out.
    pub async fn index_stored_questions(answers: Weak<Answers>, tiers: Arc<Tiers>) {
        for namespace in tiers.namespaces_below() {
            let (mut after, mut failures) = (None, 0);
            loop {
                let Some(answers) = answers.upgrade() else { return };
                match answers.index_part(&tiers, namespace.id, after).await {
                    Ok(Some(last)) => (after, failures) = (Some(last), 0),
                    Ok(None) => break,
                    Err(error) if failures == FAILURES_MAX => {
                        tracing::warn!(%error, "cannot index all stored questions; some are answered in the same words only");
                        break;
                    }
                    Err(_) => failures += 1,
                }
                drop(answers);
                if failures > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Adds the questions of a part of a namespace. Returns where the next part begins.
    async fn index_part(
        &self,
        tiers: &Tiers,
        id: NamespaceId,
        after: Option<Position>,
    ) -> Result<Option<Position>> {
        let is_needed = |semantic: &&SemanticLookup| semantic.has_threshold() && !semantic.index.is_full();
        let Some(semantic) = self.semantic.as_ref().filter(is_needed) else { return Ok(None) };
        let request = ScanRequest { scope: ScanScope::Namespace(id), after, records: RECORDS };
        let Some(scan) = tiers.scan(request).await? else { return Ok(None) };
        if let Some(namespace) = self.namespaces.of_id(id, false) {
            let keys: Vec<Key> = scan.entries.iter().filter_map(|entry| self.answer_key(entry)).collect();
            let entries = self.lookup.cache().read_stored(&namespace, keys.clone()).await;
            let questions =
                keys.into_iter().zip(entries).filter_map(|(key, entry)| question_of(key, &*entry?));
            let questions = questions.filter(|question| semantic.may_be_reworded(&question.text));
            semantic.add_stored(questions.collect(), id.is_of_other_tenant()).await?;
        }
        Ok(scan.last)
    }

    /// The key of a scanned entry, if it is a fresh answer.
    fn answer_key(&self, entry: &ScannedEntry) -> Option<Key> {
        let is_answer = entry.names.key.is_empty() && &*entry.meta.content_type == CONTENT_TYPE;
        let is_fresh = self.lookup.freshness().judge(&entry.meta) == Verdict::Fresh;
        (is_answer && is_fresh).then(|| entry.position.key())
    }
}

/// The question of a stored answer, if it may be served to questions in other words.
fn question_of(key: Key, entry: &Entry) -> Option<StoredQuestion> {
    let record = StoredAnswer::decode(&entry.value).filter(|record| record.is_semantic)?;
    Some(StoredQuestion { key, scope: record.scope, text: record.question.to_owned() })
}

impl SemanticLookup {
    /// Embeds questions and adds them. Vectors of other tenants are not stored under the default one.
    async fn add_stored(&self, questions: Vec<StoredQuestion>, is_of_other_tenant: bool) -> Result<()> {
        // Without the verifier that it needs, no question would be found. It is loaded only where there is one to find.
        if questions.is_empty() || !self.verifier.is_usable().await {
            return Ok(());
        }
        let directives = Directives { no_store: is_of_other_tenant, ..Directives::default() };
        let texts = questions.iter().map(|question| question.text.clone()).collect();
        let vectors = self.embed(Arc::default(), texts, directives).await?;
        for (question, vector) in questions.iter().zip(vectors) {
            vector
                .iter()
                .for_each(|vector| self.index.add(question.scope, RowOwner::NONE, question.key, vector));
        }
        Ok(())
    }
}
