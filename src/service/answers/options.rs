//! The options of the cache of answers.

use serde::{Deserialize, Serialize};

use super::cached_routes::CachedRouteOptions;
use super::semantic::SemanticOptions;

/// Which answers are stored, and which requests share them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Requests above this temperature expect another answer each time: they bypass the cache.
    pub temperature_max: f64,
    /// Whether answers that call tools are stored, and requests that offer tools are coalesced.
    pub cache_tool_calls: bool,
    /// Whether questions are normalized by closed lists of words: the capital of some first words, a missing question mark, the full
    /// stop of an order. Otherwise only Unicode composition and the whitespace around a question are.
    pub normalize_questions: bool,
    /// Whether requests with different credentials share answers. Those of `/v1/responses` are never shared: the upstream knows them by an id.
    pub share_across_keys: bool,
    /// Whether a generation whose waiters have all left is completed and stored.
    pub finish_abandoned: bool,
    /// Concurrent refreshes of stale answers; further stale answers are refreshed by a later hit.
    pub concurrent_refreshes_max: usize,
    /// How early answers that are asked for often are refreshed, before they are stale: with 1 the share of the requests that refresh an
    /// answer grows from nothing to all within a few times as long as its upstream took, with 2 within twice that. 0 refreshes stale
    /// answers only.
    pub early_refresh_beta: f64,
    /// Other routes of the upstream that are cached, by the exact bodies of their requests.
    pub routes: Vec<CachedRouteOptions>,
    /// When a question is answered from one in other words.
    pub semantic: SemanticOptions,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            temperature_max: 1.0,
            cache_tool_calls: false,
            normalize_questions: false,
            share_across_keys: false,
            finish_abandoned: false,
            concurrent_refreshes_max: 64,
            early_refresh_beta: 0.0,
            routes: Vec::new(),
            semantic: SemanticOptions::default(),
        }
    }
}
