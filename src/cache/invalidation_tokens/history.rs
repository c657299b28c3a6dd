//! The present and the former tokens of an invalidation id.

use crate::labels::label_enum;

/// Tokens of soft invalidations that are remembered. What is older than these is not served stale either.
pub(in crate::cache) const OUTDATED_MAX: usize = 4;

label_enum! {
    /// How an invalidation hides entries.
    #[derive(Default)]
    pub enum Mode {
        /// They are misses at once.
        #[default]
        Hard = "hard",
        /// They are served stale while one request refreshes each.
        Soft = "soft",
    }
}

/// How an entry stands to the invalidations so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing that it depends on was invalidated.
    Current,
    /// Something was invalidated softly.
    Outdated,
    /// Something was invalidated.
    Revoked,
}

/// The tokens of one invalidation id, or of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenHistory {
    pub(super) token: u64,
    /// Tokens before soft invalidations, the latest first.
    pub(super) outdated: Box<[u64]>,
    /// The invalidation that made it, in the order of this process; 0 for those before.
    pub(super) bumped: u64,
}

impl TokenHistory {
    /// Of something with a token from the start.
    pub(in crate::cache) fn starting(token: u64) -> TokenHistory {
        TokenHistory { token, ..TokenHistory::default() }
    }

    /// The current token.
    pub(in crate::cache) fn token(&self) -> u64 {
        self.token
    }

    /// Whether the last invalidation was a soft one.
    pub(in crate::cache) fn has_outdated(&self) -> bool {
        !self.outdated.is_empty()
    }

    pub(super) fn standing_of(&self, token: u64) -> Standing {
        if token == self.token {
            Standing::Current
        } else if self.outdated.contains(&token) {
            Standing::Outdated
        } else {
            Standing::Revoked
        }
    }

    pub(super) fn next(&self, token: u64, mode: Mode, bumped: u64) -> TokenHistory {
        let outdated = match mode {
            Mode::Hard => Box::default(),
            Mode::Soft => {
                std::iter::once(&self.token).chain(&self.outdated).take(OUTDATED_MAX).copied().collect()
            }
        };
        TokenHistory { token, outdated, bumped }
    }

    /// The token, then the outdated ones: eight little-endian bytes each.
    pub(in crate::cache) fn encode(&self) -> Vec<u8> {
        std::iter::once(&self.token).chain(&self.outdated).flat_map(|token| token.to_le_bytes()).collect()
    }

    pub(in crate::cache) fn decode(bytes: &[u8]) -> Option<TokenHistory> {
        let (tokens, rest) = bytes.as_chunks::<8>();
        let mut tokens = tokens.iter().map(|&token| u64::from_le_bytes(token));
        let token = tokens.next().filter(|_| rest.is_empty())?;
        Some(TokenHistory { token, outdated: tokens.take(OUTDATED_MAX).collect(), bumped: 0 })
    }
}
