//! Directives to the cache in the bodies of requests.

use serde::Deserialize;
use utoipa::ToSchema;

use super::json::null_is_default;

/// What a request says about the cache.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::http) struct CacheObject {
    /// Lifetime of what is stored, in seconds.
    pub(in crate::http) ttl: Option<u32>,
    /// Oldest acceptable age of a cached value, in seconds.
    pub(in crate::http) s_maxage: Option<u32>,
    /// Skip the read; make the value again and store it.
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::http) no_cache: bool,
    /// Skip the write.
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::http) no_store: bool,
    /// Answer from the cache, or with 504.
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::http) only_if_cached: bool,
    /// Entries of different namespaces are different entries.
    pub(in crate::http) namespace: Option<String>,
}
