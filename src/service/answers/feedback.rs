//! Feedback on an answer that was served to a question in other words.

use super::Answers;
use super::stored_answer::StoredAnswer;
use crate::cache::{PAIR_QUESTION_BYTES_MAX, PairJudgement, QuestionPair};
use crate::domain::{Key, NamespaceId, Principal};
use crate::error::{Error, Kind, Result};

/// What a client says of an answer to a question in other words.
#[derive(Debug)]
pub struct Feedback<'a> {
    /// The sender.
    pub principal: &'a Principal,
    /// The question that was asked.
    pub prompt: &'a str,
    /// The question whose answer was served.
    pub stored: FeedbackOn<'a>,
    /// Whether the answer was right.
    pub judgement: PairJudgement,
}

/// The question whose answer was served.
#[derive(Debug)]
pub enum FeedbackOn<'a> {
    /// That of the answer with this id.
    Answer(Key),
    /// This one.
    Question(&'a str),
}

/// Records feedback, and returns what holds of the pair now.
///
/// # Errors
/// `InvalidInput` for an empty or too long question, and for two that are the same; `NotFound` for an unknown answer; as
/// [`PairFeedback::record`](crate::cache::PairFeedback::record); `Unavailable` if nothing is answered in other words.
pub(super) async fn record(answers: &Answers, feedback: &Feedback<'_>) -> Result<PairJudgement> {
    let Some(semantic) = &answers.semantic else {
        return Err(Error::new(Kind::Unavailable, "no questions are answered in other words here"));
    };
    let stored = match feedback.stored {
        FeedbackOn::Answer(id) => question_of(answers, feedback, id).await?,
        FeedbackOn::Question(question) => question.to_owned(),
    };
    check_question("prompt", feedback.prompt)?;
    check_question("question", &stored)?;
    if feedback.prompt.trim() == stored.trim() {
        let message = "prompt must not be the stored question itself: an answer that is wrong for its own question is to be deleted";
        return Err(Error::invalid("prompt", message));
    }
    let pair = QuestionPair { tenant: &feedback.principal.tenant, asked: feedback.prompt, stored: &stored };
    let now = answers.lookup.freshness().now();
    let judgement = semantic.feedback().record(pair, feedback.judgement, now).await?;
    answers.metrics.feedback.with(feedback.judgement).inc();
    if judgement == PairJudgement::Wrong {
        semantic.report_wrong(pair);
    }
    Ok(judgement)
}

/// The question of a stored answer of the sender's tenant.
async fn question_of(answers: &Answers, feedback: &Feedback<'_>, id: Key) -> Result<String> {
    let tenant = &feedback.principal.tenant;
    let namespace = answers.namespaces.of_answers(tenant, None)?;
    let found = answers.lookup.find_by_key(&namespace, id).await;
    let is_of_tenant = |of: &NamespaceId| NamespaceId::tenant_id_bits(tenant) == of.tenant();
    let found = found.filter(|found| is_of_tenant(&found.found.entry.meta.namespace));
    let stored = found.as_ref().and_then(|found| StoredAnswer::decode(&found.found.entry.value));
    match stored.filter(|stored| stored.is_semantic) {
        Some(stored) => Ok(stored.question.to_owned()),
        None => {
            let message = "no answer with this id is stored for questions in other words: give its question as `question`";
            Err(Error::new(Kind::NotFound, message).param("id"))
        }
    }
}

fn check_question(field: &'static str, question: &str) -> Result<()> {
    if (1..=PAIR_QUESTION_BYTES_MAX).contains(&question.trim().len()) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{field} must have 1 to {PAIR_QUESTION_BYTES_MAX} bytes")))
}
