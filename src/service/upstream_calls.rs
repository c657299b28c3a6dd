//! Calls of upstreams for embeddings and scores: what they have in common, and what they are known by.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::domain::{Credential, KeyHasher, KeyHeader};
use crate::embed::endpoint::{Failure, FailureCause, RefusedReply};
use crate::error::{Error, Kind, Result};
use crate::pacing::retry_after;
use crate::upstream::{Headers, Origin, Reply, UpstreamCall};

/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// What the calls for one request have in common.
pub(super) struct ModelCall {
    pub(super) origin: Arc<dyn Origin>,
    /// Below the upstream's `/v1`.
    pub(super) path: &'static str,
    /// `None` if the request names none.
    pub(super) model: Option<String>,
    /// Fields of the body that are sent along as they came.
    pub(super) fields: BTreeMap<String, Box<RawValue>>,
    pub(super) headers: Headers,
    pub(super) credential: Option<Credential>,
    pub(super) needs_clients_key: bool,
}

impl ModelCall {
    /// Sends the fields, with `own` in the place of those of the same names. The reply is a success.
    pub(super) async fn post(&self, own: &BTreeMap<&str, Box<RawValue>>) -> Result<Reply, Failure> {
        let call = UpstreamCall {
            method: "POST".into(),
            path: self.path.into(),
            model: self.model.clone(),
            headers: self.headers.clone(),
            key_header: KeyHeader::BEARER,
            credential: self.credential.clone(),
            body: self.body(own).map_err(fault_of_upstream)?,
            needs_clients_key: self.needs_clients_key,
            may_repeat: true,
            may_wait: true,
        };
        let reply = self.origin.ask(call).await.map_err(fault_of_upstream)?;
        if reply.is_success() { Ok(reply) } else { Err(refused(reply).await) }
    }

    fn body(&self, own: &BTreeMap<&str, Box<RawValue>>) -> Result<Bytes> {
        let mut all: BTreeMap<&str, &RawValue> =
            self.fields.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
        all.extend(own.iter().map(|(name, value)| (*name, &**value)));
        serde_json::to_vec(&all).map(Bytes::from).map_err(unwritten)
    }
}

/// The error of a value that cannot be written as JSON.
pub(super) fn unwritten(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, "cannot write a request for an upstream").source(error)
}

/// A failure that is not due to a text.
pub(super) fn fault_of_upstream(error: Error) -> Failure {
    Failure { error, cause: FailureCause::Endpoint }
}

/// The headers of a call with a body in JSON.
pub(super) fn json_headers(forwarded: Vec<(String, String)>, traces: Headers) -> Headers {
    let json = ("content-type".to_owned(), Bytes::from_static(b"application/json"));
    let forwarded = forwarded.into_iter().map(|(name, value)| (name, Bytes::from(value)));
    std::iter::once(json).chain(forwarded).chain(traces).collect()
}

/// Adds what a request has beside its model and its texts to the identity of what is asked.
pub(super) fn hash_request<'a>(
    hasher: &mut KeyHasher,
    fields: impl Iterator<Item = (&'a String, &'a Box<RawValue>)>,
    headers: &[(String, String)],
    credential: Option<&Credential>,
) {
    let fields: Vec<(&str, &str)> = fields.map(|(name, value)| (name.as_str(), value.get())).collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    for list in [fields, headers] {
        // So that no field is taken for a header.
        hasher.field(&(list.len() as u64).to_le_bytes());
        for (name, value) in list {
            hasher.field(name.as_bytes()).field(value.as_bytes());
        }
    }
    hasher.field(credential.map_or(&[], Credential::as_bytes));
}

/// The failure of a call that the upstream refuses.
async fn refused(mut reply: Reply) -> Failure {
    let header = |name: &str| {
        let (_, value) = reply.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value).ok()
    };
    let (wait, status) = (retry_after(header), reply.status);
    let said = reply.whole(ERROR_BYTES_MAX).await.unwrap_or_default();
    RefusedReply::read(status, &said).passed_on(wait)
}
