//! What must hold of a stored object before it is served or changed (RFC 9110 section 13).

use crate::cache::{Found, Verdict};
use crate::error::{Error, Kind, Result};

/// The entity tags of a condition, as validators. A tag that this server never made is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validators {
    /// `*`: any object.
    Any,
    /// One of these; none of them is no object's.
    OneOf(Vec<u128>),
}

impl Validators {
    fn contains(&self, validator: u128) -> bool {
        match self {
            Validators::Any => true,
            Validators::OneOf(validators) => validators.contains(&validator),
        }
    }
}

/// The conditions of a request. Both must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// There is an object, and it is one of these (`If-Match`).
    pub matches: Option<Validators>,
    /// There is no object, or it is none of these (`If-None-Match`).
    pub matches_none: Option<Validators>,
}

impl Condition {
    /// Whether the request sets none.
    pub fn is_none(&self) -> bool {
        self.matches.is_none() && self.matches_none.is_none()
    }

    /// Whether `If-Match` holds of what was found.
    ///
    /// # Errors
    /// `PreconditionFailed` if it does not.
    pub fn check_match(&self, found: Option<&Found>) -> Result<()> {
        let current = found.and_then(validator_of);
        let holds = |validators: &Validators| current.is_some_and(|current| validators.contains(current));
        if self.matches.as_ref().is_none_or(holds) { Ok(()) } else { Err(failed()) }
    }

    /// Whether `If-None-Match` holds of what was found.
    pub fn is_none_matched(&self, found: Option<&Found>) -> bool {
        let current = found.and_then(validator_of);
        let holds = |validators: &Validators| current.is_none_or(|current| !validators.contains(current));
        self.matches_none.as_ref().is_none_or(holds)
    }

    /// Whether a change may be made in the place of what was found.
    ///
    /// # Errors
    /// `PreconditionFailed` if not.
    pub fn check(&self, found: Option<&Found>) -> Result<()> {
        self.check_match(found)?;
        if self.is_none_matched(found) { Ok(()) } else { Err(failed()) }
    }
}

/// Whether an object is there. One whose life has ended is not, also where it may still stand in for an origin that
/// fails.
pub(super) fn is_present(found: &Found) -> bool {
    match found.verdict {
        Verdict::Fresh | Verdict::Stale | Verdict::Unverified => true,
        Verdict::Expired | Verdict::Gone => false,
    }
}

fn validator_of(found: &Found) -> Option<u128> {
    is_present(found).then_some(found.entry.meta.validator)
}

fn failed() -> Error {
    Error::new(Kind::PreconditionFailed, "the stored object is not as the request demands")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::TierName;
    use crate::domain::{Codec, Entry, EntryMeta, UnixSeconds};

    fn found(verdict: Verdict) -> Found {
        let meta = EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds(1));
        let entry = Arc::new(Entry { meta: EntryMeta { validator: 7, ..meta }, value: Arc::default() });
        Found { entry, tier: TierName::Memory, verdict }
    }

    fn holds(matches: Option<Validators>, matches_none: Option<Validators>, found: Option<Found>) -> bool {
        Condition { matches, matches_none }.check(found.as_ref()).is_ok()
    }

    #[test]
    fn conditions_speak_of_what_is_there_and_what_has_ended_is_not() {
        use Validators::{Any, OneOf};
        let (own, other) = (|| Some(OneOf(vec![3, 7])), || Some(OneOf(vec![3])));
        for there in [Verdict::Fresh, Verdict::Stale] {
            assert!(holds(Some(Any), None, Some(found(there))) && holds(own(), None, Some(found(there))));
            assert!(!holds(other(), None, Some(found(there))));
            assert!(!holds(None, Some(Any), Some(found(there))) && !holds(None, own(), Some(found(there))));
            assert!(holds(None, other(), Some(found(there))));
            assert!(holds(own(), other(), Some(found(there))), "both hold");
            assert!(!holds(own(), own(), Some(found(there))), "one does not");
        }
        for absent in [None, Some(found(Verdict::Expired))] {
            assert!(!holds(Some(Any), None, absent.clone()) && !holds(own(), None, absent.clone()));
            assert!(holds(None, Some(Any), absent.clone()) && holds(None, own(), absent));
        }
        assert!(Condition::default().is_none() && holds(None, None, None));
    }
}
