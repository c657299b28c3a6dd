//! Sets of hosted features: those of a request, those of a reply, and those that are switched on.

use super::{HostedFeature, Uncacheable};
use crate::labels::Label as _;

/// Features of a request or of a reply, or those that are switched on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostedFeatures {
    /// A bit for each that has a name.
    named: u32,
    /// Whether there is a tool of the upstream's that no name stands for.
    has_unknown_tool: bool,
}

impl HostedFeatures {
    /// A tool of the upstream's that no name stands for.
    pub(super) const UNKNOWN_TOOL: HostedFeatures = HostedFeatures { named: 0, has_unknown_tool: true };

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == HostedFeatures::default()
    }

    /// Whether one of them is `feature`.
    pub fn contains(self, feature: HostedFeature) -> bool {
        self.named & feature.bit() != 0
    }

    /// Why an answer with these features has no place in a cache of those that have none but `allowed`. `None` if it has one.
    pub fn beyond(self, allowed: HostedFeatures) -> Option<Uncacheable> {
        let is_beyond = |feature: &&HostedFeature| self.contains(**feature) && !allowed.contains(**feature);
        let named = HostedFeature::ALL.iter().find(is_beyond).copied().map(Uncacheable::Feature);
        named.or(self.has_unknown_tool.then_some(Uncacheable::UnknownTool))
    }

    /// All of these and of `others`.
    #[must_use]
    pub(super) fn with(self, others: HostedFeatures) -> HostedFeatures {
        HostedFeatures {
            named: self.named | others.named,
            has_unknown_tool: self.has_unknown_tool || others.has_unknown_tool,
        }
    }
}

impl From<HostedFeature> for HostedFeatures {
    fn from(feature: HostedFeature) -> HostedFeatures {
        HostedFeatures { named: feature.bit(), has_unknown_tool: false }
    }
}

impl<T: Into<HostedFeatures>> FromIterator<T> for HostedFeatures {
    fn from_iter<I: IntoIterator<Item = T>>(features: I) -> HostedFeatures {
        features.into_iter().fold(HostedFeatures::default(), |all, one| all.with(one.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_switched_on_has_no_place_in_the_cache() {
        use HostedFeature::{Background, Mcp, WebSearch};
        let set = |features: &[HostedFeature]| features.iter().copied().collect::<HostedFeatures>();
        assert_eq!(set(&[]).beyond(set(&[])), None);
        assert_eq!(set(&[WebSearch]).beyond(set(&[])), Some(Uncacheable::Feature(WebSearch)));
        assert_eq!(set(&[WebSearch]).beyond(set(&[Mcp, WebSearch])), None);
        let two = set(&[WebSearch, Background]);
        assert_eq!(two.beyond(set(&[WebSearch])), Some(Uncacheable::Feature(Background)));
        assert_eq!(two.beyond(set(&[Background])), Some(Uncacheable::Feature(WebSearch)), "all of them");
        let all = set(HostedFeature::ALL);
        let unknown = two.with(HostedFeatures::UNKNOWN_TOOL);
        assert_eq!(
            unknown.beyond(all),
            Some(Uncacheable::UnknownTool),
            "it has no name to be switched on by"
        );
        assert!(!unknown.is_empty() && set(&[]).is_empty());
    }
}
