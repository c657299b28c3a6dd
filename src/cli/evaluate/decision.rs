//! Ways to decide whether two questions share an answer.

use likewise::error::Result;
use likewise::matching::guard::Strictness;

use super::pair_judge::PairJudge;

/// A way to decide, apart from the similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Cosine,
    Normal,
    Strict,
    NormalVerified,
    StrictVerified,
}

impl Decision {
    pub(super) const ALL: [Decision; 5] = [
        Decision::Cosine,
        Decision::Normal,
        Decision::Strict,
        Decision::NormalVerified,
        Decision::StrictVerified,
    ];

    /// Rules and verifier.
    pub(super) fn verified(strictness: Strictness) -> Decision {
        match strictness {
            Strictness::Normal => Decision::NormalVerified,
            Strictness::Strict => Decision::StrictVerified,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Decision::Cosine => "cosine",
            Decision::Normal => "normal rules",
            Decision::Strict => "strict rules",
            Decision::NormalVerified => "normal, verifier",
            Decision::StrictVerified => "strict, verifier",
        }
    }

    /// Which conflicts forbid. `None` if none does.
    fn strictness(self) -> Option<Strictness> {
        match self {
            Decision::Cosine => None,
            Decision::Normal | Decision::NormalVerified => Some(Strictness::Normal),
            Decision::Strict | Decision::StrictVerified => Some(Strictness::Strict),
        }
    }

    pub(super) fn is_verified(self) -> bool {
        matches!(self, Decision::NormalVerified | Decision::StrictVerified)
    }

    /// Whether the rules let a stored question answer an asked one.
    pub(super) fn passes_rules(self, judge: &PairJudge<'_>, stored: usize, asked: usize) -> bool {
        self.strictness().is_none_or(|strictness| judge.allows(strictness, stored, asked))
    }

    /// Whether all but the similarity lets a stored question answer an asked one.
    pub(super) fn allows(self, judge: &mut PairJudge<'_>, stored: usize, asked: usize) -> Result<bool> {
        Ok(self.passes_rules(judge, stored, asked)
            && (!self.is_verified() || judge.margin(stored, asked)?.is_some_and(|margin| margin >= 0.0)))
    }
}
