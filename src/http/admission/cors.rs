//! Pages of other origins, if the operator lists them (Fetch, section 3.3: the CORS protocol).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;

use crate::error::{Error, Kind, Result};

/// What a page may ask.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH");
/// What a page may read of an answer beside its body.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "age, cache-status, content-encoding, etag, retry-after, server-timing, x-cache-lease, x-cache-lease-seconds, \
     x-likewise-answer-id, x-likewise-coalesced, x-likewise-cost-saved-usd, x-likewise-documents, x-likewise-hits, \
     x-likewise-misses, x-likewise-reason, x-likewise-semantic, x-likewise-tokens-saved, x-likewise-truncated, \
     x-likewise-version, x-request-id, x-should-retry",
);
/// How long a browser may remember what it was allowed.
const MAX_AGE_SECONDS: u32 = 600;
/// Private Network Access: a page of the internet asks a server of a private network.
const REQUEST_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");
/// What an answer to a preflight depends on.
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers, access-control-request-private-network",
);

/// The origins of `http.cors`.
#[derive(Debug)]
pub(in crate::http) struct Cors {
    origins: Vec<HeaderValue>,
    is_any: bool,
}

impl Cors {
    /// # Errors
    /// `Config` for what is no origin.
    pub(in crate::http) fn new(origins: &[String]) -> Result<Cors> {
        let is_any = origins.iter().any(|origin| origin == "*");
        let listed = origins.iter().filter(|origin| *origin != "*");
        let read = |origin: &String| {
            let lower = origin.to_ascii_lowercase();
            let is_origin = lower.split_once("://").is_some_and(|(scheme, rest)| {
                let is_of_rest = |byte: u8| byte.is_ascii_graphic() && !b"/?#@*,".contains(&byte);
                !scheme.is_empty() && !rest.is_empty() && rest.bytes().all(is_of_rest)
            });
            let value = HeaderValue::try_from(lower).ok().filter(|_| is_origin);
            value.ok_or_else(|| {
                let message = format!(
                    "http.cors lists origins, such as https://app.example or http://localhost:3000, or `*`, got {origin:?}"
                );
                Error::new(Kind::Config, message)
            })
        };
        Ok(Cors { origins: listed.map(read).collect::<Result<_>>()?, is_any })
    }

    /// The origin of a request, if its pages may ask; none if a request comes from no page.
    pub(in crate::http) fn origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none())?;
        (self.is_any || self.origins.contains(origin)).then_some(origin)
    }

    /// The `access-control-allow-origin` of the response to a request. Cost without an origin: one look for a header.
    pub(in crate::http) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = self.origin(headers)?;
        Some(if self.is_any { HeaderValue::from_static("*") } else { origin.clone() })
    }

    /// The answer to a preflight, which carries no key; none if the request is none.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Result<Response>> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return None;
        }
        if self.origin(headers).is_none() {
            let message = "pages of this origin may not ask: list it in http.cors";
            return Some(Err(Error::new(Kind::Forbidden, message)));
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let allowed = response.headers_mut();
        allowed.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            allowed.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        if headers.get(REQUEST_PRIVATE).is_some_and(|asked| asked == "true") {
            allowed.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
        }
        allowed.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_SECONDS));
        allowed.insert(header::VARY, PREFLIGHT_VARY);
        Some(Ok(response))
    }

    /// Adds to a response which origin may read it: `allowed`, of [`Cors::allowed`].
    pub(in crate::http) fn describe(&self, allowed: Option<HeaderValue>, headers: &mut HeaderMap) {
        if !self.is_any && !self.origins.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(allowed) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(&origins.iter().map(|&origin| origin.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn allowed(cors: &Cors, origins: &[&'static str]) -> Option<HeaderValue> {
        let lines = origins.iter().map(|origin| (header::ORIGIN, HeaderValue::from_static(origin)));
        cors.allowed(&HeaderMap::from_iter(lines))
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        let listed = cors(&["https://App.example", "http://localhost:3000", "tauri://localhost"]);
        for origin in ["https://app.example", "http://localhost:3000", "tauri://localhost"] {
            assert_eq!(allowed(&listed, &[origin]).unwrap(), origin);
        }
        for origin in [
            "null",
            "http://app.example",
            "https://app.example.evil.example",
            "https://app.example:8443",
            "http://localhost",
            "https://evil.example",
            "",
        ] {
            assert_eq!(allowed(&listed, &[origin]), None, "{origin}");
        }
        assert_eq!(allowed(&listed, &["https://app.example", "https://evil.example"]), None);
        assert_eq!(allowed(&listed, &[]), None);
        assert_eq!(allowed(&cors(&[]), &["https://app.example"]), None);
        assert_eq!(allowed(&cors(&["*"]), &["https://any.example"]).unwrap(), "*");
    }

    #[test]
    fn what_is_no_origin_is_refused_at_the_start() {
        for origin in [
            "null",
            "app.example",
            "https://app.example/",
            "https://*.example",
            "https://",
            "",
            "://a",
            "https://a b",
        ] {
            let error = Cors::new(&[origin.to_owned()]).unwrap_err();
            assert!(error.message().contains("http.cors"), "{origin}: {error}");
        }
    }
}
