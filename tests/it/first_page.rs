//! What a newcomer meets: the first page, paths that are almost right, and an upstream whose address is almost right.

use base64_simd::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::model;
use crate::program::{Answer, Server, likewise};

const KEY: &str = "a-key-of-the-server";
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

fn with_keys(dir: &TempDir) -> Server {
    Server::start_in(dir.path(), &[("LIKEWISE__HTTP__API_KEYS", KEY)])
}

fn message(answer: &Answer) -> &str {
    answer.body["error"]["message"].as_str().unwrap_or_else(|| panic!("no message in {}", answer.body))
}

/// What only a sender who may see numbers is shown.
fn shows_numbers(answer: &Answer) -> bool {
    let text = answer.body.to_string();
    [env!("CARGO_PKG_VERSION"), model::NAME, "uptime", "up for", "misses"]
        .iter()
        .any(|word| text.contains(word))
}

#[tokio::test]
async fn the_first_page_shows_programs_and_people_what_the_server_does() {
    let server = Server::start();
    server.embed(&["uno", "dos"]).await;
    server.embed(&["uno"]).await;
    let json = server.get("/").await;
    assert_eq!((json.status, json.header("content-type")), (200, "application/json"));
    assert_eq!(json.body["state"]["texts"], json!({ "hits": 1, "coalesced": 0, "misses": 2 }));
    assert_eq!(json.body["state"]["models"], json!([model::NAME]));
    assert_eq!(json.body["state"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(json.body.get("hint").is_none());
    for (name, link) in json.body["links"].as_object().unwrap() {
        assert_eq!(server.get(link.as_str().unwrap()).await.status, 200, "{name}");
    }

    let html = server.ask("GET", "/", &[BROWSER], "").await;
    let text = html.body.as_str().unwrap();
    assert_eq!((html.status, html.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(
        text.contains("<th>texts</th><td>1</td><td>0</td><td>2</td>") && text.contains(model::NAME),
        "{text}"
    );
    for link in json.body["links"].as_object().unwrap().values() {
        assert!(text.contains(&format!("href={link}")), "{link}");
    }
    // It loads nothing, and no other origin can frame it.
    let policy = html.header("content-security-policy");
    let style = text.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let hash = STANDARD.encode_to_string(digest(&SHA256, style.as_bytes()).as_ref());
    assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "{policy}: {hash}");
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("<script"), "{text}");
    assert!(!text.contains("style=") && !text.contains("src="), "{text}");
    assert_eq!((html.header("cache-control"), html.header("vary")), ("no-store", "accept, authorization"));
    let head = server.ask("HEAD", "/", &[BROWSER], "").await;
    assert_eq!((head.status, head.body), (200, Value::String(String::new())));
}

#[tokio::test]
async fn the_first_page_shows_no_number_to_a_sender_without_a_key() {
    let dir = TempDir::new().unwrap();
    let server = with_keys(&dir);
    let authorization = format!("Bearer {KEY}");
    for accept in [BROWSER, ("accept", "*/*")] {
        let visitor = server.ask("GET", "/", &[accept], "").await;
        assert_eq!(visitor.status, 200);
        assert!(!shows_numbers(&visitor), "{}", visitor.body);
        assert!(visitor.body.to_string().contains("authorization: Bearer KEY"), "{}", visitor.body);
        assert!(visitor.body.to_string().contains("/openapi.json"), "{}", visitor.body);
        let known = server.ask("GET", "/", &[accept, ("authorization", &authorization)], "").await;
        assert!(known.status == 200 && shows_numbers(&known), "{}", known.body);
        let wrong = server.ask("GET", "/", &[accept, ("authorization", "Bearer wrong")], "").await;
        assert_eq!((wrong.status, wrong.error().0), (401, "invalid_api_key"));
    }
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn the_first_page_shows_no_number_to_pages_of_elsewhere() {
    let server = Server::start();
    for header in
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), ("host", "evil.example")]
    {
        let page = server.ask("GET", "/", &[BROWSER, header], "").await;
        assert!(page.status == 200 && !shows_numbers(&page), "{header:?}: {} {}", page.status, page.body);
    }
}

#[tokio::test]
async fn unknown_routes_name_the_nearest_one() {
    let server = Server::start();
    for (method, path, near) in [
        ("POST", "/embeddings", "did you mean `POST /v1/embeddings`?"),
        ("POST", "/v1/v1/embeddings", "did you mean `POST /v1/embeddings`?"),
        ("POST", "/api/embeddings", "did you mean `POST /v1/embeddings`?"),
        ("POST", "/v1/embedding", "did you mean `POST /v1/embeddings`?"),
        ("POST", "/v1/chat/completion", "did you mean `POST /v1/chat/completions`?"),
        ("GET", "/models", "did you mean `GET /v1/models`?"),
        ("PUT", "/cache/products/42", "did you mean `PUT /v1/cache/"),
        ("GET", "/docs", "did you mean `/openapi.json`?"),
        ("GET", "/nothing/like/it", "`GET /` links to those that there are"),
    ] {
        let answer = server.ask(method, path, &[], "").await;
        assert_eq!(answer.status, 404, "{method} {path}");
        let said = message(&answer);
        assert!(said.contains(near) && said.contains(path), "{method} {path}: {said}");
    }
    let answer = server.ask("POST", "/v1/chat/completions", &[], "{}").await;
    assert!(
        message(&answer).contains("needs an upstream: start the server with --upstream URL"),
        "{}",
        answer.body
    );
    let answer = server.ask("GET", "/v1/embeddings", &[], "").await;
    assert_eq!((answer.status, message(&answer)), (405, "`/v1/embeddings` takes POST, not GET"));
    let long = server.get(&format!("/{}", "a/".repeat(3000))).await;
    assert!(long.status == 404 && message(&long).len() < 100, "{}", long.body);
    let dir = TempDir::new().unwrap();
    assert_eq!(with_keys(&dir).get("/embeddings").await.status, 401);
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_route_is_ignored_unless_something_could_be_lost() {
    let server = Server::start();
    assert_eq!(server.get("/v1/models/").await.body, server.get("/v1/models").await.body);
    assert_eq!(server.get("/v1/collections/?limit=1").await.status, 200);
    assert_eq!(server.get("/healthz/").await.status, 200);
    assert_eq!(server.get("/health/").await.status, 200);
    let body = json!({ "model": model::NAME, "input": "uno" }).to_string();
    assert_eq!(server.ask("POST", "/v1/embeddings/", &[], body).await.status, 200);
    assert_eq!(server.get(&format!("/v1/models/{}/", model::NAME)).await.status, 200);
    assert_eq!(server.get("/v1/models//").await.status, 404);

    // A slash inside a key is a part of it.
    for (key, value) in [("a", "without"), ("a%2F", "with")] {
        let stored = server.ask("PUT", &format!("/v1/cache/products/{key}"), &[], value).await;
        assert!(stored.status < 300, "{}", stored.body);
    }
    assert_eq!(server.get("/v1/cache/products/a%2F").await.body, "with");
    assert_eq!(server.get("/v1/cache/products/a/").await.status, 400);
    assert_eq!(server.get("/v1/cache/products/a").await.body, "without");
    // `DELETE /v1/collections/$NAME/` with a name, or a document that is forgotten, removes no collection.
    let spec = json!({ "metric": "cosine" }).to_string();
    assert!(server.ask("PUT", "/v1/collections/kept", &[], spec).await.status < 300);
    assert!(matches!(server.ask("DELETE", "/v1/collections/kept/", &[], "").await.status, 404 | 405));
    assert_eq!(server.get("/v1/collections/kept").await.status, 200);
    // An empty id does not export the collection.
    for method in ["GET", "PATCH", "DELETE"] {
        let refused = server.ask(method, "/v1/collections/kept/documents/", &[], "").await;
        assert_eq!((refused.status, refused.error().1), (404, Some("id")), "{method}: {}", refused.body);
    }
    assert_eq!(server.get("/v1/collections/kept/count/").await.body["documents"], 0);
}

/// An upstream that knows no route and reports what it was asked.
async fn absent() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 16 * 1024];
                let _ = stream.read(&mut head).await;
                let body = "404 page not found";
                let reply = format!(
                    "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(reply.as_bytes()).await
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_its_version_is_hinted_at() {
    let url = absent().await;
    for (path, typed) in [("", "/v1"), ("/v1/chat/completions", "/v1"), ("/v1", "")] {
        let dir = TempDir::new().unwrap();
        let mut program = likewise("serve", dir.path());
        let log = dir.path().join("log");
        program.args(["--upstream", &format!("{url}{path}")]).env_remove("OPENAI_API_KEY");
        program.stderr(fs_err::File::create(&log).unwrap().into_parts().0);
        let server = tokio::task::block_in_place(|| Server::spawn(&mut program));
        let said = fs_err::read_to_string(&log).unwrap();
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hola" }] });
        let answer = server.ask("POST", "/v1/chat/completions", &[], body.to_string()).await;
        if typed.is_empty() {
            assert!(!said.contains("mistaken"), "{said}");
            assert_eq!((answer.status, &answer.body), (404, &Value::String("404 page not found".into())));
        } else {
            assert!(said.contains(&format!("type --upstream {url}{typed}")), "{said}");
            assert_eq!(answer.status, 502);
            assert!(message(&answer).contains("should end with the version"), "{}", answer.body);
            assert!(!answer.body.to_string().contains(&url), "{}", answer.body);
        }
    }
}
