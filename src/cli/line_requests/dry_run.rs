//! What the lines of a file would ask for.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use likewise::domain::TokenUsage;
use likewise::service::warming::{LineRequest, estimate};
use likewise::upstream::Prices;
use serde_json::Value;

use crate::cli::short_hash::{ShortHash, short_hash};

/// Requests by kind and model. Costs 16 bytes, and what a table adds, for each distinct request.
pub(super) struct DryRun {
    prices: Prices,
    rows: BTreeMap<(&'static str, Option<String>), DryRunRow>,
    seen: HashSet<ShortHash>,
}

/// The requests of one kind for one model.
#[derive(Default)]
struct DryRunRow {
    lines: usize,
    distinct: usize,
    /// Tokens of the distinct requests.
    tokens: u64,
}

impl DryRun {
    pub(super) fn new(prices: Prices) -> DryRun {
        DryRun { prices, rows: BTreeMap::new(), seen: HashSet::new() }
    }

    /// Counts a request. One with the fields of an earlier one, in whatever order, is not distinct.
    pub(super) fn add(&mut self, request: &LineRequest) {
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let canonical = body.to_string();
        let hash = short_hash(request.path.iter().chain([&canonical]).map(String::as_str));
        let model = body["model"].as_str().map(str::to_owned);
        let row = self.rows.entry((request.kind, model)).or_default();
        row.lines += 1;
        if self.seen.insert(hash) {
            row.distinct += 1;
            row.tokens += estimate(&body);
        }
    }

    /// What so many tokens cost to read, in dollars.
    fn price(&self, model: Option<&str>, tokens: u64) -> Option<f64> {
        let million = TokenUsage::new(1_000_000, 0);
        Some(self.prices.cost_usd(model?, million)? * tokens as f64 / 1e6)
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((kind, model), DryRunRow { lines, distinct, tokens }) in &self.rows {
            let price = self.price(model.as_deref(), *tokens);
            let price = price.map_or("price unknown".to_owned(), |usd| format!("${usd:.6} to read"));
            let named = model.as_ref().map(|model| format!(", {model}")).unwrap_or_default();
            writeln!(f, "{kind}{named}: {lines} lines, {distinct} distinct, about {tokens} tokens, {price}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use likewise::upstream::PriceOptions;

    use super::*;

    #[test]
    fn requests_are_counted_by_kind_and_model() {
        let prices = [PriceOptions {
            models: vec!["small".into()],
            prompt_usd_per_million: 500.0,
            ..PriceOptions::default()
        }];
        let mut dry_run = DryRun::new(Prices::new(&prices));
        for body in [
            r#"{"model":"small","input":"hello world"}"#,
            r#"{"input": "hello world", "model": "small"}"#,
            r#"{"model":"large","input":"hello"}"#,
            r#"{"input":"hello"}"#,
        ] {
            let path = vec!["v1".to_owned(), "embeddings".to_owned()];
            dry_run.add(&LineRequest { kind: "texts", path, body: body.into() });
        }
        let expected = "texts: 1 lines, 1 distinct, about 1 tokens, price unknown\n\
            texts, large: 1 lines, 1 distinct, about 1 tokens, price unknown\n\
            texts, small: 2 lines, 1 distinct, about 2 tokens, $0.001000 to read\n";
        assert_eq!(dry_run.to_string(), expected);
    }
}
