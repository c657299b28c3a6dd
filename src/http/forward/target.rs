//! Where a request goes that is for an upstream: its path there, and the model whose upstream that is.

use std::convert::Infallible;
use std::future;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::stream;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::dialects::stored_answer_id;
use crate::error::{Error, Result};
use crate::http::extract::text_encoding;
use crate::http::routes::OwnSegments;

/// Where a request goes.
pub(in crate::http) struct ForwardTarget {
    /// The path below the upstream's own, as it came.
    pub(in crate::http) path: String,
    /// The model that it names.
    pub(in crate::http) model: Option<String>,
    /// The id of the answer that it stands for, if upstreams keep such answers under ids that clients get of this server too.
    pub(in crate::http) answer_id: Option<String>,
}

impl ForwardTarget {
    /// None for a path that is not below `/v1`, is this server's own, or might leave the upstream's own path. That is judged by its
    /// segments as any reader might take them, decoded and without parameters.
    pub(in crate::http) fn read(path: &str, own: &OwnSegments) -> Option<ForwardTarget> {
        let path = path.strip_prefix("/v1/")?;
        let spelled_out = percent_decode_str(path).decode_utf8().ok()?;
        let parts = || spelled_out.split(['/', '\\']);
        let is_plain = |part: &str| {
            let name = part.split(';').next().unwrap_or_default();
            !matches!(name.trim(), "" | "." | "..")
        };
        if !parts().all(is_plain) || parts().next().is_some_and(|first| own.contains(first)) {
            return None;
        }
        let model = spelled_out.strip_prefix("models/").map(str::to_owned);
        let answer_id = stored_answer_id(&spelled_out).map(str::to_owned);
        Some(ForwardTarget { path: path.to_owned(), model, answer_id })
    }
}

/// The model that a body names, as JSON or as a form; none if it is neither, is compressed, or names none.
///
/// # Errors
/// `InvalidInput` for a JSON object that cannot be read: where it would go is a guess.
pub(in crate::http) async fn model_of(headers: &HeaderMap, body: &Bytes) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Named {
        model: Option<String>,
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(None);
    }
    let body = &text_encoding::without_mark(body.clone());
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "multipart/form-data" => return Ok(model_of_form(content_type, body).await),
        // Some clients send JSON and call it what their library calls any body.
        "application/json" | "" | "application/x-www-form-urlencoded" | "text/plain" => {}
        _ => return Ok(None),
    }
    if !body.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    let fault =
        |error| Error::invalid("model", "the body must be a JSON object with one `model`").source(error);
    Ok(serde_json::from_slice::<Named>(body).map_err(fault)?.model)
}

/// The field `model` of a form (RFC 7578). Whatever of it cannot be read names nothing.
async fn model_of_form(content_type: &str, body: &Bytes) -> Option<String> {
    let boundary = multer::parse_boundary(content_type).ok()?;
    let whole = stream::once(future::ready(Ok::<_, Infallible>(body.clone())));
    let mut form = multer::Multipart::new(whole, boundary);
    while let Some(field) = form.next_field().await.ok()? {
        if field.name() == Some("model") {
            return field.text().await.ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn no_path_climbs_out_of_the_upstreams_own() {
        let own = OwnSegments::from(["answers", "cache", "embeddings"]);
        let read = |path: &str| ForwardTarget::read(path, &own);
        for path in ["models", "files/file-1/content", "a..b/c.d", "responses/x%2Fy", "a;b/c"] {
            assert_eq!(read(&format!("/v1/{path}")).map(|target| target.path).as_deref(), Some(path));
        }
        for path in ["", "..", "a/../b", "a/%2e%2E/b", "./a", "a/.%2e", "a\\..\\b", "a%5C..", "x/..%2fy"] {
            assert!(read(&format!("/v1/{path}")).is_none(), "{path}");
        }
        for path in
            ["..;/a", "a//b", "files/", "/answers", "%61nswers", "cache%2Fp%2Fk", "embeddings/x", "%ff"]
        {
            assert!(read(&format!("/v1/{path}")).is_none(), "{path}");
        }
        assert!(read("/v2/files").is_none());
        assert_eq!(read("/v1/models/a%2Fb").unwrap().model.as_deref(), Some("a/b"));
        assert_eq!(read("/v1/responses/resp%5F1").unwrap().answer_id.as_deref(), Some("resp_1"));
    }

    async fn read(content_type: &str, body: &str) -> Result<Option<String>> {
        let value = HeaderValue::from_str(content_type).unwrap();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value)]);
        model_of(&headers, &Bytes::from(body.to_owned())).await
    }

    #[tokio::test]
    async fn a_body_names_its_model_as_json() {
        for (content_type, body) in [
            ("application/json; charset=utf-8", r#"{"prompt":"a","model":"m"}"#),
            ("Application/JSON", "\n {\"model\":\"m\"}"),
            ("application/x-www-form-urlencoded", r#"{"model":"m"}"#),
            ("", r#"{"model":"m"}"#),
            ("", "\u{feff}{\"model\":\"m\"}"),
        ] {
            assert_eq!(read(content_type, body).await.unwrap().as_deref(), Some("m"), "{content_type}");
        }
        for (content_type, body) in [
            ("application/json", "{}"),
            ("application/json", ""),
            ("application/json", "null"),
            ("application/json", r#" ["m"]"#),
            ("application/jsonl", "{\"model\":\"m\"}\n{\"model\":\"n\"}"),
            ("audio/wav", "{"),
        ] {
            assert_eq!(read(content_type, body).await.unwrap(), None, "{body}");
        }
        for body in ["{", r#"{"model":7}"#, r#"{"model":"a","model":"b"}"#] {
            let error = read("application/json", body).await.unwrap_err();
            assert_eq!(error.param_name(), Some("model"), "{body}");
        }
        let mut compressed = HeaderMap::new();
        compressed.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(model_of(&compressed, &Bytes::from_static(b"{")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_body_names_its_model_as_a_form() {
        let part = |head: &str, value: &str| {
            format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
        };
        let file = part(r#"name="file"; filename="model""#, "not-this-one");
        let form = format!("{file}{}--x--\r\n", part(r#"name="model""#, "whisper"));
        for content_type in ["multipart/form-data; boundary=\"x\"", "Multipart/Form-Data; Boundary=x"] {
            assert_eq!(
                read(content_type, &form).await.unwrap().as_deref(),
                Some("whisper"),
                "{content_type}"
            );
        }
        assert_eq!(read("multipart/form-data; boundary=x", &format!("{file}--x--\r\n")).await.unwrap(), None);
        assert_eq!(read("multipart/form-data; boundary=y", &form).await.unwrap(), None);
        // Nothing but beginnings of parts.
        for (content_type, body) in [
            ("multipart/form-data; boundary=", "-".repeat(1 << 20)),
            ("multipart/form-data; boundary=x", "--x".repeat(1 << 19)),
        ] {
            assert_eq!(read(content_type, &body).await.unwrap(), None);
        }
    }
}
