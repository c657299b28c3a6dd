//! The verifier before an answer in other words: a model that reads both questions has to agree.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::options::VerifierMode;
use super::pair_margins::{PairMargin, PairMargins};
use crate::embed::{Embedder, Verifier};
use crate::error::{Error, Kind, Result};
use crate::matching::calibration::MARGIN_MAX;
use crate::matching::guard::Guard;

/// Pairs that are read at the same time: each takes a core for some milliseconds.
const CONCURRENT_PAIRS_MAX: usize = 2;

/// What the verifier says of two questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum VerifierAnswer {
    /// They ask the same, by this margin; without one, it is not used.
    Agrees(Option<f32>),
    /// They ask something else, by this negative margin.
    Refuses(f32),
    /// It cannot read them: a text is too long, or in a language that it was not trained on.
    CannotRead,
    /// It had no time for them, or failed.
    Unavailable,
}

impl VerifierAnswer {
    /// By how much the two ask the same; negative if they do not. `None` if it has not read them.
    pub(super) fn margin(self) -> Option<f32> {
        match self {
            VerifierAnswer::Agrees(margin) => margin,
            VerifierAnswer::Refuses(margin) => Some(margin),
            VerifierAnswer::CannotRead | VerifierAnswer::Unavailable => None,
        }
    }

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
    margins: PairMargins,
    /// Whether the model has a verifier.
    has_verifier: OnceCell<bool>,
}

impl QuestionVerifier {
    pub(super) fn new(model: Arc<dyn Embedder>, mode: VerifierMode, wait_max: Duration) -> QuestionVerifier {
        let permits = Arc::new(Semaphore::new(CONCURRENT_PAIRS_MAX));
        QuestionVerifier {
            model,
            mode,
            wait_max,
            permits,
            margins: PairMargins::default(),
            has_verifier: OnceCell::new(),
        }
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
    /// Cost: some 5 ms of a core for two sentences, on another thread; none if their canonical forms are equal, or were read lately
    /// or by a pass that runs. Cancel safety: a pass that has begun is finished, and its margin is kept.
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
            return VerifierAnswer::Agrees(Some(MARGIN_MAX));
        }
        let known = self.margins.of(&stored.text, &asked.text);
        let margin = self.margin(known, verifier, stored.text, asked.text);
        match tokio::time::timeout(self.wait_max, margin).await {
            Ok(Ok(Some(margin))) if margin >= 0.0 => VerifierAnswer::Agrees(Some(margin)),
            Ok(Ok(Some(margin))) => VerifierAnswer::Refuses(margin),
            Ok(Ok(None)) => unreadable,
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot verify a question in other words");
                VerifierAnswer::Unavailable
            }
            Err(_) => VerifierAnswer::Unavailable,
        }
    }

    /// The margin of a pair, read on a thread that may block unless it is known. `None` if a text is too long.
    async fn margin(
        &self,
        known: PairMargin,
        verifier: &Arc<Verifier>,
        stored: String,
        asked: String,
    ) -> Result<Option<f32>> {
        let stopped = || Error::new(Kind::Unavailable, "the verifier has stopped");
        // Held until the pass has ended, whether or not its caller has left: the next one finds what it has read.
        let mut known = known.lock_owned().await;
        if let Some(margin) = *known {
            return Ok(margin);
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| stopped())?;
        let verifier = Arc::clone(verifier);
        let pass = move || {
            let _permit = permit;
            let margin = verifier.margin(&stored, &asked)?;
            *known = Some(margin);
            Ok(margin)
        };
        tokio::task::spawn_blocking(pass).await.map_err(|_| stopped())?
    }
}
