//! Goal: clients with different credentials share no answer, and only the listed requests carry the operator's key. Method: requests with
//! each kind of credential before an upstream that records their headers.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CHAT, ask, is_hit, question, start};
use crate::program::{Answer, likewise, output};
use crate::upstream::{Mode, Upstream};

/// Services put keys into headers of their own.
#[tokio::test]
async fn every_header_with_a_credential_distinguishes_clients() {
    let (_dir, upstream, server) = start(&[]).await;
    let asked = async |headers: &[(&str, &str)]| {
        server.ask("POST", CHAT, headers, question("mine").to_string()).await
    };
    let clients: [&[(&str, &str)]; 16] = [
        &[],
        &[("api-key", "one")],
        &[("api-key", "two")],
        &[("x-api-key", "one")],
        &[("x-goog-api-key", "one")],
        &[("ocp-apim-subscription-key", "one")],
        &[("x-auth-token", "one")],
        &[("x-unheard-of-token", "one")],
        &[("cookie", "session=one")],
        &[("proxy-authorization", "Basic b25l")],
        &[("authorization", "Bearer one")],
        &[("authorization", "Bearer one"), ("api-key", "one")],
        &[("authorization", "Bearer one"), ("api-key", "two")],
        &[("authorization", "Bearer one"), ("authorization", "Bearer two")],
        &[("authorization", "Bearer two"), ("authorization", "Bearer one")],
        &[("authorization", "")],
    ];
    for client in clients {
        assert!(!is_hit(&asked(client).await), "{client:?}");
    }
    for client in clients {
        assert!(is_hit(&asked(client).await), "{client:?}");
    }
    // Nor are they another's to see.
    for seen in upstream.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
        let shown = seen.headers.iter().filter(|(_, value)| value.contains("one") || value.contains("two"));
        assert_eq!(shown.count(), 0, "{:?}", seen.headers);
    }
    // Nor in the query.
    server.ask("POST", &format!("{CHAT}?api-version=1&api-key=one"), &[], question("mine").to_string()).await;
    server.ask("POST", "/v1/moderations?key=one", &[], r#"{"model":"m"}"#).await;
    let paths: Vec<String> = upstream.seen().into_iter().rev().take(2).map(|seen| seen.path).collect();
    assert_eq!(paths, ["/v1/moderations", "/v1/chat/completions?api-version=1"]);
    // A header that is no credential does not separate clients.
    assert!(is_hit(&asked(&[("idempotency-key", "1"), ("x-stainless-retry-count", "1")]).await));
    let given = async |key: &str, path: &str, body: Value| {
        server.ask("POST", path, &[("api-key", key)], body.to_string()).await
    };
    assert_eq!(given("one", "/v1/answers", json!({ "prompt": "a", "answer": "b" })).await.status, 201);
    let found =
        async |key| given(key, "/v1/answers/lookup", json!({ "prompt": "a" })).await.body["hit"].clone();
    assert_eq!((found("one").await, found("two").await), (json!(true), json!(false)));
}

#[tokio::test]
async fn a_clients_credential_is_forwarded_only_if_configured() {
    let credentials =
        [("api-key", "a-key"), ("x-api-key", "x-key"), ("x-goog-api-key", "g-key"), ("cookie", "c-key")];
    let everywhere = async |server: &crate::program::Server| {
        server.ask("POST", CHAT, &credentials, question("mine").to_string()).await;
        server.ask("POST", "/v1/fim/completions", &credentials, r#"{"model":"m"}"#).await;
        server.ask("GET", "/v1/models/m", &credentials, "").await;
        server.ask("GET", "/v1/models", &credentials, "").await;
    };
    let (_dir, upstream, server) = start(&[]).await;
    everywhere(&server).await;
    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    for seen in seen {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
        assert!(!format!("{:?}", seen.headers).contains("-key\""), "{:?}", seen.headers);
    }
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    everywhere(&server).await;
    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    for seen in seen {
        assert_eq!((seen.header("api-key"), seen.header("x-api-key")), (Some("a-key"), Some("x-key")));
        assert_eq!((seen.header("x-goog-api-key"), seen.header("cookie")), (Some("g-key"), None));
        assert_eq!(seen.header("authorization"), None);
        let lines = seen.headers.iter().filter(|(name, _)| name.ends_with("api-key")).count();
        assert_eq!(lines, 3, "each once: {:?}", seen.headers);
    }
}

#[test]
fn a_credential_cannot_be_a_forwarded_header() {
    for name in ["api-key", "X-Api-Key", "authorization", "cookie", "ocp-apim-subscription-key"] {
        let dir = TempDir::new().unwrap();
        let mut program = likewise("serve", dir.path());
        program.args(["--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9/v1"]);
        let output =
            output(program.env("LIKEWISE__UPSTREAM__FORWARDED_HEADERS", format!("openai-beta,{name}")));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("forwarded_headers"), "{name}: {said}");
        assert!(said.to_lowercase().contains(&name.to_lowercase()), "{said}");
    }
}

fn is_not_listed(answer: &Answer) -> bool {
    let message = answer.body["error"]["message"].as_str().unwrap_or_default();
    answer.status == 404 && answer.error().0 == "not_found" && message.contains("upstream.forwards")
}

#[tokio::test]
async fn the_operators_key_is_used_for_listed_requests_only() {
    let (_dir, upstream, server) = start(&[]).await;
    upstream.usually(Mode::Reply(200, vec![], "theirs".into()));
    let body = r#"{"model":"m"}"#;
    let listed = [
        ("POST", "/v1/fim/completions"),
        ("POST", "/v1/responses/compact"),
        ("GET", "/v1/responses/resp_1"),
        ("HEAD", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items?limit=1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/rerank"),
        ("GET", "/v1/models/other"),
    ];
    for (method, path) in listed {
        assert_eq!(server.ask(method, path, &[], body).await.status, 200, "{method} {path}");
    }
    assert_eq!(upstream.calls(), listed.len());
    let paths = [
        "files",
        "files/file-1/content",
        "organization/users",
        "organization/admin_api_keys",
        "fine_tuning/jobs",
        "batches",
        "vector_stores",
        "assistants",
        "threads/t/messages",
        "uploads",
        "evals",
        "containers",
        "realtime/client_secrets",
        "Files",
        "%66iles",
        "responses/%252e%252e%252ffiles",
        "models/x%3f/files",
        "chat/completions/chatcmpl-1",
    ];
    for path in paths {
        for method in ["GET", "POST", "DELETE"] {
            let answer = server.ask(method, &format!("/v1/{path}"), &[], body).await;
            assert!(is_not_listed(&answer), "{method} {path}: {}", answer.body);
        }
    }
    for (method, path) in [("GET", CHAT), ("DELETE", "/v1/models/m"), ("GET", "/v1/completions")] {
        assert!(is_not_listed(&server.ask(method, path, &[], "").await), "{method} {path}");
    }
    // Nor does a header make another request of it.
    for name in ["x-http-method-override", "x-original-url", "x-rewrite-url"] {
        server.ask("POST", "/v1/moderations", &[(name, "DELETE")], body).await;
        assert_eq!(upstream.seen().last().unwrap().header(name), None, "{name}");
    }
    assert_eq!(upstream.calls(), listed.len() + 3);

    let own = ("LIKEWISE__UPSTREAM__FORWARDS", "GET /files/*,* /threads/**");
    let (_dir, upstream, server) = start(&[own]).await;
    upstream.usually(Mode::Reply(200, vec![], "theirs".into()));
    for (method, path) in [("GET", "/v1/files/f"), ("PATCH", "/v1/threads/a/b/c")] {
        assert_eq!(server.ask(method, path, &[], "").await.status, 200, "{method} {path}");
    }
    assert!(is_not_listed(&server.ask("POST", "/v1/moderations", &[], body).await));
    assert!(!is_hit(&ask_listed(&server).await), "what is served here is no matter of the list");
}

async fn ask_listed(server: &crate::program::Server) -> Answer {
    ask(server, &question("listed")).await
}

/// Which upstream is asked decides whose key it is, and a model is named in a path, in JSON or in a form.
#[tokio::test]
async fn the_list_does_not_apply_if_clients_keys_are_forwarded() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    upstream.usually(Mode::Reply(200, vec![], "theirs".into()));
    let mine = [("authorization", "Bearer mine")];
    for (method, path) in [("GET", "/v1/files"), ("DELETE", "/v1/models/m"), ("GET", CHAT)] {
        assert_eq!(server.ask(method, path, &mine, "").await.status, 200, "{method} {path}");
        assert_eq!(upstream.seen().last().unwrap().header("authorization"), Some("Bearer mine"));
    }

    let (dir, theirs, ours) = (TempDir::new().unwrap(), Upstream::start().await, Upstream::start().await);
    theirs.usually(Mode::Reply(200, vec![], "theirs".into()));
    let config = format!(
        "[upstream]\nbase_url = \"{}\"\n[[upstream.routes]]\nmodels = [\"own-*\"]\nbase_urls = [\"{}\"]\nforward_client_key = true\n",
        ours.url, theirs.url
    );
    fs_err::write(dir.path().join("config.toml"), config).unwrap();
    let mut program = likewise("serve", &dir.path().join("data"));
    program.arg("--config").arg(dir.path().join("config.toml")).env("OPENAI_API_KEY", "sk-ours");
    let server = crate::program::Server::spawn(&mut program);
    let form = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nown-1\r\n--x--\r\n";
    let is_form = [("content-type", "multipart/form-data; boundary=x"), mine[0]];
    assert_eq!(server.ask("POST", "/v1/files", &is_form, form).await.status, 200);
    assert_eq!(server.ask("POST", "/v1/batches", &mine, r#"{"model":"own-1"}"#).await.status, 200);
    assert_eq!(server.ask("DELETE", "/v1/models/own-1", &mine, "").await.status, 200);
    assert_eq!(theirs.calls(), 3);
    assert!(theirs.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer mine")));
    for (path, body) in [
        ("/v1/files", ""),
        ("/v1/files?model=own-1", ""),
        ("/v1/batches", r#"{"model":"other"}"#),
        ("/v1/batches", r#"["own-1"]"#),
        ("/v1/batches", "model=own-1"),
    ] {
        assert!(is_not_listed(&server.ask("POST", path, &mine, body).await), "{path} {body}");
    }
    assert_eq!(ours.calls(), 0);
}
