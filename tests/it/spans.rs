//! The lines by which an operator follows a request through the server: the request's id, the use case, its outcome.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::json;

use crate::program::{Server, likewise};

/// What the server logs at this level about an object that is stored, found, and missed.
async fn log(level: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut program = likewise("serve", dir.path());
    program.env("LIKEWISE_LOG", level).stderr(Stdio::from(writer));
    let server = Server::spawn(&mut program);
    // The command holds the pipe open.
    drop(program);
    let ask =
        async |method, path, id| server.ask(method, path, &[("x-request-id", id)], "bytes").await.status;
    assert_eq!(ask("PUT", "/v1/cache/products/a", "put-1").await, 204);
    assert_eq!(ask("GET", "/v1/cache/products/a", "get-1").await, 200);
    assert_eq!(ask("GET", "/v1/cache/products/b", "get-2").await, 404);
    let body = json!({ "model": "fake-model", "input": ["a secret text"] }).to_string();
    assert_eq!(server.ask("POST", "/v1/embeddings", &[("x-request-id", "embed-1")], body).await.status, 200);
    assert!(server.stop().success());
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    log
}

#[tokio::test]
async fn spans_have_the_id_of_the_request_and_the_outcome() {
    let log = log("debug").await;
    let line = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(line(&["id=\"put-1\"", "put", "namespace=products", "close"]), "{log}");
    assert!(line(&["id=\"get-1\"", "get", "outcome=\"hit\"", "close"]), "{log}");
    assert!(line(&["id=\"get-2\"", "get", "outcome=\"miss\"", "close"]), "{log}");
    assert!(line(&["id=\"get-2\"", "status=404", "close"]), "{log}");
    assert!(line(&["id=\"embed-1\"", "embed", "model=fake-model", "misses=1", "close"]), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn there_are_no_spans_by_default() {
    let log = log("info").await;
    assert!(log.contains("likewise") && !log.contains("get-1"), "{log}");
}
