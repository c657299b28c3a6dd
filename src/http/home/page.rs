//! The first page as HTML: one document that loads nothing and runs nothing.

use std::fmt::Write as _;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};

use super::{Home, HomeState};
use crate::http::stats::LookupNumbers;

/// The style of the page. The header below allows this text alone, by its hash: `tests/it/first_page.rs` compares them.
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;text-align:left}td{font-variant-numeric:tabular-nums}\
code{background:#8882;padding:.1rem .3rem}";

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'sha256-/4pQHEEO0QC/NwaZzKpISMtqUGxxy4oBL6UrbGUlvFg='; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// The page.
pub(super) fn html(home: &Home) -> Response {
    let mut response = Html(document(home)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn document(home: &Home) -> String {
    let mut body = String::new();
    match &home.state {
        Some(state) => write_state(&mut body, state),
        None => {
            _ = write!(body, "<p>This server embeds texts, caches answers and objects, and searches.</p>")
        }
    }
    if let Some(hint) = home.hint {
        _ = write!(body, "<p>{}</p>", escaped(hint));
    }
    let links = &home.links;
    let links = [
        (links.contract, "the contract (OpenAPI): every route"),
        (links.models, "models"),
        (links.statistics, "statistics"),
        (links.metrics, "metrics for Prometheus"),
        (links.health, "whether the process is alive"),
        (links.readiness, "whether requests are welcome"),
    ];
    let links: String =
        links.iter().map(|(path, text)| format!("<li><a href=\"{path}\">{path}</a>: {text}</li>")).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Likewise</title><style>{STYLE}</style></head><body><h1>Likewise</h1>\
         {body}<ul>{links}</ul></body></html>\n"
    )
}

fn write_state(body: &mut String, state: &HomeState) {
    let models: Vec<String> =
        state.models.iter().map(|model| format!("<code>{}</code>", escaped(model))).collect();
    _ = write!(
        body,
        "<p>Version {}, up for {}. Embedding model: {}.</p><table><tr><th></th><th>hits</th><th>coalesced</th>\
         <th>misses</th></tr>",
        state.version,
        duration(state.uptime_seconds),
        if models.is_empty() { "none".to_owned() } else { models.join(", ") }
    );
    let rows = [
        ("texts", state.texts),
        ("answers", state.answers),
        ("objects", state.objects),
        ("searches", state.searches),
    ];
    for (name, LookupNumbers { hits, coalesced, misses }) in rows {
        _ = write!(body, "<tr><th>{name}</th><td>{hits}</td><td>{coalesced}</td><td>{misses}</td></tr>");
    }
    body.push_str("</table>");
}

/// In the two largest units.
fn duration(seconds: u64) -> String {
    let [days, hours, minutes] = [seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60];
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_times_are_short() {
        assert_eq!(escaped("<a href='x'>&\"ñ"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;ñ");
        let expected = [(0, "0 s"), (61, "1 min 1 s"), (3_600, "1 h 0 min"), (90_061, "1 d 1 h")];
        for (seconds, text) in expected {
            assert_eq!(duration(seconds), text);
        }
    }
}
