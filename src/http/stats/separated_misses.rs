//! The members that separated most misses from a stored request.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::TenantId;
use crate::service::Answers;
use crate::service::answers::SeparatedMisses;

/// Misses that the same members separated from the nearest stored request of their caller.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SeparatedMissStats {
    /// The paths of the members in which the requests differed, four at most.
    members: Vec<String>,
    /// Misses, since the start.
    misses: u64,
    /// Those that would have been hits if these members had been equal, or ignored (`answers.ignored_members`). None where one of the members
    /// is the question, or the requests differed in more than four.
    hits_if_ignored: u64,
}

impl SeparatedMissStats {
    /// Those of a tenant with most misses, 20 at most.
    pub(super) fn most(tenant: &TenantId, answers: &Answers) -> Vec<SeparatedMissStats> {
        let of_row = |row: SeparatedMisses| SeparatedMissStats {
            hits_if_ignored: if row.explains { row.misses } else { 0 },
            members: row.members,
            misses: row.misses,
        };
        answers.separated_misses(tenant).into_iter().map(of_row).collect()
    }
}
