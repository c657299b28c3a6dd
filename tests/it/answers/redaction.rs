//! Goal: clients see an upstream's answer, and neither the operator's key nor headers for browsers and proxies. Method: an upstream with
//! hostile replies.

use serde_json::json;

use super::{CHAT, ask, is_hit, question, quiet, start, status, with};
use crate::program::{Server, until};
use crate::upstream::Mode;

const HOSTILE: [(&str, &str); 14] = [
    ("set-cookie", "session=stolen"),
    ("x-powered-by", "them"),
    ("content-security-policy", "default-src *"),
    ("location", "http://evil.example/"),
    ("refresh", "0; url=http://evil.example/"),
    ("clear-site-data", "\"*\""),
    ("access-control-allow-origin", "*"),
    ("link", "<http://evil.example/>; rel=preload"),
    ("server-timing", "x;dur=1"),
    ("via", "1.1 machine.internal"),
    ("www-authenticate", "Basic"),
    ("x-likewise-answer-id", "ans_1"),
    ("x-likewise-request-id", "1"),
    ("x-internal-host", "10.0.0.1"),
];

const SHOWN: [(&str, &str); 7] = [
    ("retry-after-ms", "7"),
    ("x-ratelimit-remaining-requests", "7"),
    ("openai-processing-ms", "7"),
    ("anthropic-ratelimit-tokens-limit", "7"),
    ("request-id", "7"),
    ("x-request-id", "7"),
    ("x-should-retry", "false"),
];

#[tokio::test]
async fn only_listed_headers_of_an_upstream_are_forwarded() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let asked = async |server: &Server, place: usize| match place {
        0 => ask(server, &question("x")).await,
        1 => ask(server, &with(question("x"), json!({ "stream": true }))).await,
        2 => server.ask("POST", "/v1/moderations", &[], r#"{"model":"m"}"#).await,
        _ => server.get("/v1/models/m").await,
    };
    for code in [200, 302, 400, 429, 503] {
        for place in 0..4 {
            let headers = HOSTILE.iter().chain(&SHOWN).copied().collect();
            upstream.next(Mode::Reply(code, headers, "{}".into()));
            let answer = asked(&server, place).await;
            assert_eq!(answer.status, code);
            for (name, value) in HOSTILE {
                let given =
                    answer.headers.get_all(name).iter().any(|given| given.as_bytes() == value.as_bytes());
                assert!(!given, "{place} {code}: {name}");
            }
            for (name, value) in SHOWN {
                let name = if name == "x-request-id" { "x-upstream-request-id" } else { name };
                assert_eq!(answer.header(name), value, "{place} {code}: {name}");
            }
            let policy = answer.header("content-security-policy");
            assert_eq!(
                policy.contains("sandbox"),
                place > 1,
                "{place}: what is passed on is no page of this server's"
            );
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{place}");
        }
    }
}

/// Services repeat the ends of a key that they refuse.
#[tokio::test]
async fn an_upstreams_message_about_the_operators_key_reaches_no_client() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let said =
        "Incorrect API key provided: sk-***rs. Account acme. You can find your API key at https://x.example.";
    let error =
        json!({ "error": { "message": said, "type": "invalid_request_error", "code": "invalid_api_key" } });
    let asked = async |place: usize| match place {
        0 => ask(&server, &question("whose key?")).await,
        1 => ask(&server, &with(question("whose key?"), json!({ "stream": true }))).await,
        2 => server.ask("POST", "/v1/moderations", &[], r#"{"model":"m"}"#).await,
        _ => server.get("/v1/models/m").await,
    };
    for code in [401, 402, 403, 407] {
        for place in 0..4 {
            upstream.next(Mode::Reply(code, vec![("content-type", "application/json")], error.to_string()));
            let answer = asked(place).await;
            assert_eq!((answer.status, answer.error().0), (502, "upstream_error"), "{code} {place}");
            let shown = answer.body.to_string();
            assert!(shown.contains("this server's key"), "{shown}");
            assert!(!["Incorrect", "sk-", "rs.", "acme"].iter().any(|part| shown.contains(part)), "{shown}");
        }
    }
    // Some services have another status for it.
    let error = r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#;
    upstream.next(Mode::Reply(400, vec![], error.into()));
    let answer = asked(0).await;
    assert_eq!((answer.status, answer.error().0), (502, "upstream_error"), "{}", answer.body);
    // And some answer with a success, or fail once a stream has begun.
    for (said, events) in [
        (error.to_owned(), false),
        (json!({ "error": said, "message": said }).to_string(), false),
        (format!("event: error\ndata: {}\n\n", json!({ "error": { "message": said } })), true),
    ] {
        for place in 0..4 {
            let kind = if events { "text/event-stream" } else { "application/json" };
            upstream.next(Mode::Reply(200, vec![("content-type", kind)], said.clone()));
            let shown = asked(place).await.body.to_string();
            assert!(
                !["Incorrect", "not valid", "sk-", "acme"].iter().any(|part| shown.contains(part)),
                "{shown}"
            );
        }
    }
    // In whatever pieces the error arrives.
    let event = format!("data: {}\n\n", json!({ "error": { "message": said } }));
    let (first, rest) = event.split_at(event.find("API").expect("it is there"));
    upstream.next(Mode::Events(vec![first.into(), rest.into()]));
    let shown = asked(1).await.body.to_string();
    assert!(!["Incorrect", "sk-", "acme"].iter().any(|part| shown.contains(part)), "{shown}");
    // Other errors are passed on, without the key.
    let said = "quota of sk-ours (sk-***rs, key sk-...rs) is used up";
    let error = json!({ "error": { "message": said, "code": "insufficient_quota" } });
    for code in [400, 404, 429, 500, 503] {
        for place in 0..4 {
            let headers = vec![("request-id", "of sk-ours"), ("retry-after", "3")];
            upstream.next(Mode::Reply(code, headers, error.to_string()));
            let answer = asked(place).await;
            assert_eq!((answer.status, answer.header("retry-after")), (code, "3"));
            assert_eq!(answer.header("request-id"), "");
            assert_eq!(
                answer.body["error"]["message"], "quota of *** (***, key ***) is used up",
                "{code} {place}"
            );
        }
    }
    let stream = "data: {\"error\":{\"message\":\"bad key sk-ours, sk-***rs\"}}\n\n";
    upstream.next(Mode::Events(vec![stream.into()]));
    let streamed = ask(&server, &with(question("whose key?"), json!({ "stream": true }))).await;
    assert!(!streamed.body.to_string().contains("ours"), "{}", streamed.body);
    assert!(!is_hit(&ask(&server, &question("whose key?")).await), "nothing of it is kept");
}

/// Caches in between know that what comes with `authorization` is one client's, and know no other header of the kind.
#[tokio::test]
async fn a_reply_to_a_credential_is_private() {
    let (_dir, upstream, server) = start(&[]).await;
    upstream.usually(Mode::Reply(200, vec![("cache-control", "public, max-age=60")], "{}".into()));
    let asked = async |headers: &[(&str, &str)]| {
        let answer = server.ask("GET", "/v1/models/m", headers, "").await;
        let said = answer.headers.get_all("cache-control").iter();
        said.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&[]).await, ["public, max-age=60"]);
    assert_eq!(asked(&[("x-api-key", "one")]).await, ["public, max-age=60", "private"]);
}

/// The key is the client's, and so is what is said of it.
#[tokio::test]
async fn an_upstreams_message_about_a_clients_key_reaches_that_client_only() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    let said = json!({ "error": { "message": "Incorrect API key provided: sk-***ne" } });
    for code in [401, 403] {
        upstream.next(Mode::Reply(code, vec![], said.to_string()));
        let answer = server.ask("POST", CHAT, &[("api-key", "sk-mine")], question("mine").to_string()).await;
        assert_eq!((answer.status, &answer.body), (code, &said));
        assert_eq!(status(&answer), "fwd=miss");
    }
}

/// An old answer is better than none while the operator looks for a new key.
#[tokio::test]
async fn a_stale_answer_is_served_if_an_upstream_refuses_the_key() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(question("price?"), json!({ "cache": { "ttl": 1 } }));
    let first = ask(&server, &body).await;
    // Until it is on the disk, those who ask the same join it.
    quiet(&server).await;
    let kept_only = with(question("price?"), json!({ "cache": { "only-if-cached": true } }));
    until("it has ended", async || ask(&server, &kept_only).await.status == 504).await;
    upstream.next(Mode::Reply(401, vec![], "no".into()));
    let old = ask(&server, &body).await;
    assert_eq!((old.status, &old.body["choices"]), (200, &first.body["choices"]));
    assert!(status(&old).starts_with("fwd=stale"), "{}", status(&old));
}
