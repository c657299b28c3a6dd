//! Sends the questions of some hits in other words to the upstream too, to learn how often its answers differ from those that were served.

use std::sync::Arc;

use super::Answers;
use super::flow::Flow;
use super::lookup::Match;
use super::replay::record_of_dialect;
use super::request::{ResolvedRequest, ResponseForm};
use super::semantic::Reasked;
use crate::domain::Principal;

/// A hit whose question is sent to the upstream.
struct ReaskedHit {
    answers: Arc<Answers>,
    resolved: ResolvedRequest,
    form: ResponseForm,
    principal: Arc<Principal>,
    served: String,
}

impl Flow<'_> {
    /// Sends the question of a hit to the upstream too, if it is one of the share that is. The answer is stored as that of the question
    /// itself, which is then a hit in the same words, in the place of an `expired` one.
    pub(super) fn reask(&mut self, served: &Match, expired: Option<&Match>) {
        let directives = &self.request.directives;
        if directives.no_store || directives.only_if_cached {
            return;
        }
        let is_picked = self.answers.semantic.as_ref().is_some_and(|semantic| semantic.reasks());
        if !is_picked {
            return;
        }
        let text = record_of_dialect(served, self.form)
            .and_then(|record| self.form.dialect.text_of_answer(record.answer));
        let Some(served) = text else { return };
        self.resolved.inherit(expired, directives);
        let hit = ReaskedHit {
            answers: Arc::clone(self.answers),
            resolved: self.resolved.clone(),
            form: self.form,
            principal: Arc::clone(&self.request.principal),
            served,
        };
        let begun = self.refresh_then(move |has_failed| async move {
            let agrees = if has_failed { None } else { hit.compare().await };
            let result = match agrees {
                Some(true) => Reasked::Agrees,
                Some(false) => Reasked::Differs,
                None => Reasked::Failed,
            };
            hit.answers.metrics.reasked.with(result).inc();
        });
        if !begun {
            self.answers.metrics.reasked.with(Reasked::Failed).inc();
        }
    }
}

impl ReaskedHit {
    /// Compares the answer that was served with the one that is stored now.
    async fn compare(&self) -> Option<bool> {
        let semantic = self.answers.semantic.as_ref()?;
        let _place = semantic.begin_background()?;
        // Where another node generates the answer, the expired one may still be here.
        let fresh = self.answers.lookup.find(&self.resolved).await.filter(Match::is_fresh)?;
        let record = record_of_dialect(&fresh, self.form)?;
        let fresh = self.form.dialect.text_of_answer(record.answer)?;
        semantic.compare_reasked(Arc::clone(&self.principal), &self.served, &fresh).await
    }
}
