//! Requests for vectors of a model that only an upstream has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::domain::{Credential, Principal};
use crate::service::Directives;
use crate::upstream::Headers;

/// How the inputs of a request are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputForm {
    /// Each is a text.
    Text,
    /// Each is a list of token ids, in JSON. The vocabulary is the upstream's.
    TokenIds,
}

/// A request for vectors of a model that only an upstream has.
pub struct UpstreamRequest {
    /// The name of the model.
    pub model: String,
    /// The inputs, none of them empty.
    pub inputs: Vec<String>,
    /// How they are written.
    pub form: InputForm,
    /// The fields of the request but `input`, which are sent along as they came.
    pub fields: BTreeMap<String, Box<RawValue>>,
    /// Headers that are passed on. They are part of what is asked.
    pub headers: Vec<(String, String)>,
    /// Headers that identify the request on its way. They are passed on.
    pub traces: Headers,
    /// The credential of the client.
    pub credential: Option<Credential>,
    /// The sender, whose tenant's entries are used.
    pub principal: Arc<Principal>,
    /// Its cache directives.
    pub directives: Directives,
}
