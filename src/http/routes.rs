//! The table of routes.
//!
//! Contains: every route with what admission asks of its requests. Must not contain: a handler. The one idea: a route is added once, and
//! the router, the contract, the names of routes in metrics, the routes that need no key and the paths that are never forwarded all
//! derive from that. By default a route needs a key, and no path below its first segment is an upstream's.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;
use utoipa::openapi::{OpenApi, PathItem};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::dialects::Dialect;
use crate::http::error_shape::ErrorShape;
use crate::http::near_routes::NearRoutes;

/// What admission asks of a request before its handler is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A key, where there are keys, and a permit of `http.requests_max`.
    Client,
    /// A key. No permit: these numbers are read most when the server is full.
    Monitoring,
    /// Neither. A key that is sent is checked, and the handler learns whether there was one.
    OptionalKey,
    /// Neither.
    Public,
    /// Neither, and the request is answered beyond every limit.
    Probe,
}

impl Access {
    pub(super) fn needs_key(self) -> bool {
        matches!(self, Access::Client | Access::Monitoring)
    }

    /// Whether a key that is sent is checked.
    pub(super) fn takes_key(self) -> bool {
        self.needs_key() || self == Access::OptionalKey
    }

    pub(super) fn needs_permit(self) -> bool {
        self == Access::Client
    }

    /// Whether the bytes of answers count, so that one is refused when none are left. Those for operators are short, and are needed most
    /// then.
    pub(super) fn counts_answers(self) -> bool {
        !matches!(self, Access::Monitoring | Access::Probe)
    }
}

/// How requests are answered whose path is no route but has the first segment of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnknownPaths {
    /// By an error: such a path is a mistake, and its body and the operator's key must not be sent to an upstream.
    Refused,
    /// By an upstream.
    Forwarded,
}

/// One route.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// Its path with parameters, such as `/v1/models/{id}`: its name in metrics.
    pub(super) pattern: Arc<str>,
    pub(super) access: Access,
    /// Whether a PUT stores its body as it was sent, with its content coding.
    pub(super) stores_content_coding: bool,
    unknown_paths: UnknownPaths,
    /// Whether it stands for all paths that are forwarded.
    pub(super) is_fallback: bool,
    /// How its errors are written.
    pub(super) errors: ErrorShape,
}

impl PartialEq for Route {
    fn eq(&self, other: &Route) -> bool {
        let parts = |route: &Route| {
            (route.access, route.stores_content_coding, route.unknown_paths, route.errors.number())
        };
        self.pattern == other.pattern && parts(self) == parts(other)
    }
}

impl Route {
    /// A route that needs a key.
    fn new(pattern: &str, access: Access) -> Route {
        let pattern = pattern.into();
        let unknown_paths = UnknownPaths::Refused;
        Route {
            pattern,
            access,
            stores_content_coding: false,
            unknown_paths,
            is_fallback: false,
            errors: ErrorShape::default(),
        }
    }

    /// What holds for a path that is no route.
    pub(super) fn none() -> Route {
        Route::new("none", Access::Client)
    }

    /// The first segment of its path below `/v1`.
    fn first_segment(&self) -> Option<&str> {
        self.pattern.strip_prefix("/v1/")?.split('/').next()
    }
}

/// The routes of one feature, over its state.
pub(super) struct Routes<S> {
    router: OpenApiRouter<S>,
    routes: Vec<Route>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Routes<S> {
        Routes { router: OpenApiRouter::new(), routes: Vec::new() }
    }

    /// Adds the handlers of one path, as `routes!` lists them.
    pub(super) fn add(self, handlers: UtoipaMethodRouter<S>) -> Routes<S> {
        self.add_for(Access::Client, handlers)
    }

    /// As [`Routes::add`], for routes that need less than a key and a permit.
    pub(super) fn add_for(mut self, access: Access, handlers: UtoipaMethodRouter<S>) -> Routes<S> {
        self.routes.extend(handlers.1.paths.keys().map(|pattern| Route::new(pattern, access)));
        self.router = self.router.routes(handlers);
        self
    }

    /// Adds a path that the contract does not describe.
    pub(super) fn add_undocumented(
        mut self,
        access: Access,
        pattern: &str,
        handlers: MethodRouter<S>,
    ) -> Routes<S> {
        self.routes.push(Route::new(pattern, access));
        self.router = self.router.route(pattern, handlers);
        self
    }

    /// Declares that other paths below the same first segments are forwarded to upstreams.
    pub(super) fn forwarding_unknown_paths(mut self) -> Routes<S> {
        self.routes.iter_mut().for_each(|route| route.unknown_paths = UnknownPaths::Forwarded);
        self
    }

    /// Declares the API that clients of the routes speak: errors have its shape, and unknown paths are forwarded.
    pub(super) fn in_dialect(self, dialect: &'static dyn Dialect) -> Routes<S> {
        self.with_errors(ErrorShape::Of(dialect)).forwarding_unknown_paths()
    }

    /// Declares how errors of the routes are written.
    pub(super) fn with_errors(mut self, errors: ErrorShape) -> Routes<S> {
        self.routes.iter_mut().for_each(|route| route.errors = errors);
        self
    }

    /// Declares that a PUT stores its body as it was sent, with its content coding.
    pub(super) fn storing_content_coding(mut self) -> Routes<S> {
        self.routes.iter_mut().for_each(|route| route.stores_content_coding = true);
        self
    }
}

/// All routes.
pub(super) struct RouteTable {
    router: Router,
    contract: OpenApi,
    routes: Vec<Route>,
}

impl RouteTable {
    /// A table without routes. `contract` is the frame of the contract.
    pub(super) fn new(contract: OpenApi) -> RouteTable {
        RouteTable { router: Router::new(), contract, routes: Vec::new() }
    }

    /// Adds the routes of a feature. Without a state they are described, and not served.
    pub(super) fn add<S: Clone + Send + Sync + 'static>(&mut self, feature: Routes<S>, state: Option<&S>) {
        self.add_within(feature, state, |router| router);
    }

    /// As [`RouteTable::add`], with something around the handlers.
    pub(super) fn add_within<S: Clone + Send + Sync + 'static>(
        &mut self,
        feature: Routes<S>,
        state: Option<&S>,
        wrap: impl FnOnce(Router) -> Router,
    ) {
        let (router, contract) = feature.router.split_for_parts();
        self.contract.merge(contract);
        for route in feature.routes {
            // A path may be documented for some methods and undocumented for others.
            if !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
        if let Some(state) = state {
            let routes = wrap(router.with_state(state.clone()));
            self.router = std::mem::take(&mut self.router).merge(routes);
        }
    }

    /// Names the paths that the fallback serves.
    pub(super) fn name_fallback(&mut self, pattern: &str) {
        self.routes.push(Route {
            unknown_paths: UnknownPaths::Forwarded,
            is_fallback: true,
            ..Route::new(pattern, Access::Client)
        });
    }

    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The contract of the documented routes.
    pub(super) fn contract(&self) -> OpenApi {
        self.contract.clone()
    }

    /// Finds the route of a path.
    pub(super) fn matcher(&self) -> matchit::Router<Route> {
        let mut matcher = matchit::Router::new();
        for route in &self.routes {
            let inserted = matcher.insert(&*route.pattern, route.clone());
            inserted.expect("the router took the same patterns, each with one access: this is a bug");
        }
        matcher
    }

    /// The patterns with the methods that the contract describes.
    pub(super) fn near_routes(&self) -> NearRoutes {
        let documented = &self.contract.paths.paths;
        let mut patterns: Vec<Arc<str>> =
            self.routes.iter().map(|route| Arc::clone(&route.pattern)).collect();
        patterns.sort();
        patterns.dedup();
        NearRoutes::new(patterns.into_iter().map(|pattern| {
            let methods = documented.get(&*pattern).map(methods).unwrap_or_default();
            (pattern, methods)
        }))
    }

    /// The segments below `/v1` under which nothing is forwarded.
    pub(super) fn own_segments(&self) -> OwnSegments {
        let own = self.routes.iter().filter(|route| route.unknown_paths == UnknownPaths::Refused);
        OwnSegments(own.filter_map(Route::first_segment).map(str::to_owned).collect())
    }

    /// The router over all features that have a state.
    pub(super) fn into_router(self) -> Router {
        self.router
    }
}

fn methods(item: &PathItem) -> Vec<&'static str> {
    let operations = [
        ("GET", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    operations.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| method).collect()
}

/// First segments of paths below `/v1` that are this server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnSegments(BTreeSet<String>);

impl OwnSegments {
    pub(super) fn contains(&self, segment: &str) -> bool {
        self.0.contains(segment)
    }
}

#[cfg(test)]
impl<const N: usize> From<[&str; N]> for OwnSegments {
    fn from(segments: [&str; N]) -> OwnSegments {
        OwnSegments(segments.map(str::to_owned).into())
    }
}
