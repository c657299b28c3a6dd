//! The member of a JSON body that is for this server, in a request that is passed on.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::directives::CacheObject;
use super::json::{object, parse};
use crate::error::{Error, Kind, Result};

#[derive(Deserialize)]
struct CacheMember {
    #[serde(default, deserialize_with = "object")]
    cache: Option<CacheObject>,
}

/// The same, of any kind. Few bodies have one, and those of the others are not taken apart.
#[derive(Deserialize)]
struct MaybeCacheMember<'a> {
    #[serde(borrow)]
    cache: Option<&'a RawValue>,
}

/// The body without its cache directives, for a server that does not know them.
///
/// # Errors
/// `InvalidInput` if they are none; `NotCached` if only a cached value was acceptable.
pub(in crate::http) fn without_cache_member(headers: &HeaderMap, body: Bytes) -> Result<Bytes> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(body);
    }
    if !parse::<MaybeCacheMember<'_>>(&body).is_ok_and(|member| member.cache.is_some()) {
        return Ok(body);
    }
    if parse::<CacheMember>(&body)?.cache.is_some_and(|cache| cache.only_if_cached) {
        return Err(Error::new(Kind::NotCached, "nothing of such requests is cached"));
    }
    let mut members: BTreeMap<String, &RawValue> = parse(&body)?;
    members.remove("cache");
    let fault = |error| Error::new(Kind::Internal, "cannot write a request for an upstream").source(error);
    serde_json::to_vec(&members).map(Bytes::from).map_err(fault)
}
