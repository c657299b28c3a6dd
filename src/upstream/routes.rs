//! Which upstream answers which model.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::base_url;
use super::options::{KeyHeaderName, Options, config, names};
use crate::domain::KeyHeader;
use crate::error::{Error, Kind, Result};

const EXAMPLE: &str =
    "give the address of the API with its version, such as --upstream https://api.openai.com/v1";

/// The variable that OpenAI's own clients read.
const KEY_ENV: &str = "OPENAI_API_KEY";

/// All routes.
#[derive(Debug)]
pub(super) struct UpstreamRoutes(Vec<Arc<UpstreamRoute>>);

/// An upstream for some models.
#[derive(Debug)]
pub(super) struct UpstreamRoute {
    models: Vec<String>,
    /// At least one, none with a slash at its end.
    pub(super) base_urls: Vec<String>,
    /// What the route is called in fingerprints.
    pub(super) name: Arc<str>,
    pub(super) key: RouteCredential,
    /// The header of the key. `None` for that of the API that is called.
    pub(super) key_header: Option<KeyHeader>,
    /// Whether it listed its models when it was asked last.
    pub(super) lists_models: AtomicBool,
    /// When its last failure was logged, in milliseconds since the route was made.
    warned_ms: AtomicU64,
    made: Instant,
}

/// The credential of the calls of a route.
pub(super) enum RouteCredential {
    /// None.
    None,
    /// The operator's key.
    Operators(Box<str>),
    /// The credential of the client.
    Clients,
}

impl RouteCredential {
    /// The operator's key.
    pub(super) fn secret(&self) -> Option<&str> {
        match self {
            RouteCredential::Operators(key) => Some(&**key).filter(|key| !key.is_empty()),
            RouteCredential::None | RouteCredential::Clients => None,
        }
    }
}

impl fmt::Debug for RouteCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteCredential::None => "none",
            RouteCredential::Operators(_) => "***",
            RouteCredential::Clients => "the client's",
        })
    }
}

impl UpstreamRoutes {
    /// The routes of the options, that of every other model last.
    ///
    /// # Errors
    /// `Config`, naming the key, for what is no address and for a key that is named but not set.
    pub(super) fn new(options: &Options) -> Result<UpstreamRoutes> {
        let mut routes = Vec::new();
        for (place, route) in options.routes.iter().enumerate() {
            let at = format!("routes[{place}]");
            if route.models.is_empty() || route.base_urls.is_empty() {
                return Err(config(&format!("{at} needs models and base_urls")));
            }
            check_names(&format!("{at}.models"), &route.models)?;
            let key = key(&at, route.forward_client_key, route.api_key_env.as_deref())?;
            let key_header = key_header(&at, route.key_header, &key)?;
            let models = route.models.clone();
            routes.push(Arc::new(UpstreamRoute::new(&at, models, &route.base_urls, key, key_header)?));
        }
        if let Some(base_url) = &options.base_url {
            let named = options.api_key_env.as_deref();
            let by_default =
                named.is_none() && !options.forward_client_key && std::env::var_os(KEY_ENV).is_some();
            let key = key(
                "api_key_env",
                options.forward_client_key,
                if by_default { Some(KEY_ENV) } else { named },
            )?;
            let key_header = key_header("key_header", options.key_header, &key)?;
            let (models, base_urls) = (vec!["*".into()], std::slice::from_ref(base_url));
            routes.push(Arc::new(UpstreamRoute::new("base_url", models, base_urls, key, key_header)?));
        }
        Ok(UpstreamRoutes(routes))
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<UpstreamRoute>> {
        self.0.iter()
    }

    /// The route of a model.
    ///
    /// # Errors
    /// `ModelNotFound`.
    pub(super) fn of_model(&self, model: &str) -> Result<&Arc<UpstreamRoute>> {
        let route = self.0.iter().find(|route| route.models.iter().any(|pattern| names(pattern, model)));
        route.ok_or_else(|| {
            Error::new(Kind::ModelNotFound, format!("no upstream answers the model `{model}`")).param("model")
        })
    }

    /// The route of requests that name no model: that of every model, or else the first.
    pub(super) fn of_none(&self) -> Option<&Arc<UpstreamRoute>> {
        self.0.iter().find(|route| route.models.iter().any(|pattern| pattern == "*")).or(self.0.first())
    }
}

impl UpstreamRoute {
    fn new(
        at: &str,
        models: Vec<String>,
        base_urls: &[String],
        key: RouteCredential,
        key_header: Option<KeyHeader>,
    ) -> Result<UpstreamRoute> {
        base_urls.iter().try_for_each(|base_url| check_url(at, base_url))?;
        let base_urls: Vec<String> =
            base_urls.iter().map(|base_url| base_url.trim_end_matches('/').to_owned()).collect();
        let name = Arc::from(base_urls[0].as_str());
        tracing::info!(?models, ?base_urls, ?key, "an upstream");
        for (url, advice) in base_urls.iter().filter_map(|url| Some((url, base_url::advice(url)?))) {
            tracing::warn!(upstream = url, "the address of an upstream is probably mistaken: {advice}");
        }
        Ok(UpstreamRoute {
            models,
            name,
            base_urls,
            key,
            key_header,
            lists_models: AtomicBool::new(true),
            warned_ms: AtomicU64::new(0),
            made: Instant::now(),
        })
    }

    /// Whether a failure may be logged: once a second at most.
    pub(super) fn may_warn(&self) -> bool {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1000);
        let is_due = |last: u64| (now - last.min(now) >= 1000).then_some(now);
        self.warned_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok()
    }

    /// Models that it names without leaving a rest open.
    pub(super) fn whole_names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(String::as_str).filter(|name| !name.ends_with('*'))
    }
}

fn check_url(at: &str, base_url: &str) -> Result<()> {
    let fault = |what: &str| config(&format!("{at}: {base_url:?} {what}"));
    let url =
        Url::parse(base_url).map_err(|error| fault("is not an address").source(error).advise(EXAMPLE))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(fault("must be http or https, without query and fragment").advise(EXAMPLE));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated in the message: it would show the credential.
        return Err(config(&format!("{at} must hold no credential; name its variable in api_key_env")));
    }
    Ok(())
}

/// Refuses a star that stands for nothing.
fn check_names(at: &str, models: &[String]) -> Result<()> {
    let is_odd = |name: &&String| name.trim_end_matches('*').contains('*') || name.ends_with("**");
    match models.iter().find(is_odd) {
        Some(name) => Err(config(&format!("{at}: in `{name}` only a final `*` stands for anything"))),
        None => Ok(()),
    }
}

fn key(at: &str, forward_client_key: bool, variable: Option<&str>) -> Result<RouteCredential> {
    if forward_client_key {
        return match variable {
            Some(_) => {
                Err(config(&format!("{at}: forward_client_key and api_key_env are two keys; give one")))
            }
            None => Ok(RouteCredential::Clients),
        };
    }
    let Some(variable) = variable else { return Ok(RouteCredential::None) };
    let fault = |what: &str| config(&format!("{at}: the environment variable `{variable}` {what}"));
    let key = std::env::var(variable).map_err(|_| {
        fault("is not set or not UTF-8")
            .advise(format!("type `export {variable}=...` before the server starts"))
    })?;
    let key = key.trim();
    HeaderValue::from_str(key).map_err(|_| fault("contains characters that are invalid in a header"))?;
    Ok(RouteCredential::Operators(key.into()))
}

/// The header of a key. `at` names the option in errors.
fn key_header(at: &str, named: Option<KeyHeaderName>, key: &RouteCredential) -> Result<Option<KeyHeader>> {
    if named.is_some() && matches!(key, RouteCredential::Clients) {
        return Err(config(&format!(
            "{at}: key_header is for a key of api_key_env; with forward_client_key each client's header is passed on as it came"
        )));
    }
    Ok(named.map(KeyHeaderName::header))
}

#[cfg(test)]
mod tests {
    use super::super::options::RouteOptions;
    use super::*;

    fn route(model: &str, url: &str) -> RouteOptions {
        RouteOptions { models: vec![model.into()], base_urls: vec![url.into()], ..RouteOptions::default() }
    }

    #[test]
    fn a_model_goes_to_the_first_route_that_names_it() {
        let options = Options {
            base_url: Some("http://rest/v1/".into()),
            forward_client_key: true,
            routes: vec![route("small", "http://small/v1"), route("big-*", "http://big/v1")],
            ..Options::default()
        };
        let routes = UpstreamRoutes::new(&options).unwrap();
        let name = |model| &*routes.of_model(model).unwrap().name;
        assert_eq!(
            (name("small"), name("big-2"), name("x")),
            ("http://small/v1", "http://big/v1", "http://rest/v1")
        );
        assert_eq!(&*routes.of_none().unwrap().name, "http://rest/v1");
        let closed = UpstreamRoutes::new(&Options { base_url: None, ..options }).unwrap();
        let error = closed.of_model("x").unwrap_err();
        assert_eq!((error.kind(), error.param_name()), (Kind::ModelNotFound, Some("model")));
    }

    #[test]
    fn two_keys_and_stars_in_the_middle_are_refused() {
        let refused = |route: RouteOptions| {
            UpstreamRoutes::new(&Options { routes: vec![route], ..Options::default() })
                .unwrap_err()
                .to_string()
        };
        for name in ["a*b", "a**"] {
            assert!(refused(route(name, "http://a/v1")).contains("routes[0].models"), "{name}");
        }
        let two = RouteOptions {
            forward_client_key: true,
            api_key_env: Some("A".into()),
            ..route("a", "http://a/v1")
        };
        assert!(refused(two).contains("routes[0]: forward_client_key and api_key_env"));
        let header = RouteOptions {
            forward_client_key: true,
            key_header: Some(KeyHeaderName::XApiKey),
            ..route("a", "http://a/v1")
        };
        assert!(refused(header).contains("routes[0]: key_header"));
    }

    #[test]
    fn a_failing_upstream_is_logged_once_in_a_while() {
        let options =
            Options { base_url: Some("http://a/v1".into()), forward_client_key: true, ..Options::default() };
        let routes = UpstreamRoutes::new(&options).unwrap();
        let route = routes.of_none().unwrap();
        assert!(route.may_warn() && !route.may_warn());
    }

    #[test]
    fn what_cannot_be_an_upstream_is_refused_and_no_credential_is_shown() {
        for url in ["x", "ftp://a/", "http://a/?b", "http://a/#b"] {
            let options = Options { routes: vec![route("m", url)], ..Options::default() };
            assert!(UpstreamRoutes::new(&options).unwrap_err().to_string().contains("routes[0]"), "{url}");
        }
        let options = Options { routes: vec![route("m", "http://user:secret@a/")], ..Options::default() };
        assert!(!UpstreamRoutes::new(&options).unwrap_err().to_string().contains("secret"));
        assert_eq!(format!("{:?}", RouteCredential::Operators("sk".into())), "***");
    }
}
