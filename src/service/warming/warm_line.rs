//! A line of a file that warms a server. Its fields say of which kind it is.

use std::collections::BTreeMap;

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::dialects::of_path;
use crate::domain::KeyHeader;
use crate::error::{Error, Kind, Result};
use crate::line_files::parsed;

type Fields = BTreeMap<String, Box<RawValue>>;

/// What a line asks a server for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineRequest {
    /// What requests of its kind are called in a report.
    pub kind: &'static str,
    /// The segments of its path.
    pub path: Vec<String>,
    /// JSON, which is posted.
    pub body: String,
}

/// The path of messages, and the headers that its clients send: without the version the upstream refuses the request, and with another one
/// it is another request to the cache.
const MESSAGES: [&str; 2] = ["v1", "messages"];
const OF_MESSAGES: [(&str, &str); 1] = [("anthropic-version", "2023-06-01")];

impl LineRequest {
    /// The headers that clients of its API send beside the type of the body, and that are part of what is asked.
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        if self.path == MESSAGES { &OF_MESSAGES } else { &[] }
    }

    /// The header in which clients of its API present their key. Another header is another credential, which shares no answers.
    pub fn key_header(&self) -> KeyHeader {
        of_path(&format!("/{}", self.path.join("/"))).map_or(KeyHeader::BEARER, |api| api.key_header())
    }
}

/// The fields of a line.
pub struct WarmLine(Fields);

/// The kinds of lines, by the field that only they have: how a report calls them, and the path of their route. The first field that a line
/// has decides.
const KINDS: [(&str, &str, &[&str]); 4] = [
    ("messages", "chats", &["v1", "chat", "completions"]),
    ("prompt", "completions", &["v1", "completions"]),
    ("input", "texts", TEXTS),
    ("text", "texts", TEXTS),
];
const TEXTS: &[&str] = &["v1", "embeddings"];

/// The routes that a line with `url` may name, and how a report calls their requests.
const URLS: [(&str, &str); 5] = [
    ("/v1/embeddings", "texts"),
    ("/v1/chat/completions", "chats"),
    ("/v1/completions", "completions"),
    ("/v1/responses", "responses"),
    ("/v1/messages", "messages"),
];

impl WarmLine {
    /// Reads a line.
    ///
    /// # Errors
    /// `InvalidInput` if the line is no JSON object.
    pub fn read(line: &str) -> Result<WarmLine> {
        parsed(line).map(WarmLine)
    }

    /// The request of a plain text.
    ///
    /// # Errors
    /// None that input can cause.
    pub fn of_text(text: &str, model: Option<&str>) -> Result<LineRequest> {
        let mut fields = Fields::new();
        fields.insert("input".into(), raw(&text)?);
        with_model(&mut fields, model)?;
        request("texts", TEXTS, &fields)
    }

    /// The request that it asks for; `model` embeds texts whose line names no model.
    ///
    /// # Errors
    /// `InvalidInput` for a line of no kind, or one whose fields are not those of its kind.
    pub fn request<'a>(self, model: impl FnOnce() -> Result<Option<&'a str>>) -> Result<LineRequest> {
        let WarmLine(mut fields) = self;
        if fields.contains_key("url") {
            return of_url(&fields);
        }
        if let Some(collection) = fields.remove("collection") {
            let collection = text("collection", &collection)?;
            return request("searches", &["v1", "collections", &collection, "search"], &fields);
        }
        if fields.contains_key("key")
            && let Some(namespace) = fields.remove("namespace")
        {
            return of_object(&text("namespace", &namespace)?, fields);
        }
        let (field, kind, path) = KINDS
            .into_iter()
            .find(|(field, ..)| fields.contains_key(*field))
            .ok_or_else(|| fault(&format!("{}, got {}", WANTED, names(&fields))))?;
        if field == "text" {
            of_text_field(&mut fields)?;
        }
        if kind == "texts" && !fields.contains_key("model") {
            with_model(&mut fields, model()?)?;
        }
        request(kind, path, &fields)
    }
}

/// What a line must have.
const WANTED: &str =
    "a line has text, input, messages, prompt, collection, url and body, or namespace, key and value";

/// Makes `text` the input. Only what a request for embeddings knows is sent: an id or a price is no part of it.
fn of_text_field(fields: &mut Fields) -> Result<()> {
    if let Some(content) = fields.remove("text") {
        if text("text", &content)?.is_empty() {
            return Err(fault("text must not be empty"));
        }
        fields
            .retain(|name, _| ["model", "input_type", "dimensions", "truncate", "cache"].contains(&&**name));
        fields.insert("input".into(), content);
    }
    Ok(())
}

/// A line with the route and the body of a request.
fn of_url(fields: &Fields) -> Result<LineRequest> {
    let url = text("url", fields.get("url").ok_or_else(|| fault("url is missing"))?)?;
    let known: Vec<&str> = URLS.iter().map(|(known, _)| *known).collect();
    let (url, kind) = URLS
        .into_iter()
        .find(|(known, _)| *known == url)
        .ok_or_else(|| fault(&format!("url must be one of {}, got {url:?}", known.join(", "))))?;
    let body = fields.get("body").ok_or_else(|| fault("body is missing"))?;
    let body: Fields = parsed(body.get())?;
    request(kind, &url.split('/').skip(1).collect::<Vec<_>>(), &body)
}

/// An object to store. A value that is no text is stored as JSON.
fn of_object(namespace: &str, mut fields: Fields) -> Result<LineRequest> {
    let value = fields.get("value").map(|value| value.get().to_owned());
    match value {
        Some(value) if !value.starts_with('"') => {
            fields.insert("value".into(), raw(&value)?);
            if !fields.contains_key("content_type") {
                fields.insert("content_type".into(), raw(&"application/json")?);
            }
        }
        None if !fields.contains_key("value_base64") => return Err(fault("value is missing")),
        Some(_) | None => {}
    }
    let body = Fields::from([("put".to_owned(), raw(&[fields])?)]);
    request("objects", &["v1", "cache", namespace, "batch"], &body)
}

/// A stream and a whole answer are one entry of the cache; the whole one says by its status whether it is there.
fn request(kind: &'static str, path: &[&str], fields: &Fields) -> Result<LineRequest> {
    let is_sent = |name: &str| !["stream", "stream_options"].contains(&name);
    let sent: BTreeMap<_, _> = fields.iter().filter(|(name, _)| is_sent(name)).collect();
    let body = serde_json::to_string(&sent).map_err(unwritable)?;
    Ok(LineRequest { kind, path: path.iter().map(|&segment| segment.to_owned()).collect(), body })
}

fn with_model(fields: &mut Fields, model: Option<&str>) -> Result<()> {
    if let Some(model) = model {
        fields.insert("model".into(), raw(&model)?);
    }
    Ok(())
}

fn text(field: &str, value: &RawValue) -> Result<String> {
    serde_json::from_str(value.get()).map_err(|_| fault(&format!("{field} must be a string")))
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>> {
    to_raw_value(value).map_err(unwritable)
}

fn names(fields: &Fields) -> String {
    json!(fields.keys().take(10).collect::<Vec<_>>()).to_string()
}

fn fault(message: &str) -> Error {
    Error::new(Kind::InvalidInput, message)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, "cannot write a request").source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_of(line: &str) -> Result<LineRequest> {
        WarmLine::read(line)?.request(|| Ok(Some("own")))
    }

    #[test]
    fn the_fields_of_a_line_say_where_it_goes() {
        let cases = [
            (r#"{"text":"uno","id":7}"#, "texts v1/embeddings", r#"{"input":"uno","model":"own"}"#),
            (r#"{"input":["a"],"model":"m"}"#, "texts v1/embeddings", r#"{"input":["a"],"model":"m"}"#),
            (
                r#"{"model":"m","messages":[],"stream":true,"stream_options":{}}"#,
                "chats v1/chat/completions",
                r#"{"messages":[],"model":"m"}"#,
            ),
            (r#"{"model":"m","prompt":"a"}"#, "completions v1/completions", r#"{"model":"m","prompt":"a"}"#),
            (
                r#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"a"}}"#,
                "texts v1/embeddings",
                r#"{"input":"a","model":"m"}"#,
            ),
            (
                r#"{"custom_id":"a","url":"/v1/responses","body":{"model":"m","input":"a","stream":true}}"#,
                "responses v1/responses",
                r#"{"input":"a","model":"m"}"#,
            ),
            (
                r#"{"url":"/v1/messages","body":{"model":"m","max_tokens":9,"messages":[]}}"#,
                "messages v1/messages",
                r#"{"max_tokens":9,"messages":[],"model":"m"}"#,
            ),
            (
                r#"{"collection":"a/b","queries":["x"],"k":3}"#,
                "searches v1/collections/a/b/search",
                r#"{"k":3,"queries":["x"]}"#,
            ),
            (
                r#"{"namespace":"n","key":"k","value":{"a":1.0},"ttl":5}"#,
                "objects v1/cache/n/batch",
                r#"{"put":[{"content_type":"application/json","key":"k","ttl":5,"value":"{\"a\":1.0}"}]}"#,
            ),
            (
                r#"{"namespace":"n","key":"k","value":"v"}"#,
                "objects v1/cache/n/batch",
                r#"{"put":[{"key":"k","value":"v"}]}"#,
            ),
        ];
        for (line, place, body) in cases {
            let request = request_of(line).unwrap();
            assert_eq!(format!("{} {}", request.kind, request.path.join("/")), place, "{line}");
            assert_eq!(request.body, body, "{line}");
        }
        assert_eq!(request_of(r#"{"collection":"a/b"}"#).unwrap().path[2], "a/b");
    }

    #[test]
    fn a_request_is_sent_as_clients_of_its_api_send_it() {
        for (url, key_header, headers) in [
            ("/v1/chat/completions", KeyHeader::BEARER, &[][..]),
            ("/v1/responses", KeyHeader::BEARER, &[]),
            ("/v1/embeddings", KeyHeader::BEARER, &[]),
            ("/v1/messages", KeyHeader::X_API_KEY, &[("anthropic-version", "2023-06-01")]),
        ] {
            let request = request_of(&format!(r#"{{"url":"{url}","body":{{}}}}"#)).unwrap();
            assert_eq!((request.key_header(), request.headers()), (key_header, headers), "{url}");
        }
    }

    #[test]
    fn a_line_of_no_kind_is_refused() {
        for (line, what) in [
            ("uno", "cannot read a line"),
            (r#"{"txt":"uno"}"#, r#"got ["txt"]"#),
            (r#"{"text":""}"#, "text must not be empty"),
            (r#"{"text":7}"#, "text must be a string"),
            (r#"{"collection":7}"#, "collection must be a string"),
            (r#"{"url":"/v1/files","body":{}}"#, "url must be one of"),
            (r#"{"url":"/v1/embeddings"}"#, "body is missing"),
            (r#"{"namespace":"n","key":"k"}"#, "value is missing"),
        ] {
            let error = request_of(line).unwrap_err();
            assert!(error.message().contains(what), "{line}: {error}");
        }
    }
}
