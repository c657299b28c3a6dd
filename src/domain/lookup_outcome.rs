//! The outcome of a lookup.

use crate::labels::label_enum;

label_enum! {
    /// The outcome of a lookup in the cache.
    pub enum LookupOutcome {
        /// A fresh value was found.
        Hit = "hit",
        /// A stale value was found and served.
        Stale = "stale",
        /// No value was found.
        Miss = "miss",
        /// The request joined work in flight for another request.
        Coalesced = "coalesced",
        /// The cache was bypassed.
        Bypass = "bypass",
    }
}
