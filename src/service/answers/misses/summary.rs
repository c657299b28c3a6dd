//! The members that separated most misses from a stored request.

use crate::domain::TenantId;
use crate::request_identity::MemberDifferences;

/// Rows that are counted of a tenant, and of all. Where all are taken, the one with the fewest misses makes room.
const ROWS_OF_TENANT_MAX: usize = 64;
const ROWS_MAX: usize = 1024;

/// Members that separated misses from the nearest stored request, with the number of these misses.
#[derive(Debug, Default)]
pub(super) struct MissSummary {
    rows: Vec<(TenantId, SeparatedMisses)>,
}

/// The misses that the same members separated from a stored request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeparatedMisses {
    /// The paths of the members in which the requests differed, at most four.
    pub members: Vec<String>,
    /// Misses, since the start. If the row has made room meanwhile, since then.
    pub misses: u64,
    /// Whether every miss would have been a hit if these members had been equal: they are all in which the requests differed, and the
    /// question is none of them.
    pub explains: bool,
}

impl MissSummary {
    /// Counts a miss of a tenant.
    pub(super) fn count(&mut self, tenant: &TenantId, differences: &MemberDifferences) {
        let MemberDifferences { named, is_complete } = differences;
        let explains = *is_complete && !named.iter().any(|difference| difference.is_question);
        let is_same = |(owner, row): &(TenantId, SeparatedMisses)| {
            owner == tenant
                && row.explains == explains
                && row.members.iter().eq(named.iter().map(|difference| &difference.path))
        };
        if let Some((_, row)) = self.rows.iter_mut().find(|row| is_same(row)) {
            row.misses += 1;
            return;
        }
        let row = SeparatedMisses {
            members: named.iter().map(|difference| difference.path.clone()).collect(),
            misses: 1,
            explains,
        };
        let is_own = |at: &usize| self.rows[*at].0 == *tenant;
        let has_most = (0..self.rows.len()).filter(is_own).count() >= ROWS_OF_TENANT_MAX;
        if has_most || self.rows.len() >= ROWS_MAX {
            let candidates = (0..self.rows.len()).filter(|at| !has_most || is_own(at));
            let fewest = candidates.min_by_key(|at| self.rows[*at].1.misses);
            fewest.into_iter().for_each(|at| _ = self.rows.swap_remove(at));
        }
        self.rows.push((tenant.clone(), row));
    }

    /// The rows of a tenant with most misses, at most so many.
    pub(super) fn most(&self, tenant: &TenantId, count_max: usize) -> Vec<SeparatedMisses> {
        let own = self.rows.iter().filter(|(owner, _)| owner == tenant);
        let mut rows: Vec<SeparatedMisses> = own.map(|(_, row)| row.clone()).collect();
        rows.sort_by(|one, two| two.misses.cmp(&one.misses).then_with(|| one.members.cmp(&two.members)));
        rows.truncate(count_max);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_identity::MemberDifference;

    fn differing(path: &str) -> MemberDifferences {
        let named =
            vec![MemberDifference { path: path.to_owned(), place: Some(3), is_question: path == "q" }];
        MemberDifferences { named, is_complete: true }
    }

    #[test]
    fn misses_are_counted_by_tenant_and_members() {
        let mut summary = MissSummary::default();
        let (own, other) = (TenantId::default(), TenantId::named("acme").unwrap());
        for _ in 0..3 {
            summary.count(&own, &differing("user"));
            summary.count(&own, &differing("q"));
            summary.count(&other, &differing("seed"));
        }
        summary.count(&own, &differing("user"));
        let rows = summary.most(&own, 10);
        let expected = |path: &str, misses| SeparatedMisses {
            members: vec![path.to_owned()],
            misses,
            explains: path != "q",
        };
        assert_eq!(rows, [expected("user", 4), expected("q", 3)]);
        assert_eq!(summary.most(&other, 10), [expected("seed", 3)]);
        assert_eq!(summary.most(&own, 1).len(), 1);
    }

    #[test]
    fn the_fewest_make_room() {
        let mut summary = MissSummary::default();
        let own = TenantId::default();
        (0..2).for_each(|_| summary.count(&own, &differing("often")));
        let other = TenantId::named("acme").unwrap();
        summary.count(&other, &differing("theirs"));
        (0..2 * ROWS_MAX).for_each(|n| summary.count(&own, &differing(&format!("once{n}"))));
        assert_eq!(summary.rows.len(), ROWS_OF_TENANT_MAX + 1);
        assert_eq!(summary.most(&own, 1)[0].members, ["often"]);
        assert_eq!(summary.most(&other, 1)[0].members, ["theirs"]);
        let partial = MemberDifferences { is_complete: false, ..differing("often") };
        summary.count(&own, &partial);
        assert!(!summary.most(&own, 100).iter().all(|row| row.explains), "it differs in more than is named");
    }
}
