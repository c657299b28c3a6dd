//! The verifier before an answer in other words: a model that reads both questions has to agree.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::options::VerifierMode;
use crate::embed::{Embedder, Verifier};
use crate::error::Result;
use crate::matching::guard::Guard;

/// Pairs that are read at the same time: each takes a core for some milliseconds.
const CONCURRENT_PAIRS_MAX: usize = 2;

/// What the verifier says of two questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum VerifierAnswer {
    /// They ask the same, by this margin; without one, it need not read them.
    Agrees(Option<f32>),
    /// They ask something else, by this negative margin.
    Refuses(f32),
    /// It cannot read them: a text is too long, or in a language that it was not trained on.
    CannotRead,
    /// It had no time for them, or failed.
    Unavailable,
}

impl VerifierAnswer {
    /// Why the two may not share an answer.
    pub(super) fn refusal(self) -> Option<&'static str> {
        match self {
            VerifierAnswer::Agrees(_) => None,
            VerifierAnswer::Refuses(_) => Some("verifier"),
            VerifierAnswer::CannotRead => Some("verifier_cannot_read"),
            VerifierAnswer::Unavailable => Some("verifier_busy"),
        }
    }
}

/// The use of the verifier of a model.
pub(super) struct QuestionVerifier {
    model: Arc<dyn Embedder>,
    mode: VerifierMode,
    wait_max: Duration,
    permits: Arc<Semaphore>,
    /// Whether the model has a verifier.
    has_verifier: OnceCell<bool>,
}

impl QuestionVerifier {
    pub(super) fn new(model: Arc<dyn Embedder>, mode: VerifierMode, wait_max: Duration) -> QuestionVerifier {
        let permits = Arc::new(Semaphore::new(CONCURRENT_PAIRS_MAX));
        QuestionVerifier { model, mode, wait_max, permits, has_verifier: OnceCell::new() }
    }

    /// Whether questions can be answered in other words at all: without a verifier only where the guard is enough. The first call loads
    /// the verifier.
    pub(super) async fn is_usable(&self) -> bool {
        if self.mode == VerifierMode::Off {
            return true;
        }
        let load = || async {
            let model = Arc::clone(&self.model);
            tokio::task::spawn_blocking(move || model.verifier().is_some()).await.unwrap_or(false)
        };
        let has_verifier = *self.has_verifier.get_or_init(load).await;
        has_verifier || self.mode == VerifierMode::WherePossible
    }

    /// Has the verifier read two questions.
    ///
    /// Cost: some 5 to 15 ms of a core for two sentences, on another thread; none if their canonical forms are equal. Cancel safety: a
    /// pass that has begun is finished.
    pub(super) async fn verify(&self, guard: &Guard, stored: &str, asked: &str) -> VerifierAnswer {
        let unreadable = match self.mode {
            VerifierMode::Off => return VerifierAnswer::Agrees(None),
            VerifierMode::WherePossible => VerifierAnswer::Agrees(None),
            VerifierMode::Required => VerifierAnswer::CannotRead,
        };
        let Some(verifier) = self.model.verifier() else { return unreadable };
        let [stored, asked] = [stored, asked].map(|question| guard.canonical(question));
        if ![&stored, &asked].iter().all(|question| verifier.reads(question.language.code())) {
            return unreadable;
        }
        if stored == asked {
            return VerifierAnswer::Agrees(None);
        }
        match tokio::time::timeout(self.wait_max, self.margin(verifier, stored.text, asked.text)).await {
            Ok(Some(Ok(Some(margin)))) if margin >= 0.0 => VerifierAnswer::Agrees(Some(margin)),
            Ok(Some(Ok(Some(margin)))) => VerifierAnswer::Refuses(margin),
            Ok(Some(Ok(None))) => unreadable,
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "cannot verify a question in other words");
                VerifierAnswer::Unavailable
            }
            Ok(None) | Err(_) => VerifierAnswer::Unavailable,
        }
    }

    /// The margin of a pair, read on a thread that may block. `None` if that thread has ended.
    async fn margin(
        &self,
        verifier: &Arc<Verifier>,
        stored: String,
        asked: String,
    ) -> Option<Result<Option<f32>>> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let verifier = Arc::clone(verifier);
        let pass = move || {
            let _permit = permit;
            verifier.margin(&stored, &asked)
        };
        tokio::task::spawn_blocking(pass).await.ok()
    }
}
