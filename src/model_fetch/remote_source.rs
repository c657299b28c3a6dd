//! A server that has models. Its credentials go to it alone, whatever it redirects to.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Response, StatusCode, Url};

use super::digest::FileDigest;
use crate::error::{Error, Kind, Result};

const REDIRECTS_MAX: usize = 10;
const CONNECT: Duration = Duration::from_secs(10);

/// A server that has models.
pub(super) struct RemoteSource {
    client: Client,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// An answer, with what the redirects before it said about the file.
pub(super) struct SourceReply {
    pub(super) response: Response,
    pub(super) digest: Option<FileDigest>,
}

impl RemoteSource {
    /// The server at `base`, with a bearer token or the user and password of the address.
    pub(super) fn new(base: &Url, token: Option<&str>, idle: Duration) -> Result<RemoteSource> {
        // Fails only if a provider is installed already; that one is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            // Redirects are followed here, where it is known which of them may see the credentials.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(idle)
            .user_agent(concat!("likewise/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::new(Kind::Config, "cannot set up HTTP").source(error))?;
        let authorization = match token {
            Some(token) => Some(bearer(token)?),
            None => basic(base),
        };
        Ok(RemoteSource { client, base: without_user(base.clone()), authorization })
    }

    /// The address of `path` below the base.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base
            .join(path)
            .map_err(|error| Error::new(Kind::Internal, "cannot form an address").source(error))
    }

    /// The host, as messages name it.
    pub(super) fn name(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether requests to it have credentials.
    pub(super) fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    /// Asks for `url`, from byte `from` on, and follows redirects.
    ///
    /// # Errors
    /// `Unavailable` if there is no answer. Its text has no address: those of signed redirects are secrets.
    pub(super) async fn get(&self, url: Url, accept: Option<&'static str>, from: u64) -> Result<SourceReply> {
        let (mut url, mut digest) = (without_user(url), None);
        for _ in 0..REDIRECTS_MAX {
            let response = self
                .request(&url, accept, from)
                .send()
                .await
                .map_err(|error| self.unreachable(&url, error))?;
            digest = digest.or_else(|| announced(response.headers()));
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(SourceReply { response, digest });
            }
            url = self.redirected(&url, &response)?;
        }
        Err(Error::new(Kind::Upstream, format!("{} redirects without end", self.name())))
    }

    fn request(&self, url: &Url, accept: Option<&'static str>, from: u64) -> reqwest::RequestBuilder {
        let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) =
            self.authorization.as_ref().filter(|_| url.origin() == self.base.origin())
        {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request }
    }

    fn redirected(&self, url: &Url, response: &Response) -> Result<Url> {
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        let is_allowed =
            |next: &Url| matches!((url.scheme(), next.scheme()), (_, "https") | ("http", "http"));
        next.filter(is_allowed).map(without_user).ok_or_else(|| {
            let message = format!("{} redirects to an address that cannot be used", self.name());
            Error::new(Kind::Upstream, message).with("status", response.status())
        })
    }

    fn unreachable(&self, url: &Url, error: reqwest::Error) -> Error {
        let host = url.host_str().unwrap_or_default();
        Error::new(Kind::Unavailable, format!("cannot reach {host}")).source(error.without_url())
    }

    /// The body of a small answer.
    pub(super) async fn text(&self, mut response: Response, bytes_max: usize) -> Result<String> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            body.extend_from_slice(&chunk);
            if body.len() > bytes_max {
                let message = format!("the answer of {} is too long", self.name());
                return Err(Error::new(Kind::Upstream, message).with("bytes_max", bytes_max));
            }
        }
        String::from_utf8(body)
            .map_err(|error| Error::new(Kind::Upstream, "the answer is not UTF-8").source(error))
    }

    /// The next part of a body.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>> {
        let broken = |error: reqwest::Error| {
            Error::new(Kind::Unavailable, "the connection broke").source(error.without_url())
        };
        response.chunk().await.map_err(broken)
    }
}

/// `x-linked-etag` is that of the file, where `etag` is that of git's pointer to it.
fn announced(headers: &HeaderMap) -> Option<FileDigest> {
    let read =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).and_then(FileDigest::of_etag);
    read("x-linked-etag").or_else(|| read("etag"))
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
    let mut value =
        value.map_err(|_| Error::new(Kind::Config, "HF_TOKEN must have visible characters only"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic(url: &Url) -> Option<HeaderValue> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let pair = format!("{}:{}", decode(url.username()), decode(url.password().unwrap_or_default()));
    let mut value =
        HeaderValue::from_str(&format!("Basic {}", base64_simd::STANDARD.encode_to_string(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn without_user(mut url: Url) -> Url {
    // Fails only for addresses without a host, which have no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}
