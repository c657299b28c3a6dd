//! What a request for an unknown route may have meant: the nearest route, by usual slips and by spelling.

use std::sync::Arc;

use axum::http::Method;

/// Longer paths get no suggestion, so that a suggestion costs microseconds.
const PATH_BYTES_MAX: usize = 256;
const SEGMENTS_MAX: usize = 12;

/// Beginnings that clients of other servers put before a path, or forget.
const BEGINNINGS: [&str; 6] = ["api", "openai", "v0", "v1", "v1beta", "v2"];

/// Paths by which other servers do the same.
const OTHER_NAMES: [(&str, &str); 14] = [
    ("docs", "/openapi.json"),
    ("redoc", "/openapi.json"),
    ("swagger", "/openapi.json"),
    ("openapi", "/openapi.json"),
    ("openapi.yaml", "/openapi.json"),
    ("healthcheck", "/healthz"),
    ("ping", "/healthz"),
    ("livez", "/healthz"),
    ("ready", "/readyz"),
    ("embed", "/v1/embeddings"),
    ("chat", "/v1/chat/completions"),
    ("generate", "/v1/chat/completions"),
    ("prometheus", "/metrics"),
    ("status", "/v1/stats"),
];

/// A route as suggestions name it.
#[derive(Debug)]
struct KnownRoute {
    pattern: Arc<str>,
    /// None for a route that the contract does not describe.
    methods: Vec<&'static str>,
}

impl KnownRoute {
    /// `POST /v1/embeddings`, with the method of the request if the route takes it.
    fn name(&self, method: &Method) -> String {
        let wanted = self.methods.iter().find(|name| **name == method.as_str());
        match wanted.or(self.methods.first()) {
            Some(method) => format!("{method} {}", self.pattern),
            None => self.pattern.to_string(),
        }
    }

    /// The number of letters that differ, if the path can be a slip of this route. Parameters stand for anything.
    fn distance(&self, segments: &[&str]) -> Option<usize> {
        let own = self.pattern.split('/').skip(1);
        if own.clone().count() != segments.len() {
            return None;
        }
        let differences = own.zip(segments).map(|(own, given)| {
            if own.starts_with('{') {
                return Some(0);
            }
            // Two letters, one in short words: `completions` is no slip of `collections`.
            let allowed = (own.len() / 3).clamp(1, 2);
            let distance = if own.len().abs_diff(given.len()) > allowed {
                return None;
            } else {
                strsim::damerau_levenshtein(own, given)
            };
            (distance <= allowed).then_some(distance)
        });
        differences.sum()
    }
}

/// All routes, to find the one that a request may have meant. Shared by `Arc`.
pub(super) struct NearRoutes {
    matcher: matchit::Router<usize>,
    routes: Vec<KnownRoute>,
}

impl NearRoutes {
    /// The routes with these patterns and methods.
    pub(super) fn new(routes: impl IntoIterator<Item = (Arc<str>, Vec<&'static str>)>) -> NearRoutes {
        let (mut matcher, mut known) = (matchit::Router::default(), Vec::new());
        for (pattern, methods) in routes {
            matcher.insert(&*pattern, known.len()).expect("the router took the same patterns: this is a bug");
            known.push(KnownRoute { pattern, methods });
        }
        NearRoutes { matcher, routes: known }
    }

    /// What is wrong with a request whose path no route has.
    pub(super) fn not_found(&self, method: &Method, path: &str) -> String {
        if path.len() > PATH_BYTES_MAX {
            return "there is no such route; `GET /` links to those that there are".into();
        }
        match self.nearest(method, path) {
            Some(near) => {
                format!("there is no route `{method} {path}`; did you mean `{}`?", near.name(method))
            }
            None => format!("there is no route `{method} {path}`; `GET /` links to those that there are"),
        }
    }

    /// What is wrong with a request that only an upstream could answer, where there is none.
    pub(super) fn needs_upstream(&self, method: &Method, path: &str) -> String {
        const REMEDY: &str = "start the server with --upstream URL, or set upstream.base_url";
        match self.at(path).filter(|_| path.len() <= PATH_BYTES_MAX) {
            Some(route) => format!("`{}` needs an upstream: {REMEDY}", route.name(method)),
            None => format!("{} (to pass it on, {REMEDY})", self.not_found(method, path)),
        }
    }

    /// What is wrong with a request that is not passed on, for the reason `refusal`.
    pub(super) fn not_passed_on(&self, method: &Method, path: &str, refusal: &str) -> String {
        match self.nearest(method, path).filter(|_| path.len() <= PATH_BYTES_MAX) {
            Some(near) => format!("did you mean `{}`? {refusal}", near.name(method)),
            None => refusal.to_owned(),
        }
    }

    /// What is wrong with a request whose route does not take its method.
    pub(super) fn other_method(&self, method: &Method, path: &str) -> String {
        let route = self.at(path).filter(|route| !route.methods.is_empty());
        match route {
            Some(route) => format!("`{}` takes {}, not {method}", route.pattern, route.methods.join(" and ")),
            None => "the route does not take this method".into(),
        }
    }

    fn at(&self, path: &str) -> Option<&KnownRoute> {
        self.matcher.at(path).ok().map(|found| &self.routes[*found.value])
    }

    fn nearest(&self, method: &Method, path: &str) -> Option<&KnownRoute> {
        // A route that is described and not served, for want of an upstream.
        if self.at(path).is_some() {
            return None;
        }
        let segments: Vec<&str> =
            path.split('/').filter(|segment| !segment.is_empty()).take(SEGMENTS_MAX).collect();
        let rest =
            segments.iter().position(|segment| !BEGINNINGS.contains(segment)).unwrap_or(segments.len());
        let rest = &segments[rest..];
        let below_v1 = [&["v1"], rest].concat();
        let exact = [below_v1.as_slice(), rest].map(|segments| format!("/{}", segments.join("/")));
        let taken = exact.iter().filter_map(|corrected| self.at(corrected));
        let takes = |route: &&KnownRoute| route.methods.contains(&method.as_str());
        let by_prefix = taken.clone().find(takes).or_else(|| taken.clone().next());
        by_prefix.or_else(|| self.by_other_name(rest)).or_else(|| self.by_spelling(&[&below_v1, rest]))
    }

    fn by_other_name(&self, segments: &[&str]) -> Option<&KnownRoute> {
        let [only] = segments else { return None };
        let (_, path) = OTHER_NAMES.iter().find(|(name, _)| name == only)?;
        self.at(path)
    }

    fn by_spelling(&self, readings: &[&[&str]]) -> Option<&KnownRoute> {
        let distances = self.routes.iter().flat_map(|route| {
            readings.iter().filter_map(move |segments| Some((route.distance(segments)?, route)))
        });
        distances
            .filter(|(distance, _)| *distance > 0)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, route)| route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> NearRoutes {
        let routes: [(&str, &[&'static str]); 9] = [
            ("/", &["GET"]),
            ("/healthz", &["GET"]),
            ("/openapi.json", &[]),
            ("/v1/embeddings", &["POST"]),
            ("/v1/chat/completions", &["POST"]),
            ("/v1/models", &["GET"]),
            ("/v1/models/{id}", &["GET"]),
            ("/v1/cache/{namespace}/{*key}", &["GET", "PUT", "DELETE"]),
            ("/v1/collections/{name}/documents", &["GET", "POST"]),
        ];
        NearRoutes::new(routes.map(|(pattern, methods)| (pattern.into(), methods.to_vec())))
    }

    #[test]
    fn usual_slips_lead_to_the_route() {
        let routes = routes();
        for (method, path, near) in [
            ("POST", "/embeddings", "POST /v1/embeddings"),
            ("GET", "/embeddings", "POST /v1/embeddings"),
            ("POST", "/v1/v1/embeddings", "POST /v1/embeddings"),
            ("POST", "/api/v1/embeddings", "POST /v1/embeddings"),
            ("POST", "/api/embeddings", "POST /v1/embeddings"),
            ("POST", "//v1//embeddings", "POST /v1/embeddings"),
            ("POST", "/v1/embedding", "POST /v1/embeddings"),
            ("POST", "/v1/chat/completion", "POST /v1/chat/completions"),
            ("POST", "/chat/completions", "POST /v1/chat/completions"),
            ("POST", "/v1/chat/completoins", "POST /v1/chat/completions"),
            ("PUT", "/cache/products/42", "PUT /v1/cache/{namespace}/{*key}"),
            ("GET", "/v2/models", "GET /v1/models"),
            ("GET", "/model", "GET /v1/models"),
            ("GET", "/v1/collection/a/documents", "GET /v1/collections/{name}/documents"),
            ("GET", "/v1/healthz", "GET /healthz"),
            ("GET", "/v1/docs", "/openapi.json"),
            ("GET", "/swagger", "/openapi.json"),
            ("POST", "/embed", "POST /v1/embeddings"),
            ("GET", "/v1", "GET /"),
        ] {
            let said = routes.not_found(&method.parse().unwrap(), path);
            assert_eq!(said, format!("there is no route `{method} {path}`; did you mean `{near}`?"));
        }
    }

    #[test]
    fn what_is_near_nothing_leads_to_the_first_page_at_little_cost() {
        let routes = routes();
        for path in ["/favicon.ico", "/wp-login.php", "/v1/files/f-1/content", "/v1/fine_tuning/jobs"] {
            let said = routes.not_found(&Method::GET, path);
            assert!(said.ends_with("`GET /` links to those that there are") && said.contains(path), "{said}");
        }
        let long = format!("/{}", "v1/".repeat(100_000));
        assert!(!routes.not_found(&Method::GET, &long).contains("v1/v1"));
    }

    #[test]
    fn a_route_of_upstreams_says_what_it_needs() {
        let routes = routes();
        let said = routes.needs_upstream(&Method::POST, "/v1/chat/completions");
        assert!(said.starts_with("`POST /v1/chat/completions` needs an upstream: start"), "{said}");
        let said = routes.needs_upstream(&Method::POST, "/v1/embedings");
        assert!(said.contains("did you mean `POST /v1/embeddings`? (to pass it on, start"), "{said}");
        let said = routes.not_passed_on(&Method::POST, "/v1/embedings", "it is refused");
        assert_eq!(said, "did you mean `POST /v1/embeddings`? it is refused");
        assert_eq!(routes.not_passed_on(&Method::GET, "/v1/files", "it is refused"), "it is refused");
        let long = format!("/v1/{}", "a".repeat(100_000));
        assert!(routes.needs_upstream(&Method::POST, &long).len() < 300);
    }

    #[test]
    fn another_method_is_answered_with_those_that_the_route_takes() {
        let routes = routes();
        let said = routes.other_method(&Method::GET, "/v1/embeddings");
        assert_eq!(said, "`/v1/embeddings` takes POST, not GET");
        let said = routes.other_method(&Method::PATCH, "/v1/cache/n/k");
        assert_eq!(said, "`/v1/cache/{namespace}/{*key}` takes GET and PUT and DELETE, not PATCH");
        assert_eq!(routes.other_method(&Method::PUT, "/openapi.json"), "the route does not take this method");
    }
}
