//! Plain values that every module uses: keys, fingerprints, embeddings, entries, tenants, time.
//!
//! No I/O, no serialization, no locks. What is written to a disk or a wire is encoded by the module that writes it; only the
//! words of closed lists serialize by themselves.

mod clock;
mod credential;
mod embedding;
mod entry;
mod entry_names;
mod key;
mod lookup_outcome;
mod namespace_id;
mod principal;
mod tag;
mod tier_name;
mod token_usage;

pub use clock::{CLOCK_STEP_SECONDS_MAX, Clock, ManualClock, SystemClock, UnixSeconds};
pub use credential::{Credential, KeyHeader, is_credential};
pub use embedding::{Embedding, InputType, is_usable};
pub use entry::{Codec, ContentCoding, Entry, EntryMeta};
pub use entry_names::EntryNames;
pub use key::{ByPrefix, Fingerprint, Key, KeyHasher};
pub use lookup_outcome::LookupOutcome;
pub use namespace_id::NamespaceId;
pub use principal::{KeyId, Principal, TenantId};
pub use tag::{InvalidationId, Tag, TagToken};
pub use tier_name::TierName;
pub use token_usage::{TokenUsage, UsageDetails};
