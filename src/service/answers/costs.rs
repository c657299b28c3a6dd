//! What answers cost, and what the cache has saved.

use std::sync::Arc;

use super::metrics::AnswerMetrics;
use super::response::Saved;
use crate::domain::TokenUsage;
use crate::upstream::Prices;

/// The price table, and the counters of costs.
pub(super) struct Costs {
    pub(super) prices: Prices,
    pub(super) metrics: Arc<AnswerMetrics>,
}

impl Costs {
    /// The cost of an answer.
    pub(super) fn price(&self, model: &str, usage: TokenUsage) -> Saved {
        let tokens = u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens);
        Saved { tokens, usd: self.prices.cost_usd(model, usage) }
    }

    /// Counts the cost that a cached answer has saved.
    pub(super) fn saved(&self, model: &str, usage: TokenUsage) -> Saved {
        let saved = self.price(model, usage);
        self.metrics.saved_tokens.inc_by(saved.tokens);
        self.metrics.saved_usd.inc_by(saved.usd.unwrap_or_default());
        saved
    }

    /// Counts the cost of an answer that an upstream has generated.
    pub(super) fn spent(&self, model: &str, usage: TokenUsage) {
        let spent = self.price(model, usage);
        self.metrics.spent_tokens.inc_by(spent.tokens);
        self.metrics.spent_usd.inc_by(spent.usd.unwrap_or_default());
    }
}
