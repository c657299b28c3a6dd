//! The kinds of answers that are stored only where that is wished: those that call tools, those that a limit cut short, and those for
//! which the upstream runs or holds something.

use super::options::Options;
use super::reason::Reason;
use crate::cache::Policy;
use crate::dialects::HostedFeatures;
use crate::service::Directives;

/// Which of these kinds are stored, and served from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredKinds {
    /// Answers that call tools.
    pub(super) tool_calls: bool,
    /// Answers that ended at the limit of tokens.
    pub(super) truncated: bool,
    /// Answers that use these features, and no others.
    pub(super) hosted: HostedFeatures,
}

impl StoredKinds {
    /// What a request or its route says decides, else the policy of its namespace, else the option of the server. Of features `of_route` decides,
    /// if its route says anything of them.
    pub(super) fn of(
        directives: &Directives,
        of_route: Option<HostedFeatures>,
        policy: &Policy,
        options: &Options,
    ) -> StoredKinds {
        StoredKinds {
            tool_calls: directives.tool_calls.or(policy.cache_tool_calls).unwrap_or(options.cache_tool_calls),
            truncated: directives.truncated.or(policy.cache_truncated).unwrap_or(options.cache_truncated),
            hosted: of_route.unwrap_or_else(|| options.cached_features.iter().copied().collect()),
        }
    }

    /// Why an answer with these features has no place in the cache.
    pub(super) fn reason_against_features(self, features: HostedFeatures) -> Option<Reason> {
        features.beyond(self.hosted).map(Reason::from)
    }

    /// Why an answer of a kind has no place in the cache.
    pub(super) fn reason_against(self, calls_tools: bool, is_truncated: bool) -> Option<Reason> {
        if calls_tools && !self.tool_calls {
            Some(Reason::ToolCalls)
        } else if is_truncated && !self.truncated {
            Some(Reason::Truncated)
        } else {
            None
        }
    }
}
