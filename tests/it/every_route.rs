//! Goal: every route treats content codings, pages of other origins and wrong keys alike. Method: one route of each kind, over a socket.

use std::io::{Read, Write};

use serde_json::json;
use tempfile::TempDir;

use crate::program::Server;
use crate::raw::{Raw, Reply, ask};

const KEY: &str = "a-key-of-the-server";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// The body of an answer in clear.
fn plain(reply: &Reply) -> Vec<u8> {
    let mut plain = Vec::new();
    match reply.header("content-encoding") {
        None => plain.clone_from(&reply.body),
        Some("gzip") => _ = flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut plain).unwrap(),
        Some("zstd") => plain = zstd::decode_all(&reply.body[..]).unwrap(),
        Some(other) => panic!("{other} was not asked for"),
    }
    plain
}

fn get(server: &Server, path: &str, lines: &str) -> Reply {
    ask(server, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n")).unwrap()
}

#[tokio::test]
async fn compressed_bodies_are_read_within_limits() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__BODY_BYTES_MAX", "4000000")]);
    let body = json!({ "model": "fake-model", "input": "a text" }).to_string();
    let post = async |coding: &str, body: Vec<u8>| {
        server.ask("POST", "/v1/embeddings", &[("content-encoding", coding)], body).await
    };
    let expected = post("identity", body.clone().into()).await;
    for (coding, coded) in [("gzip", gzip(body.as_bytes())), ("zstd", zstd(body.as_bytes()))] {
        let answer = post(coding, coded.clone()).await;
        assert_eq!((answer.status, &answer.body), (200, &expected.body), "{coding}");
        let cut_off = post(coding, coded[..coded.len() - 3].to_vec()).await;
        assert_eq!(cut_off.status, 400, "{coding}");
        assert_eq!(post(coding, body.clone().into()).await.status, 400, "{coding}: it is not");
        assert_eq!(post(&format!("{coding}, {coding}"), coded).await.status, 415);
    }
    for bomb in [gzip(&vec![b' '; 100_000_000]), gzip(&vec![b' '; 3_900_000])] {
        assert_eq!(post("gzip", bomb).await.status, 413);
    }
    assert_eq!(post("zstd", zstd(&vec![b' '; 100_000_000])).await.status, 413);
    for coding in ["br", "deflate", "compress", "gzip, zstd", "GZIP, br"] {
        let answer = post(coding, body.clone().into()).await;
        assert_eq!((answer.status, answer.header("accept-encoding")), (415, "gzip, zstd"), "{coding}");
        assert_eq!(answer.error(), ("unsupported_coding", Some("content-encoding")));
    }
    let documents = json!({ "documents": [{ "id": "a", "vector": [1.0] }] }).to_string();
    assert_eq!(server.ask("PUT", "/v1/collections/c", &[], r#"{"dimensions":1}"#).await.status, 201);
    let path = "/v1/collections/c/documents";
    let coded = [("content-encoding", "gzip")];
    assert_eq!(server.ask("POST", path, &coded, gzip(documents.as_bytes())).await.status, 200);
}

#[tokio::test]
async fn answers_are_compressed_for_clients_who_ask() {
    let server = Server::start();
    let contract = get(&server, "/openapi.json", "");
    assert_eq!(
        (contract.header("content-encoding"), contract.header("vary")),
        (None, Some("accept-encoding"))
    );
    for (asked, coding) in [
        ("gzip, deflate", Some("gzip")),
        ("zstd", Some("zstd")),
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip;q=0", None),
        ("br", None),
        ("identity", None),
    ] {
        let reply = get(&server, "/openapi.json", &format!("accept-encoding: {asked}\r\n"));
        assert_eq!(reply.header("content-encoding"), coding, "{asked}");
        assert_eq!(reply.header("vary"), Some("accept-encoding"), "{asked}");
        assert!(plain(&reply) == contract.body, "{asked}");
        assert_eq!(reply.body.len() < contract.body.len(), coding.is_some(), "{asked}");
    }
    let asked = "accept-encoding: gzip\r\n";
    assert_eq!(get(&server, "/healthz", asked).header("content-encoding"), None, "it is short");
    // Objects have a strong entity tag, which stands for their bytes.
    let object = "x".repeat(5000);
    let json = [("content-type", "application/json")];
    assert_eq!(server.ask("PUT", "/v1/cache/default/k", &json, object.clone()).await.status, 204);
    let reply = get(&server, "/v1/cache/default/k", asked);
    assert_eq!((reply.header("content-encoding"), &reply.body[..]), (None, object.as_bytes()));
}

#[tokio::test]
async fn a_head_request_is_answered_by_the_head_of_get() {
    let server = Server::start();
    assert_eq!(server.ask("PUT", "/v1/cache/default/k", &[], "value").await.status, 204);
    for path in ["/healthz", "/openapi.json", "/v1/models", "/v1/cache/default/k", "/v1/cache/default/none"] {
        let got = get(&server, path, "");
        let mut connection = Raw::connect(&server);
        for _ in 0..2 {
            // The connection goes on behind it, so no body was sent.
            let head =
                connection.send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).head().unwrap();
            assert_eq!(head.status, got.status, "{path}");
            assert_eq!(head.header("content-length"), got.header("content-length"), "{path}");
            assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        }
    }
}

#[tokio::test]
async fn pages_of_listed_origins_are_served() {
    for keys in [None, Some(("LIKEWISE__HTTP__API_KEYS", KEY))] {
        let dir = TempDir::new().unwrap();
        let cors = ("LIKEWISE__HTTP__CORS", "https://app.example,http://localhost:3000");
        let server =
            Server::start_in(dir.path(), &[&[cors][..], &keys.map_or(vec![], |keys| vec![keys])].concat());
        let authorization = format!("authorization: Bearer {KEY}\r\n");
        let preflight = |origin: &str| {
            let lines = "access-control-request-method: POST\r\n\
                         access-control-request-headers: authorization, content-type\r\n\
                         access-control-request-private-network: true\r\n";
            let head = format!(
                "OPTIONS /v1/embeddings HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n{lines}\r\n"
            );
            ask(&server, head).unwrap()
        };
        for origin in ["https://app.example", "http://localhost:3000"] {
            let reply = preflight(origin);
            assert_eq!(reply.status, 204, "{origin}");
            assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
            assert_eq!(reply.header("access-control-allow-headers"), Some("authorization, content-type"));
            assert!(reply.header("access-control-allow-methods").unwrap().contains("POST"));
            assert_eq!(reply.header("access-control-allow-private-network"), Some("true"));
            let from_page = format!("origin: {origin}\r\nsec-fetch-site: cross-site\r\n{authorization}");
            let reply = get(&server, "/v1/models", &from_page);
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)));
            assert!(reply.header("access-control-expose-headers").unwrap().contains("x-request-id"));
            assert!(reply.head.contains("vary: origin"), "{}", reply.head);
            let missing = get(&server, "/v1/models/none", &from_page);
            assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, Some(origin)));
        }
        for origin in
            ["null", "https://evil.example", "https://app.example.evil.example", "http://app.example"]
        {
            let reply = preflight(origin);
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None), "{origin}");
            assert!(String::from_utf8_lossy(&reply.body).contains("http.cors"));
            let reply = get(&server, "/v1/models", &format!("origin: {origin}\r\n{authorization}"));
            // With a key of ours it is served, but no browser shows it to the page.
            assert_eq!(
                (reply.status == 403, reply.header("access-control-allow-origin")),
                (keys.is_none(), None)
            );
        }
        if keys.is_some() {
            let reply = get(&server, "/v1/models", "origin: https://app.example\r\n");
            assert_eq!(
                (reply.status, reply.header("access-control-allow-origin")),
                (401, Some("https://app.example"))
            );
        }
    }
}

#[tokio::test]
async fn without_listed_origins_no_page_is_served() {
    let server = Server::start();
    let reply = get(&server, "/v1/models", "origin: https://app.example\r\nsec-fetch-site: cross-site\r\n");
    assert_eq!(reply.status, 403);
    assert!(String::from_utf8_lossy(&reply.body).contains("http.cors"), "the way out is named");
    let preflight = "OPTIONS /v1/models HTTP/1.1\r\nhost: localhost\r\norigin: https://app.example\r\n\
                     access-control-request-method: GET\r\n\r\n";
    assert_eq!(ask(&server, preflight).unwrap().status, 403);
}

#[tokio::test]
async fn wrong_keys_are_slowed_and_counted_and_right_ones_served() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__API_KEYS", KEY)]);
    for _ in 0..50 {
        assert_eq!(get(&server, "/v1/models", "").status, 401, "a client that shows no key guesses none");
    }
    let mut guesses: Vec<Raw> = (0..120).map(|_| Raw::connect(&server)).collect();
    let guess = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\n\r\n";
    for connection in &mut guesses {
        connection.send(guess);
    }
    let replies: Vec<Reply> = guesses.iter_mut().map(|connection| connection.reply().unwrap()).collect();
    let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(401), count(429)), (100, 20));
    for slowed in replies.iter().filter(|reply| reply.status == 429) {
        assert!((1..=60).contains(&slowed.header("retry-after").unwrap().parse::<u32>().unwrap()));
    }
    let right = get(&server, "/metrics", &format!("authorization: Bearer {KEY}\r\n"));
    assert_eq!(right.status, 200);
    let metrics = String::from_utf8(right.body).unwrap();
    assert!(metrics.contains("likewise_http_wrong_keys_total 120"), "{metrics}");
}

#[tokio::test]
async fn no_answer_is_taken_for_another_type() {
    let server = Server::start();
    let html = [("content-type", "text/plain")];
    assert_eq!(server.ask("PUT", "/v1/cache/default/k", &html, "<script>").await.status, 204);
    for path in ["/v1/cache/default/k", "/v1/cache/default/none", "/healthz", "/openapi.json", "/nope"] {
        assert_eq!(get(&server, path, "").header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}
