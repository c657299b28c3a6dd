//! Directives to the cache, in the body and the headers of a request.

use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use super::headers::{self, number};
use super::json::{lifetime_seconds, null_is_default};
use super::{cache_control, other_caches};
use crate::domain::Tag;
use crate::error::{Error, Result};
use crate::service::Directives;

/// The cache directives of a request.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::http) struct CacheObject {
    /// Lifetime of what is stored, in seconds.
    #[schema(minimum = 1)]
    pub(in crate::http) ttl: Option<u32>,
    /// Oldest acceptable age of a cached value, in seconds.
    #[serde(alias = "s-max-age")]
    pub(in crate::http) s_maxage: Option<u32>,
    /// Skip the lookup; compute the value and store it.
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::http) no_cache: bool,
    /// Do not store the value.
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::http) no_store: bool,
    /// Respond from the cache, else with 504.
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::http) only_if_cached: bool,
    /// `false` is `no-cache` and `no-store`; `true` says nothing new.
    pub(in crate::http) use_cache: Option<bool>,
    /// Entries of different namespaces are different entries.
    pub(in crate::http) namespace: Option<String>,
}

impl CacheObject {
    /// The directives of body and headers together; where both set a limit, the stricter holds.
    ///
    /// # Errors
    /// `InvalidInput`, as [`cache_control::apply`].
    pub(in crate::http) fn with_headers(self, headers: &HeaderMap) -> Result<Directives> {
        let is_off = self.use_cache == Some(false);
        let mut directives = Directives {
            no_cache: self.no_cache || is_off,
            no_store: self.no_store || is_off,
            only_if_cached: self.only_if_cached,
            age_seconds_max: self.s_maxage,
            ttl_seconds: self.ttl,
            namespace: self.namespace,
            ..Directives::default()
        };
        cache_control::apply(headers, &mut directives)?;
        other_caches::apply(headers, &mut directives)?;
        Ok(directives)
    }
}

/// The cache directives of a request for an answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::http) struct AnswerCacheObject {
    /// Lifetime of what is stored, in seconds.
    #[schema(minimum = 1)]
    #[serde(deserialize_with = "lifetime_seconds")]
    ttl: Option<u32>,
    /// Oldest acceptable age of a cached answer, in seconds.
    #[serde(alias = "s-max-age")]
    s_maxage: Option<u32>,
    /// Skip the lookup; generate the answer and store it.
    #[serde(deserialize_with = "null_is_default")]
    no_cache: bool,
    /// Do not store the value.
    #[serde(deserialize_with = "null_is_default")]
    no_store: bool,
    /// Respond from the cache, else with 504.
    #[serde(deserialize_with = "null_is_default")]
    only_if_cached: bool,
    /// `false` is `no-cache` and `no-store`; `true` says nothing new.
    use_cache: Option<bool>,
    /// Answers of different namespaces are different answers.
    namespace: Option<String>,
    /// The tags of the answer.
    #[serde(deserialize_with = "null_is_default")]
    tags: Vec<String>,
    /// Whether the question is answered in other words too. If absent, its namespace decides.
    semantic: Option<bool>,
    /// Whether an answer that calls tools is stored and served from the cache. If absent, its route decides, else its namespace.
    #[serde(rename = "tool_calls")]
    tool_calls: Option<bool>,
    /// Whether an answer that ended at the limit of tokens is stored and served from the cache. If absent, its route decides, else its namespace.
    truncated: Option<bool>,
}

impl AnswerCacheObject {
    /// The directives of a route that has fields of its own for them.
    pub(in crate::http) fn of(
        tags: Vec<String>,
        ttl: Option<u32>,
        namespace: Option<String>,
        semantic: Option<bool>,
    ) -> AnswerCacheObject {
        AnswerCacheObject { ttl, namespace, tags, semantic, ..AnswerCacheObject::default() }
    }

    /// The directives and tags of body and headers together; where both set a limit, the stricter holds. `tags_param` names the body's
    /// tags.
    ///
    /// # Errors
    /// `InvalidInput` naming the field or the header.
    pub(in crate::http) fn with_headers(
        self,
        headers: &HeaderMap,
        tags_param: &'static str,
    ) -> Result<(Directives, Vec<Tag>)> {
        let named = |name: &String| Tag::named(name).ok_or_else(|| Error::invalid(tags_param, Tag::RULE));
        let mut tags: Vec<Tag> = self.tags.iter().map(named).collect::<Result<_>>()?;
        tags.extend(headers::tags(headers)?);
        // Within the contract also where the body has a shorter one.
        let asked = number::<i32>(headers, "x-cache-ttl")?.map(i32::unsigned_abs);
        let is_off = self.use_cache == Some(false);
        let mut directives = Directives {
            no_cache: self.no_cache || is_off,
            no_store: self.no_store || is_off,
            only_if_cached: self.only_if_cached,
            age_seconds_max: self.s_maxage,
            ttl_seconds: match (self.ttl, asked) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            },
            namespace: self.namespace,
            cache_key: headers::cache_key(headers, "x-cache-key")?,
            semantic: match (self.semantic, headers::flag(headers, "x-cache-semantic")?) {
                (Some(one), Some(two)) => Some(one && two),
                (one, two) => one.or(two),
            },
            tool_calls: self.tool_calls,
            truncated: self.truncated,
            ..Directives::default()
        };
        cache_control::apply(headers, &mut directives)?;
        other_caches::apply(headers, &mut directives)?;
        Ok((directives, tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::extract::json::parse;
    use axum::http::{HeaderValue, header};

    #[test]
    fn cache_control_and_the_cache_object_add_up() {
        let mut headers = HeaderMap::new();
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store, max-age=60"));
        let object = CacheObject { s_maxage: Some(70), no_cache: true, ..CacheObject::default() };
        let directives = object.with_headers(&headers).unwrap();
        assert!(directives.no_store && directives.no_cache);
        assert_eq!(directives.age_seconds_max, Some(60));
    }

    #[test]
    fn a_null_of_the_cache_object_is_the_default() {
        let body = br#"{"ttl":null,"s-maxage":null,"no-cache":null,"no-store":null,"only-if-cached":null,
            "namespace":null,"tags":null}"#;
        let (directives, tags) =
            parse::<AnswerCacheObject>(body).unwrap().with_headers(&HeaderMap::new(), "cache.tags").unwrap();
        assert!(directives == Directives::default() && tags.is_empty());
    }

    #[test]
    fn what_clients_of_litellm_send_is_read() {
        let read = |body: &str| {
            let object = parse::<AnswerCacheObject>(body.as_bytes()).unwrap();
            object.with_headers(&HeaderMap::new(), "cache.tags").unwrap().0
        };
        let all = read(
            r#"{"ttl":60,"s-maxage":5,"no-cache":true,"no-store":false,"namespace":"n","use-cache":true}"#,
        );
        assert_eq!((all.ttl_seconds, all.age_seconds_max, all.no_cache), (Some(60), Some(5), true));
        assert!(!all.no_store && all.namespace.as_deref() == Some("n"));
        assert_eq!(read(r#"{"s-max-age":7}"#).age_seconds_max, Some(7));
        let off = read(r#"{"use-cache":false}"#);
        assert!(off.no_cache && off.no_store);
        let off = parse::<CacheObject>(br#"{"use-cache":false}"#).unwrap().with_headers(&HeaderMap::new());
        assert!(off.is_ok_and(|off| off.no_cache && off.no_store));
    }

    #[test]
    fn body_and_headers_add_up_and_the_stricter_holds() {
        let mut headers = HeaderMap::new();
        headers.insert("x-cache-ttl", HeaderValue::from(60));
        headers.insert("x-cache-tags", HeaderValue::from_static("b, c"));
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        headers.insert("x-cache-semantic", HeaderValue::from_static("false"));
        let object = AnswerCacheObject {
            ttl: Some(90),
            tags: vec!["a".into()],
            semantic: Some(true),
            ..AnswerCacheObject::default()
        };
        let (directives, tags) = object.with_headers(&headers, "cache.tags").unwrap();
        assert_eq!((directives.ttl_seconds, directives.no_store), (Some(60), true));
        assert_eq!(directives.semantic, Some(false));
        assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn each_lifetime_is_within_the_contract_also_the_one_that_does_not_hold() {
        let asked = |ttl: &str, header: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-cache-ttl", HeaderValue::from_static(header));
            let object = parse::<AnswerCacheObject>(format!("{{\"ttl\":{ttl}}}").as_bytes())?;
            Ok::<_, Error>(object.with_headers(&headers, "cache.tags")?.0.ttl_seconds)
        };
        assert_eq!(asked("1", "2147483647").unwrap(), Some(1));
        assert_eq!(asked("null", "2").unwrap(), Some(2));
        let param = |ttl, header| asked(ttl, header).unwrap_err().param_name().map(str::to_owned);
        assert_eq!(param("1", "2147483648").as_deref(), Some("x-cache-ttl"));
        for ttl in ["2147483648", "-1", "1.5", "\"1\""] {
            assert_eq!(param(ttl, "1").as_deref(), Some("ttl"), "{ttl}");
        }
    }
}
