//! The rules by which requests share an identity, as the operator has set them.

use std::sync::Arc;

use super::json::Json;
use super::member_path::MemberPath;
use super::normalization::Normalization;

/// The rules by which requests share an identity.
#[derive(Debug, Clone, Default)]
pub struct IdentityRules {
    /// Which differences between questions are ignored.
    pub normalization: Normalization,
    /// Members that are no part of an identity.
    ignored: Arc<[MemberPath]>,
}

impl IdentityRules {
    /// Rules with which the members at `ignored` do not count.
    pub fn new(normalization: Normalization, ignored: &[MemberPath]) -> IdentityRules {
        IdentityRules { normalization, ignored: ignored.into() }
    }

    /// Removes the members that do not count from a request.
    pub fn remove_ignored(&self, request: &mut Json<'_>) {
        self.ignored.iter().for_each(|path| path.remove_from(request));
    }
}
