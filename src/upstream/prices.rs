//! What answers would have cost.

use super::options::{PriceOptions, names};
use crate::domain::TokenUsage;

/// The price table.
#[derive(Debug, Clone, Default)]
pub struct Prices(Vec<PriceOptions>);

impl Prices {
    /// A table of what the configuration lists.
    pub fn new(options: &[PriceOptions]) -> Prices {
        Prices(options.to_vec())
    }

    /// Dollars that `usage` of `model` costs; none if its price is not known.
    pub fn cost_usd(&self, model: &str, usage: TokenUsage) -> Option<f64> {
        let price = self.0.iter().find(|price| price.models.iter().any(|pattern| names(pattern, model)))?;
        Some(price.cost_usd(usage))
    }
}

impl PriceOptions {
    /// Dollars that a usage costs: each of its parts at its own price, the rest at that of the whole.
    fn cost_usd(&self, usage: TokenUsage) -> f64 {
        let (prompt, completion) = (self.prompt_usd_per_million, self.completion_usd_per_million);
        let parts = usage.details();
        let (cached, written) = (parts.cached_prompt_tokens, parts.written_prompt_tokens);
        let billed = [
            (usage.prompt_tokens.saturating_sub(cached).saturating_sub(written), prompt),
            (cached, self.cached_prompt_usd_per_million.unwrap_or(prompt)),
            (written, self.written_prompt_usd_per_million.unwrap_or(prompt)),
            (usage.completion_tokens.saturating_sub(parts.reasoning_tokens), completion),
            (parts.reasoning_tokens, self.reasoning_usd_per_million.unwrap_or(completion)),
        ];
        billed.into_iter().map(|(tokens, usd_per_million)| f64::from(tokens) * usd_per_million / 1e6).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UsageDetails;

    fn entry(model: &str, prompt: f64, completion: f64) -> PriceOptions {
        PriceOptions {
            models: vec![model.to_owned()],
            prompt_usd_per_million: prompt,
            completion_usd_per_million: completion,
            ..PriceOptions::default()
        }
    }

    fn assert_costs(prices: &Prices, usage: TokenUsage, usd: f64) {
        let cost = prices.cost_usd("m", usage).unwrap();
        assert!((cost - usd).abs() < 1e-12, "{cost} instead of {usd}");
    }

    #[test]
    fn the_first_entry_that_names_a_model_has_its_price() {
        let prices = Prices::new(&[entry("gpt-big", 10.0, 30.0), entry("gpt-*", 1.0, 2.0)]);
        let usage = TokenUsage::new(1_000, 500);
        assert!((prices.cost_usd("gpt-big", usage).unwrap() - 0.025).abs() < 1e-12);
        assert!((prices.cost_usd("gpt-small", usage).unwrap() - 0.002).abs() < 1e-12);
        assert_eq!(prices.cost_usd("other", usage), None);
    }

    #[test]
    fn each_part_of_a_usage_has_its_own_price() {
        let details =
            UsageDetails { cached_prompt_tokens: 600, written_prompt_tokens: 300, reasoning_tokens: 400 };
        let usage = TokenUsage::new(1_000, 500).with_details(details);
        let whole = entry("m", 10.0, 40.0);
        assert_costs(&Prices::new(std::slice::from_ref(&whole)), usage, 0.01 + 0.02);
        let apart = PriceOptions {
            cached_prompt_usd_per_million: Some(1.0),
            written_prompt_usd_per_million: Some(12.5),
            reasoning_usd_per_million: Some(60.0),
            ..whole
        };
        let prices = Prices::new(std::slice::from_ref(&apart));
        // 100 tokens of the prompt and 100 of the completion are none of these.
        assert_costs(&prices, usage, 0.001 + 0.0006 + 0.003_75 + 0.004 + 0.024);
        assert_costs(&prices, TokenUsage::new(1_000, 500), 0.03);
        let free = PriceOptions { cached_prompt_usd_per_million: Some(0.0), ..apart };
        assert_costs(&Prices::new(&[free]), usage, 0.001 + 0.003_75 + 0.004 + 0.024);
    }
}
