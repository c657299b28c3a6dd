//! Routes of upstreams that are cached because the configuration lists them.

use serde::{Deserialize, Serialize};

use crate::cache::Namespaces;
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};

/// A route of the upstream that gives equal answers to equal bodies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CachedRouteOptions {
    /// Its path, such as `/v1/moderations`. It takes `POST`; other methods are passed on.
    pub path: String,
    /// Lifetime of its answers in seconds, if the request sets none.
    pub ttl_seconds: u32,
    /// The namespace of its answers. Without it that of all answers.
    pub namespace: Option<String>,
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
        if !(1..=max).contains(&route.ttl_seconds) {
            return Err(fault(format!("ttl_seconds must be 1 to {max}, got {}", route.ttl_seconds)));
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
        CachedRouteOptions { path: path.to_owned(), ttl_seconds, namespace: None }
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
        let namespace = Some("unknown".to_owned());
        names(&[CachedRouteOptions { namespace, ..route("/v1/a", 60) }], "answers.routes[0].namespace");
    }
}
