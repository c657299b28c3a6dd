//! The options of the cache of answers.

use serde::{Deserialize, Serialize};

use super::cached_routes::CachedRouteOptions;
use super::semantic::SemanticOptions;
use crate::dialects::HostedFeature;
use crate::request_identity::{IdentityRules, MemberPath, Normalization};

/// Which answers are stored, and which requests share them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Requests above this temperature expect another answer each time: they bypass the cache.
    pub temperature_max: f64,
    /// Whether answers that call tools are stored, and requests that offer tools are coalesced. A namespace, a route and a request may say otherwise.
    pub cache_tool_calls: bool,
    /// Whether answers of chat completions, completions and messages that ended at the limit of tokens are stored. A namespace, a route and
    /// a request may say otherwise.
    pub cache_truncated: bool,
    /// Features of `/v1/responses` and `/v1/messages` whose answers are stored although they depend on more than the request says, or do more
    /// than answer: `web_search`, `conversation` and the like. Requests with any other bypass the cache. A route may have a list of its own.
    pub cached_features: Vec<HostedFeature>,
    /// Whether questions are normalized by closed lists of words: the capital of some first words, a missing question mark, the full
    /// stop of an order. Otherwise only Unicode composition and the whitespace around a question are.
    pub normalize_questions: bool,
    /// Members of requests that change no answer, beside those of `prompt_cache_*`, `cache_control` and `service_tier`: requests that differ
    /// in them alone share an answer. Names with a dot between them, as `metadata.trace_id`; a list on the way stands for each of its
    /// elements. They are sent to the upstream as they came.
    pub ignored_members: Vec<MemberPath>,
    /// Bytes of memory for the requests with which one that misses is compared, to name the members in which it differs from a stored one
    /// (`x-likewise-differs`, `/v1/stats`). 0 turns that off.
    pub remembered_requests_bytes_max: usize,
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
            cache_truncated: false,
            cached_features: Vec::new(),
            normalize_questions: false,
            ignored_members: Vec::new(),
            remembered_requests_bytes_max: 8 << 20,
            share_across_keys: false,
            finish_abandoned: false,
            concurrent_refreshes_max: 64,
            early_refresh_beta: 0.0,
            routes: Vec::new(),
            semantic: SemanticOptions::default(),
        }
    }
}

impl Options {
    /// Which requests are one.
    pub(super) fn identity_rules(&self) -> IdentityRules {
        let normalization =
            if self.normalize_questions { Normalization::WordLists } else { Normalization::Minimal };
        IdentityRules::new(normalization, &self.ignored_members)
    }
}
