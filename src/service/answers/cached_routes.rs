//! What the configuration says of routes: those of upstreams that are cached because it lists them, and defaults for those of a dialect.

use serde::{Deserialize, Serialize};

use crate::cache::Namespaces;
use crate::dialects::{HostedFeature, HostedFeatures, of_path};
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use crate::service::Directives;

/// A route of the upstream that gives equal answers to equal bodies, or a route of a dialect with defaults of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CachedRouteOptions {
    /// Its path, such as `/v1/moderations`. It takes `POST`; other methods are passed on.
    pub path: String,
    /// Lifetime of its answers in seconds, if the request sets none. A route of a dialect may leave it to the namespace.
    pub ttl_seconds: Option<u32>,
    /// The namespace of its answers, if the request names none. Without it that of all answers.
    pub namespace: Option<String>,
    /// Whether answers that call tools are stored and served, if the request does not say. Of routes of a dialect only.
    pub cache_tool_calls: Option<bool>,
    /// Whether answers that ended at the limit of tokens are stored and served, if the request does not say. Of routes of a dialect only.
    pub cache_truncated: Option<bool>,
    /// The features whose answers are stored and served, instead of `answers.cached_features`. Of routes of a dialect only.
    pub cached_features: Option<Vec<HostedFeature>>,
}

impl CachedRouteOptions {
    /// Directives that say what a request leaves open.
    pub fn complete(&self, directives: Directives) -> Directives {
        Directives {
            namespace: directives.namespace.or_else(|| self.namespace.clone()),
            tool_calls: directives.tool_calls.or(self.cache_tool_calls),
            truncated: directives.truncated.or(self.cache_truncated),
            ..directives
        }
    }

    /// The features whose answers are stored and served. `None` if it says nothing of them.
    pub fn hosted_features(&self) -> Option<HostedFeatures> {
        self.cached_features.as_ref().map(|features| features.iter().copied().collect())
    }
}

/// Checks the routes of the configuration.
///
/// # Errors
/// `Config`, naming the key.
pub fn check_cached_routes(routes: &[CachedRouteOptions], namespaces: &Namespaces) -> Result<()> {
    for (place, route) in routes.iter().enumerate() {
        let fault = |what: String| Error::new(Kind::Config, format!("answers.routes[{place}].{what}"));
        if !is_plain_path(&route.path) {
            return Err(fault(format!(
                "path must be a path below /v1 without query and fragment, such as `/v1/moderations`, of letters, digits and -._~, \
                 got `{}`",
                route.path
            )));
        }
        if routes[..place].iter().any(|other| other.path == route.path) {
            return Err(fault(format!("path is a second entry for `{}`", route.path)));
        }
        let namespace = namespaces
            .of_answers(&TenantId::default(), route.namespace.as_deref())
            .map_err(|error| fault("namespace cannot be used".into()).source(error))?;
        let max = namespace.policy.ttl_seconds_max;
        if let Some(ttl) = route.ttl_seconds.filter(|ttl| !(1..=max).contains(ttl)) {
            return Err(fault(format!("ttl_seconds must be 1 to {max}, got {ttl}")));
        }
        if let Some(dialect) = of_path(&route.path) {
            if route.cached_features.is_some() && !dialect.has_hosted_features() {
                return Err(fault("cached_features is of the routes of responses and messages".into()));
            }
            continue;
        }
        if route.ttl_seconds.is_none() {
            return Err(fault(format!("ttl_seconds must be set, 1 to {max}")));
        }
        let of_dialects = [
            ("cache_tool_calls", route.cache_tool_calls.is_some()),
            ("cache_truncated", route.cache_truncated.is_some()),
            ("cached_features", route.cached_features.is_some()),
        ];
        if let Some((key, _)) = of_dialects.iter().find(|(_, is_set)| *is_set) {
            return Err(fault(format!(
                "{key} is of the routes of chat completions, completions, responses and messages"
            )));
        }
    }
    Ok(())
}

/// Whether every reader takes the path for the same: nothing is encoded, and nothing stands for another path.
fn is_plain_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
    path.strip_prefix("/v1/").is_some_and(|rest| rest.split('/').all(is_segment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::PolicyOptions;

    fn route(path: &str, ttl_seconds: u32) -> CachedRouteOptions {
        CachedRouteOptions {
            path: path.to_owned(),
            ttl_seconds: Some(ttl_seconds),
            ..CachedRouteOptions::default()
        }
    }

    fn check(routes: &[CachedRouteOptions]) -> Result<(), String> {
        let namespaces = Namespaces::new(&PolicyOptions::built_in(), false).unwrap();
        check_cached_routes(routes, &namespaces).map_err(|error| error.to_string())
    }

    #[test]
    fn a_route_that_cannot_be_served_names_its_key() {
        assert_eq!(check(&[route("/v1/moderations", 60), route("/v1/audio/transcriptions", 60)]), Ok(()));
        let names = |routes: &[CachedRouteOptions], key: &str| {
            let message = check(routes).unwrap_err();
            assert!(message.contains(key), "{message} does not name {key}");
        };
        for path in [
            "",
            "v1/moderations",
            "/moderations",
            "/v1/",
            "/v1/a/",
            "/v1/a//b",
            "/v1/../a",
            "/v1/a?b=c",
            "/v1/a#b",
            "/v1/{a}",
            "/v1/*a",
            "/v1/:a",
            "/v1/%61",
            "/v1/a b",
        ] {
            names(&[route(path, 60)], "answers.routes[0].path");
        }
        let twice = [route("/v1/a", 60), route("/v1/b", 60), route("/v1/a", 90)];
        names(&twice, "answers.routes[2].path is a second entry for `/v1/a`");
        names(&[route("/v1/a", 0)], "answers.routes[0].ttl_seconds must be 1 to");
        names(&[route("/v1/a", u32::MAX)], "answers.routes[0].ttl_seconds");
        let lasting = |path: &str| CachedRouteOptions { ttl_seconds: None, ..route(path, 1) };
        let with_calls = |route| CachedRouteOptions { cache_tool_calls: Some(true), ..route };
        names(&[lasting("/v1/a")], "answers.routes[0].ttl_seconds must be set");
        names(&[with_calls(route("/v1/a", 60))], "answers.routes[0].cache_tool_calls is of the routes of");
        assert_eq!(check(&[with_calls(lasting("/v1/responses"))]), Ok(()));
        let with_features = |route| CachedRouteOptions { cached_features: Some(vec![]), ..route };
        names(&[with_features(route("/v1/a", 60))], "answers.routes[0].cached_features is of the routes of");
        names(
            &[with_features(lasting("/v1/completions"))],
            "answers.routes[0].cached_features is of the routes of",
        );
        assert_eq!(check(&[with_features(lasting("/v1/messages"))]), Ok(()));
        let namespace = Some("unknown".to_owned());
        names(&[CachedRouteOptions { namespace, ..route("/v1/a", 60) }], "answers.routes[0].namespace");
    }
}
