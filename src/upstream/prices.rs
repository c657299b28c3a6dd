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
        let million = 1e6;
        let prompt = f64::from(usage.prompt_tokens) * price.prompt_usd_per_million / million;
        Some(prompt + f64::from(usage.completion_tokens) * price.completion_usd_per_million / million)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_names_a_model_has_its_price() {
        let entry = |model: &str, prompt, completion| PriceOptions {
            models: vec![model.to_owned()],
            prompt_usd_per_million: prompt,
            completion_usd_per_million: completion,
        };
        let prices = Prices::new(&[entry("gpt-big", 10.0, 30.0), entry("gpt-*", 1.0, 2.0)]);
        let usage = TokenUsage { prompt_tokens: 1_000, completion_tokens: 500 };
        assert!((prices.cost_usd("gpt-big", usage).unwrap() - 0.025).abs() < 1e-12);
        assert!((prices.cost_usd("gpt-small", usage).unwrap() - 0.002).abs() < 1e-12);
        assert_eq!(prices.cost_usd("other", usage), None);
    }
}
