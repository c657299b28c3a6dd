//! Passes requests on from node to node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::options::Options;
use crate::error::{Error, Kind, Result};

/// Names the node that has passed a request on. A request with it is not passed on again.
pub const FORWARDED_BY: &str = "x-likewise-forwarded-by";

/// Connections to one node that wait for the next request.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Less than the time for which a node holds a connection that is idle.
const IDLE_SECONDS_MAX: u64 = 20;
/// Bytes of an address.
const ADDRESS_BYTES_MAX: usize = 256;

/// A client of other nodes.
pub(super) struct Transport {
    http: reqwest::Client,
    places: Arc<Semaphore>,
    options: Options,
}

/// A request on its way to another node.
pub struct NodeRequest {
    /// The method.
    pub method: Method,
    /// Path and query, as they came.
    pub path: String,
    /// The headers that the other node gets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What another node answers: its head at once, its body as it comes.
pub struct NodeReply {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body. It ends with an error if nothing comes for too long.
    pub body: BoxStream<'static, Result<Bytes>>,
}

struct NodeReplyBody {
    response: Response,
    wait: Duration,
    /// Held until the body is read or dropped.
    _place: OwnedSemaphorePermit,
}

impl Transport {
    /// A client.
    ///
    /// # Errors
    /// `Config` if it cannot be set up.
    pub(super) fn new(options: &Options) -> Result<Transport> {
        // Fails only if a provider was installed before, which is then the one in use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // What the client sent is for that node alone.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_millis(options.connect_ms_max))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(Duration::from_secs(IDLE_SECONDS_MAX))
            .build()
            .map_err(|error| {
                Error::new(Kind::Config, "cannot set up the client of other nodes").source(error)
            })?;
        Ok(Transport {
            http,
            places: Arc::new(Semaphore::new(options.forwards_max)),
            options: options.clone(),
        })
    }

    /// Asks the node `to` at its address, in the name of the node `from`.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be reached, `Timeout`, `Overloaded` past the limit of such requests.
    ///
    /// Cancel safety: dropping the future, or the reply, ends the request.
    pub(super) async fn ask(
        &self,
        from: u64,
        to: u64,
        address: &str,
        request: NodeRequest,
    ) -> Result<NodeReply> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = "too many requests wait for other nodes (nodes.forwards_max)";
            Error::new(Kind::Overloaded, message)
        })?;
        let NodeRequest { method, path, mut headers, body } = request;
        let from = HeaderValue::from_str(&format!("{from:016x}"));
        let from = from.expect("hexadecimal digits are a valid header: this is a bug");
        headers.insert(HeaderName::from_static(FORWARDED_BY), from);
        let sent = self.http.request(method, format!("{}{path}", address.trim_end_matches('/')));
        let sent = sent.headers(headers).body(body).send();
        let wait = Duration::from_millis(self.options.forward_ms_max);
        let response = tokio::time::timeout(wait, sent).await.map_err(|_| late(wait))?;
        let response = response.map_err(|error| {
            let message = format!("node {to:016x}, which has the collection, cannot be reached");
            Error::new(Kind::Unavailable, message).source(error.without_url())
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = NodeReplyBody { response, wait, _place: place };
        let body = stream::unfold(Some(body), |body| async move {
            let mut body = body?;
            match body.next().await.transpose()? {
                Ok(bytes) => Some((Ok(bytes), Some(body))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(NodeReply { status, headers, body: body.boxed() })
    }
}

impl NodeReplyBody {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(self.wait, self.response.chunk()).await;
        next.map_err(|_| late(self.wait))?.map_err(|error| {
            let message = "cannot read the answer of another node to its end";
            Error::new(Kind::Upstream, message).source(error.without_url())
        })
    }
}

fn late(wait: Duration) -> Error {
    let message = format!(
        "the node that has the collection did not answer within {} ms (nodes.forward_ms_max)",
        wait.as_millis()
    );
    Error::new(Kind::Timeout, message)
}

/// Checks the address at which other nodes are to reach this one.
///
/// # Errors
/// `Config`.
pub(super) fn check_address(address: &str) -> Result<()> {
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    if address.len() <= ADDRESS_BYTES_MAX && Url::parse(address).is_ok_and(|url| is_plain(&url)) {
        return Ok(());
    }
    let message = format!(
        "nodes.advertise must be the address at which other nodes reach this one, such as http://10.0.0.5:8420, got {address:?}"
    );
    Err(Error::new(Kind::Config, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_server_and_nothing_more() {
        for good in ["http://10.0.0.5:8420", "https://node-1.likewise:8420", "http://[::1]:8420/"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        let long = format!("http://{}", "a".repeat(ADDRESS_BYTES_MAX));
        for bad in ["", "10.0.0.5:8420", "ftp://a", "http://a/v1", "http://a?b", "http://u:p@a", &long] {
            assert_eq!(check_address(bad).unwrap_err().kind(), Kind::Config, "{bad}");
        }
    }
}
