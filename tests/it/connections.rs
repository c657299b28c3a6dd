//! Connections, byte by byte: which get a place, which make room, and how each one ends.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::Server;
use crate::raw::{Raw, ask};

const PROBE: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
const KEY: &str = "a-key-of-the-server";
const KEYS: (&str, &str) = ("LIKEWISE__HTTP__API_KEYS", KEY);

fn keyed(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n{more}\r\n")
}

fn embeddings(texts: usize) -> String {
    let texts: Vec<String> = (0..texts).map(|n| format!("text {n}")).collect();
    let body = json!({ "model": "fake-model", "input": texts }).to_string();
    format!("POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn idle_connections_make_room_and_probes_are_always_answered() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[KEYS, ("LIKEWISE__HTTP__CONNECTIONS_MAX", "8")]);
    let mut idle: Vec<Raw> = (0..8).map(|_| Raw::connect(&server)).collect();
    for connection in &mut idle {
        assert_eq!(connection.send(PROBE).reply().unwrap().status, 200);
    }
    // A client with a key is served though all places are taken, and stays when 200 others come.
    let mut client = Raw::connect(&server);
    assert_eq!(client.send(keyed("GET", "/v1/models", "")).reply().unwrap().status, 200);
    let mut more = Vec::new();
    for n in 0..200 {
        let mut connection = Raw::connect(&server);
        assert_eq!(connection.send(PROBE).reply().unwrap().status, 200, "probe {n}");
        more.push(connection);
    }
    assert_eq!(client.send(keyed("GET", "/v1/models", "")).reply().unwrap().status, 200);
    assert!(idle.iter_mut().all(Raw::is_ended), "the longest idle ones have made room");
    let metrics = client.send(keyed("GET", "/metrics", "")).reply().unwrap().body;
    let metrics = String::from_utf8(metrics).unwrap();
    let evicted =
        metrics.lines().find_map(|line| line.strip_prefix("likewise_http_connections_evicted_total "));
    assert!(evicted.unwrap().parse::<u32>().unwrap() >= 200, "{evicted:?}");
}

#[tokio::test]
async fn connections_in_use_make_no_room() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[KEYS, ("LIKEWISE__HTTP__CONNECTIONS_MAX", "4")]);
    let begun = keyed("PUT", "/v1/cache/default/k", "content-length: 4\r\nexpect: 100-continue\r\n");
    let mut busy: Vec<Raw> = (0..4).map(|_| Raw::connect(&server)).collect();
    for connection in &mut busy {
        // The server asks for the body, so the request is under way.
        assert_eq!(connection.send(&begun).any_reply().unwrap().status, 100);
    }
    for path in ["/healthz", "/readyz"] {
        let mut probe = Raw::connect(&server);
        let reply = probe.send(keyed("GET", path, "")).reply().unwrap();
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.closes() && probe.is_ended(), "a place of the reserve is not held");
    }
    let refused = ask(&server, keyed("GET", "/v1/models", "")).unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    for connection in &mut busy {
        assert_eq!(connection.send("body").reply().unwrap().status, 204);
    }
    assert_eq!(ask(&server, keyed("GET", "/v1/models", "")).unwrap().status, 200);
}

#[tokio::test]
async fn public_pages_take_no_memory_that_clients_with_a_key_need() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[KEYS, ("LIKEWISE__HTTP__INFLIGHT_BYTES_MAX", "4194304")]);
    let page = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(ask(&server, page).unwrap().status, 200);
    let mut busy = Raw::connect(&server);
    let put = keyed("PUT", "/v1/cache/default/k", "content-length: 1000000\r\nexpect: 100-continue\r\n");
    assert_eq!(busy.send(put).any_reply().unwrap().status, 100);
    let refused = ask(&server, page).unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(ask(&server, PROBE).unwrap().status, 200);
    assert_eq!(ask(&server, keyed("GET", "/v1/models", "")).unwrap().status, 200);
    assert_eq!(busy.send(vec![b'v'; 1_000_000]).reply().unwrap().status, 204);
    assert_eq!(ask(&server, page).unwrap().status, 200);
}

#[tokio::test]
async fn a_first_head_must_come_soon() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__FIRST_HEADER_TIMEOUT_SECONDS", "5")]);
    let mut idle = Raw::connect(&server);
    assert_eq!(idle.send(PROBE).reply().unwrap().status, 200);
    let mut silent = Raw::connect(&server);
    let mut begun = Raw::connect(&server);
    begun.send("GET /healthz HTTP/1.1\r\nhost: loc");
    assert!(silent.is_ended() && begun.is_ended());
    assert_eq!(idle.send(PROBE).reply().unwrap().status, 200, "its first head has come");
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer() {
    let server = Server::start();
    for request in [PROBE.to_owned(), embeddings(20), "GET / HTTP/1.0\r\n\r\n".into()] {
        for _ in 0..10 {
            let mut connection = Raw::connect(&server);
            assert!(connection.send(&request).end().reply().is_some(), "{request}");
            assert!(connection.is_ended());
        }
    }
    let mut connection = Raw::connect(&server);
    connection.send(PROBE.repeat(3)).end();
    for _ in 0..3 {
        assert_eq!(connection.reply().unwrap().status, 200);
    }
    assert!(connection.is_ended());
    let whole = embeddings(1);
    let cut_off = &whole[..whole.len() - 5];
    assert_eq!(Raw::connect(&server).send(cut_off).end().reply().unwrap().status, 400, "half a body");
}

#[tokio::test]
async fn an_answer_before_the_body_says_whether_the_connection_goes_on() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[KEYS, ("LIKEWISE__HTTP__BODY_BYTES_MAX", "1000000")]);
    let early = [
        (keyed("POST", "/v1/nope", ""), 404),
        (keyed("PATCH", "/healthz", ""), 405),
        (keyed("POST", "/v1/collections/none/documents", ""), 404),
        ("POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n\r\n".into(), 401),
        (keyed("POST", "/v1/embeddings", "content-encoding: br\r\n"), 415),
        (keyed("POST", "/v1/embeddings", "host: other\r\n"), 400),
    ];
    for (head, status) in early {
        let head = head.trim_end();
        for (length, expects) in [(0, false), (200, false), (200_000, false), (200, true), (3_000_000, false)]
        {
            let expect = if expects { "expect: 100-continue\r\n" } else { "" };
            let mut connection = Raw::connect(&server);
            connection.send(format!("{head}\r\n{expect}content-length: {length}\r\n\r\n"));
            if !expects {
                connection.send(vec![b'x'; length]);
            }
            let reply = connection.reply().unwrap_or_else(|| panic!("{head}: {length} bytes, no answer"));
            assert_eq!(reply.status, status, "{head}: {length} bytes");
            if reply.closes() {
                assert!(length > 0, "{head}: there was no body to be read");
                connection.end();
                assert!(connection.is_ended(), "{head}: {length} bytes");
            } else {
                assert!(length <= 256 * 1024 && !expects, "{head}: {length} bytes");
                assert_eq!(connection.send(PROBE).reply().unwrap().status, 200, "{head}: {length} bytes");
            }
        }
    }
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused_while_it_is_sent() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__BODY_BYTES_MAX", "1000000")]);
    let post = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n";
    let mut stated = Raw::connect(&server);
    stated.send(format!("{post}content-length: 20000000\r\n\r\n")).send(vec![b'x'; 20_000_000]);
    let mut chunked = Raw::connect(&server);
    chunked.send(format!("{post}transfer-encoding: chunked\r\n\r\n"));
    for _ in 0..200 {
        chunked.send("186a0\r\n").send(vec![b'x'; 100_000]).send("\r\n");
    }
    for mut connection in [stated, chunked] {
        let reply = connection.reply().expect("an answer, though the client went on sending");
        assert_eq!(reply.status, 413);
        assert!(reply.closes() && connection.end().is_ended());
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let server = Server::start();
    let status = |version: &str, lines: &str| {
        ask(&server, format!("GET /healthz {version}\r\n{lines}\r\n")).map(|reply| reply.status)
    };
    for lines in
        ["", "host: a\r\nhost: a\r\n", "host: a b\r\n", "host: a/b\r\n", "host: u@a\r\n", "host: a:x\r\n"]
    {
        assert_eq!(status("HTTP/1.1", lines), Some(400), "{lines:?}");
    }
    for lines in ["host: localhost\r\n", "host: [::1]:80\r\n", "Host:localhost\r\n"] {
        assert_eq!(status("HTTP/1.1", lines), Some(200), "{lines:?}");
    }
    assert_eq!(status("HTTP/1.0", ""), Some(200));
    let targets = [("http://localhost/healthz", 200), ("http://evil.example/v1/models", 403), ("*", 404)];
    for (target, expected) in targets {
        let reply = ask(&server, format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")).unwrap();
        assert_eq!(reply.status, expected, "{target}");
    }
    for request in [
        "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let status = ask(&server, request).unwrap().status;
        assert!((400..500).contains(&status), "{request}: {status}");
    }
}

#[tokio::test]
async fn what_two_readers_could_read_differently_is_refused_or_ends_the_connection() {
    let server = Server::start();
    let post = "POST /healthz HTTP/1.1\r\nhost: localhost\r\n";
    for lines in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 4\r\n",
        "content-length: +3\r\n",
        "content-length: -1\r\n",
        "content-length: 0x3\r\n",
        "content-length: 18446744073709551616\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "content-length : 3\r\n",
        " content-length: 3\r\n",
        "content-length\r\n",
        "a: b\0c\r\n",
    ] {
        let mut connection = Raw::connect(&server);
        connection.send(format!("{post}{lines}\r\nabc{PROBE}"));
        let reply = connection.reply();
        let status = reply.as_ref().map(|reply| reply.status);
        assert!(matches!(status, None | Some(400)), "{lines:?}: {status:?}");
        assert!(connection.is_ended(), "{lines:?}: nothing more is read");
    }
    // With both, the chunks count, and the connection ends behind them (RFC 9112, section 6.3).
    for lines in [
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
    ] {
        let mut connection = Raw::connect(&server);
        connection.send(format!("{post}{lines}\r\n0\r\n\r\n{PROBE}"));
        assert!(connection.reply().is_none_or(|reply| reply.closes()), "{lines:?}");
        assert!(connection.is_ended(), "{lines:?}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered() {
    let server = Server::start();
    let lines = |count: usize, length: usize| {
        (0..count).map(|n| format!("x-{n}: {}\r\n", "y".repeat(length))).collect::<String>()
    };
    for (target, lines, expected) in [
        ("/healthz", lines(90, 100), 200),
        ("/healthz", lines(1, 70_000), 431),
        ("/healthz", lines(50, 20_000), 431),
        ("/healthz", lines(101, 1), 431),
        (&format!("/{}", "y".repeat(200_000)), String::new(), 431),
    ] {
        let mut connection = Raw::connect(&server);
        connection.send(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n"));
        assert_eq!(connection.reply().map(|reply| reply.status), Some(expected), "{} bytes", lines.len());
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_names_the_fault() {
    let server = Server::start();
    let post = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n";
    for (lines, status, param) in [
        ("content-length: 18446744073709551616\r\n", 400, "content-length"),
        ("content-length: 18446744073709551615\r\n", 413, "content-length"),
        ("content-length: 18446744073709551614\r\n", 413, "content-length"),
        ("content-length: 18446744073709551613\r\n", 413, ""),
        ("content-length: 9223372036854775808\r\n", 413, ""),
        ("content-length: 184467440737095516150\r\n", 400, "content-length"),
        ("content-length: -1\r\n", 400, "content-length"),
        ("content-length: +5\r\n", 400, "content-length"),
        ("content-length: 5, 5\r\n", 400, "content-length"),
        ("content-length: 5, 6\r\n", 400, "content-length"),
        ("content-length: 5\r\ncontent-length: 6\r\n", 400, "content-length"),
        ("content-length:\r\n", 400, "content-length"),
        ("content-length: five\r\n", 400, "content-length"),
        ("content-length: 5\r\ncontent-length: 18446744073709551615\r\n", 400, "content-length"),
        ("transfer-encoding: gzip\r\n", 400, "transfer-encoding"),
        ("content-length : 5\r\n", 400, ""),
    ] {
        let mut connection = Raw::connect(&server);
        let reply = connection.send(format!("{post}{lines}\r\nabcde")).reply().expect("an answer");
        let error: Value = serde_json::from_slice(&reply.body).expect("an error as JSON");
        let message = error["error"]["message"].as_str().expect("a message");
        assert_eq!(reply.status, status, "{lines:?}: {message}");
        assert_eq!(error["error"]["param"].as_str().unwrap_or_default(), param, "{lines:?}: {message}");
        assert!(message.contains(param), "{lines:?}: {message}");
        assert!(reply.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{lines:?}");
        assert!(reply.closes() && connection.end().is_ended(), "{lines:?}");
    }
    let twice = format!("{post}content-length: 2\r\ncontent-length: 2\r\n\r\n{{}}");
    assert_eq!(ask(&server, twice).unwrap().status, 400, "an empty request, read as one");
    let http_2 = ask(&server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("an answer");
    assert_eq!(http_2.status, 400);
    // What was asked before is answered first, and as ever.
    let mut connection = Raw::connect(&server);
    connection.send(format!("{PROBE}{PROBE}nonsense\r\n\r\n"));
    let statuses = [(); 3].map(|()| connection.reply().map(|reply| reply.status));
    assert_eq!(statuses, [Some(200), Some(200), Some(400)]);
}

#[tokio::test]
async fn a_head_that_is_not_sent_whole_does_not_hold_up_a_stop() {
    let dir = TempDir::new().unwrap();
    let hours = [
        "LIKEWISE__HTTP__DRAIN_SECONDS",
        "LIKEWISE__HTTP__FIRST_HEADER_TIMEOUT_SECONDS",
        "LIKEWISE__HTTP__HEADER_TIMEOUT_SECONDS",
    ]
    .map(|name| (name, "3600"));
    let server = Server::start_in(dir.path(), &hours);
    let (mut silent, mut idle, mut begun) =
        (Raw::connect(&server), Raw::connect(&server), Raw::connect(&server));
    assert_eq!(idle.send(PROBE).reply().unwrap().status, 200);
    assert_eq!(begun.send(PROBE).reply().unwrap().status, 200);
    begun.send("GET /healthz HTTP/1.1\r\nhost: loc");
    let mut first = Raw::connect(&server);
    first.send("GET /hea");
    // What is under way is finished: the body of this request comes after the signal.
    let mut busy = Raw::connect(&server);
    let put = "PUT /v1/cache/default/k HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n";
    assert_eq!(busy.send(put).any_reply().unwrap().status, 100);
    server.signal("TERM");
    for connection in [&mut silent, &mut idle, &mut begun, &mut first] {
        assert!(connection.is_ended());
    }
    let reply = busy.send("v").reply().unwrap();
    assert_eq!((reply.status, reply.closes()), (204, true));
    assert!(server.wait().success());
}

#[tokio::test]
async fn no_signal_ends_the_server_but_those_that_stop_it() {
    for stop in ["TERM", "INT", "QUIT"] {
        let server = Server::start();
        for ignored in ["HUP", "USR1", "USR2", "ALRM", "PIPE", "XFSZ", "IO", "VTALRM", "PROF", "RTMIN"] {
            server.signal(ignored);
        }
        assert_eq!(server.get("/readyz").await.status, 200);
        server.signal(stop);
        assert!(server.wait().success(), "{stop}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_requests_under_way_and_keeps_what_was_stored() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__DRAIN_SECONDS", "3600")]);
    assert_eq!(server.ask("PUT", "/v1/cache/default/k", &[], "v").await.status, 204);
    server.embed(&["kept"]).await;
    let mut held = Raw::connect(&server);
    let head = "PUT /v1/cache/default/l HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n";
    assert_eq!(held.send(head).any_reply().unwrap().status, 100);
    server.signal("TERM");
    server.signal("TERM");
    // Signals of one kind that come together are one; a third is never too many.
    server.signal("INT");
    assert!(server.wait().success());
    let server = Server::start_in(dir.path(), &[]);
    assert_eq!(server.get("/v1/cache/default/k").await.body, "v");
    assert_eq!(server.embed(&["kept"]).await.counts(), (1, 0, 0));
}
