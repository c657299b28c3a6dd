//! Objects over HTTP: stored, found in each tier, conditional, leased, batched, and every bad input refused.

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::program::{Answer, Server, until};

/// A server on `dir`; no request here needs its model.
async fn start_in(dir: &TempDir, environment: &[(&str, &str)]) -> Server {
    let endpoint = Endpoint::start().await;
    Server::spawn(remote(dir.path(), &endpoint.url).envs(environment.iter().copied()))
}

async fn start() -> (Server, TempDir) {
    let dir = TempDir::new().unwrap();
    (start_in(&dir, &[]).await, dir)
}

async fn put(server: &Server, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    server.ask("PUT", path, headers, body.to_owned()).await
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.ask("GET", path, headers, "").await
}

#[tokio::test]
async fn an_object_is_found_in_memory_and_after_a_restart_on_disk() {
    let (server, dir) = start().await;
    let product = json!({ "nombre": "camiseta", "color": "azul", "notas": "x".repeat(2000) }).to_string();
    let json_type = [("content-type", "application/json"), ("x-cache-ttl", "600")];
    let stored = put(&server, "/v1/cache/products/a%2Fñ%20b", &json_type, &product).await;
    assert_eq!(stored.status, 204, "{}", stored.body);
    let found = get(&server, "/v1/cache/productos/a%2F%C3%B1%20b", &[]).await;
    assert_eq!((found.status, found.body.to_string()), (200, product.clone()), "by an alias, too");
    assert_eq!(found.header("content-type"), "application/json");
    assert_eq!(found.header("etag"), stored.header("etag"));
    let status = found.header("cache-status").to_owned();
    assert!(status.starts_with("likewise; hit; ttl=") && status.ends_with("; detail=memory"), "{status}");
    assert!(server.stop().success());

    let server = start_in(&dir, &[("LIKEWISE__CACHE__WARM_RESTART__KEYS_MAX", "0")]).await;
    let found = get(&server, "/v1/cache/products/a%2F%C3%B1%20b", &[]).await;
    assert_eq!((found.status, found.body.to_string()), (200, product));
    assert!(found.header("cache-status").ends_with("; detail=disk"), "{}", found.header("cache-status"));
    let again = get(&server, "/v1/cache/products/a%2F%C3%B1%20b", &[]).await;
    assert!(again.header("cache-status").ends_with("; detail=memory"), "it was promoted");
    let gone = server.ask("DELETE", "/v1/cache/products/a%2F%C3%B1%20b", &[], "").await;
    assert_eq!(gone.status, 204);
    let missing = get(&server, "/v1/cache/products/a%2F%C3%B1%20b", &[]).await;
    assert_eq!((missing.status, missing.error()), (404, ("not_found", Some("key"))));
    assert_eq!(missing.header("cache-status"), "likewise; fwd=miss");
    assert_eq!(server.stat("/objects/hits").await, 2);
    assert_eq!(server.stat("/objects/misses").await, 1);
}

#[tokio::test]
async fn requests_may_be_conditional() {
    let (server, _dir) = start().await;
    let path = "/v1/cache/products/1";
    let etag = put(&server, path, &[], "one").await.header("etag").to_owned();
    let unchanged = get(&server, path, &[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status, unchanged.body.as_str()), (304, Some("")));
    assert_eq!(unchanged.header("etag"), etag);
    assert_eq!(get(&server, path, &[("if-none-match", "\"other\", W/\"00\"")]).await.status, 200);
    let only_new = put(&server, path, &[("if-none-match", "*")], "two").await;
    assert_eq!((only_new.status, only_new.error().0), (412, "precondition_failed"));
    assert_eq!(put(&server, path, &[("if-match", "\"00\"")], "two").await.status, 412);
    assert_eq!(server.ask("DELETE", path, &[("if-match", "\"00\"")], "").await.status, 412);
    assert_eq!(get(&server, path, &[]).await.body, "one", "nothing was changed");
    assert_eq!(put(&server, path, &[("if-match", &etag)], "two").await.status, 204);
    assert_eq!(get(&server, path, &[]).await.body, "two");
    assert_eq!(put(&server, "/v1/cache/products/2", &[("if-none-match", "*")], "new").await.status, 204);
}

#[tokio::test]
async fn lists_of_tags_are_read_on_every_method_and_an_ended_object_is_absent() {
    let (server, _dir) = start().await;
    let path = "/v1/cache/products/1";
    let etag = put(&server, path, &[], "one").await.header("etag").to_owned();
    let (weak, listed) = (format!("W/{etag}"), format!("\"a,b\", , {etag}"));
    for known in [&etag, &weak, &listed] {
        assert_eq!(get(&server, path, &[("if-none-match", known)]).await.status, 304, "{known}");
    }
    let two_lines = [("if-none-match", "\"x\""), ("if-none-match", etag.as_str())];
    assert_eq!(get(&server, path, &two_lines).await.status, 304);
    assert_eq!(server.ask("HEAD", path, &two_lines, "").await.status, 304);
    assert_eq!(get(&server, path, &[("if-match", &listed)]).await.status, 200);
    assert_eq!(get(&server, path, &[("if-match", &weak)]).await.status, 412, "compared strongly");
    assert_eq!(server.ask("DELETE", path, &[("if-none-match", &listed)], "").await.status, 412);
    assert_eq!(
        put(&server, path, &[("if-match", &listed), ("if-none-match", "\"x\"")], "two").await.status,
        204
    );
    let past = ("if-unmodified-since", "Sat, 01 Jan 2000 00:00:00 GMT");
    assert_eq!(put(&server, path, &[past], "one").await.status, 204, "dates are ignored");
    assert_eq!(get(&server, path, &[("if-match", "*"), ("if-none-match", "\"x\"")]).await.body, "one");
    assert_eq!(get(&server, "/v1/cache/products/none", &[("if-match", "*")]).await.status, 404);

    put(&server, path, &[("x-cache-ttl", "1")], "ends").await;
    until("the object ends", async || get(&server, path, &[]).await.status == 404).await;
    let stale = [("cache-control", "max-stale")];
    let served = get(&server, path, &stale).await;
    assert_eq!((served.status, served.body.as_str()), (200, Some("ends")), "it may still be served");
    let etag = served.header("etag").to_owned();
    let asked = [stale[0], ("if-none-match", etag.as_str())];
    assert_eq!(get(&server, path, &asked).await.status, 200, "its end makes it new to the client");
    assert_eq!(put(&server, path, &[("if-match", &etag)], "two").await.status, 412);
    assert_eq!(server.ask("DELETE", path, &[("if-match", "*")], "").await.status, 412);
    let batch = server.ask("POST", "/v1/cache/products/batch", &[], r#"{"delete":["1"]}"#).await;
    assert_eq!(batch.body["deleted"], 0);
    assert_eq!(put(&server, path, &[("if-none-match", "*")], "two").await.status, 204);
}

#[tokio::test]
async fn a_content_encoding_is_given_back_also_after_a_restart() {
    let (server, dir) = start().await;
    let (path, other) = ("/v1/cache/products/1", "/v1/cache/products/2");
    let json_type = ("content-type", "application/json");
    // Not gzip at all: what the bytes are is between clients.
    let bytes = "x".repeat(5000);
    let coded = put(&server, path, &[json_type, ("content-encoding", "X-Gzip")], &bytes).await;
    let plain = put(&server, other, &[json_type, ("content-encoding", "identity")], &bytes).await;
    assert_eq!((coded.status, plain.status), (204, 204));
    assert_ne!(coded.header("etag"), plain.header("etag"), "other bytes to the one who decodes them");
    let refused = put(&server, path, &[("content-encoding", "rot13")], "x").await;
    assert_eq!((refused.status, refused.error().1), (415, Some("content-encoding")));
    let batched = server.ask("POST", "/v1/cache/products/batch", &[], r#"{"get":["1","2"]}"#).await;
    assert_eq!(batched.body["get"][0]["content_encoding"], "gzip");
    assert_eq!(batched.body["get"][1]["content_encoding"], json!(null));
    assert!(server.stop().success());

    let server = start_in(&dir, &[]).await;
    for _ in ["from disk", "from memory"] {
        let found = get(&server, path, &[]).await;
        assert_eq!((found.header("content-encoding"), found.header("etag")), ("gzip", coded.header("etag")));
        assert_eq!(get(&server, other, &[]).await.header("content-encoding"), "");
    }
}

#[tokio::test]
async fn cache_control_of_a_put_is_a_lifetime_and_that_of_a_get_asks_caches_to_come_again() {
    let (server, _dir) = start().await;
    let path = "/v1/cache/products/1";
    let ttl = async |headers: &[(&str, &str)]| {
        assert_eq!(put(&server, path, headers, "one").await.status, 204);
        let found = get(&server, path, &[]).await;
        assert_eq!(found.header("cache-control"), "no-cache");
        assert_eq!(found.header("x-content-type-options"), "nosniff");
        let status = found.header("cache-status").to_owned();
        status.split("ttl=").nth(1).unwrap().split(';').next().unwrap().parse::<u32>().unwrap()
    };
    assert!((50..=60).contains(&ttl(&[("cache-control", "max-age=60")]).await));
    assert!((80..=90).contains(&ttl(&[("cache-control", "max-age=60, s-maxage=90")]).await));
    assert!((20..=30).contains(&ttl(&[("cache-control", "max-age=0"), ("x-cache-ttl", "30")]).await));
    let month = 30 * 86_400;
    let longest = ttl(&[("cache-control", "public, max-age=31536000, immutable")]).await;
    assert!((month * 9 / 10..=month).contains(&longest), "shortened to what the namespace allows: {longest}");
    let etag = get(&server, path, &[]).await.header("etag").to_owned();
    let unchanged = get(&server, path, &[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status, unchanged.header("cache-control")), (304, "no-cache"));
    let missing = get(&server, "/v1/cache/products/none", &[]).await;
    assert_eq!((missing.status, missing.header("cache-control")), (404, "no-store"));
    for not_stored in ["no-store", "max-age=0", "s-maxage=0, max-age=60"] {
        assert_eq!(put(&server, path, &[("cache-control", not_stored)], "two").await.status, 204);
        let refused =
            put(&server, path, &[("cache-control", not_stored), ("if-none-match", "*")], "two").await;
        assert_eq!(refused.status, 412, "conditions hold all the same");
        assert_eq!(get(&server, path, &[]).await.body, "one");
    }
    let large = put(&server, path, &[("x-cache-ttl", "99999999999")], "two").await;
    assert_eq!((large.status, large.error().1), (400, Some("x-cache-ttl")));
    assert!(large.body["error"]["message"].as_str().unwrap().contains("too large"), "{}", large.body);
}

#[tokio::test]
async fn keys_that_are_called_like_routes_are_keys() {
    let (server, _dir) = start().await;
    // `.` and `..` alone cannot be sent: clients resolve them before they send a path.
    for key in ["batch", "a%2Fb", "%2F", "delete", "healthz", "%00", "..%2F..%2Fx"] {
        let path = format!("/v1/cache/products/{key}");
        assert_eq!(put(&server, &path, &[], key).await.status, 204, "{key}");
        assert_eq!(get(&server, &path, &[]).await.body, key);
    }
    assert_eq!(get(&server, "/v1/cache/products/%62atch", &[]).await.body, "batch", "one key");
    let batch = server.ask("POST", "/v1/cache/products/batch", &[], r#"{"get":["batch","a/b"]}"#).await;
    assert_eq!(
        (&batch.body["get"][0]["value"], &batch.body["get"][1]["value"]),
        (&json!("batch"), &json!("a%2Fb"))
    );
    assert_eq!(server.ask("DELETE", "/v1/cache/products/batch", &[], "").await.status, 204);
    assert_eq!(get(&server, "/v1/cache/products/batch", &[]).await.status, 404);
    assert_eq!(server.ask("PUT", "/v1/collections/search", &[], r#"{"dimensions":2}"#).await.status, 201);
    let documents =
        json!({ "documents": [{ "id": "delete", "vector": [1, 2] }, { "id": "a/b", "vector": [1, 2] }] });
    let path = "/v1/collections/search/documents";
    assert_eq!(server.ask("POST", path, &[], documents.to_string()).await.status, 200);
    for (id, status) in [("delete", 200), ("a%2Fb", 200), ("search", 404)] {
        assert_eq!(get(&server, &format!("{path}/{id}"), &[]).await.status, status, "{id}");
    }
    for no_key in ["", "a/b", "a/", "batch/x"] {
        let refused = get(&server, &format!("/v1/cache/products/{no_key}"), &[]).await;
        assert_eq!((refused.status, refused.error().1), (400, Some("key")), "{no_key:?}");
    }
}

#[tokio::test]
async fn cache_control_of_the_request_is_honoured() {
    let (server, _dir) = start().await;
    let path = "/v1/cache/products/1";
    put(&server, path, &[("x-cache-ttl", "100")], "one").await;
    let status = |directive: &'static str| {
        let server = &server;
        async move { get(server, path, &[("cache-control", directive)]).await.status }
    };
    assert_eq!(status("max-age=1000, min-fresh=10, max-stale").await, 200);
    assert_eq!(status("min-fresh=101").await, 404);
    assert_eq!(status("no-cache").await, 404);
    assert_eq!(status("only-if-cached").await, 200);
    let missing = get(&server, "/v1/cache/products/2", &[("cache-control", "only-if-cached")]).await;
    assert_eq!((missing.status, missing.error().0), (504, "not_cached"));
    assert_eq!(put(&server, path, &[("cache-control", "no-store")], "two").await.status, 204);
    assert_eq!(get(&server, path, &[]).await.body, "one", "no-store keeps nothing");
}

#[tokio::test]
async fn of_many_that_miss_one_makes_the_value_and_the_others_get_it() {
    let (server, _dir) = start().await;
    let path = "/v1/cache/products/1";
    let ask = || get(&server, path, &[("x-cache-lease-seconds", "60"), ("x-cache-wait-ms", "20000")]);
    let first = ask().await;
    assert_eq!((first.status, first.header("x-cache-lease-seconds")), (404, "60"));
    let lease = first.header("x-cache-lease").to_owned();
    let others = join_all((0..20).map(|_| ask()));
    let making = async {
        let held = get(&server, path, &[("x-cache-lease-seconds", "60"), ("x-cache-wait-ms", "0")]).await;
        assert_eq!((held.status, held.header("retry-after"), held.header("x-cache-lease")), (404, "1", ""));
        put(&server, path, &[("x-cache-lease", &lease)], "made once").await
    };
    let (others, made) = tokio::join!(others, making);
    assert_eq!(made.status, 204, "{}", made.body);
    for other in others {
        assert_eq!((other.status, other.body.as_str()), (200, Some("made once")));
    }
    let late = put(&server, path, &[("x-cache-lease", &lease)], "made twice").await;
    assert_eq!((late.status, late.error()), (409, ("conflict", Some("x-cache-lease"))));
    assert_eq!(get(&server, path, &[]).await.body, "made once");
}

#[tokio::test]
async fn a_lease_that_is_given_back_or_runs_out_passes_on() {
    let (server, _dir) = start().await;
    let path = "/v1/cache/products/1";
    let short = [("x-cache-lease-seconds", "1"), ("x-cache-wait-ms", "20000")];
    let first = get(&server, path, &short).await.header("x-cache-lease").to_owned();
    let second = get(&server, path, &short).await;
    assert_eq!(second.status, 404);
    let second = second.header("x-cache-lease").to_owned();
    assert!(!second.is_empty() && second != first, "the first ran out while the second waited");
    assert_eq!(put(&server, path, &[("x-cache-lease", &first)], "late").await.status, 409);
    let long = [("x-cache-lease-seconds", "60"), ("x-cache-wait-ms", "20000")];
    let third = get(&server, path, &long).await.header("x-cache-lease").to_owned();
    let gives_back = [("x-cache-lease", third.as_str())];
    let (fourth, given_back) =
        tokio::join!(get(&server, path, &long), server.ask("DELETE", path, &gives_back, ""));
    assert_eq!(given_back.status, 204);
    let fourth = fourth.header("x-cache-lease").to_owned();
    assert!(!fourth.is_empty() && fourth != third);
    assert_eq!(put(&server, path, &[], "from elsewhere").await.status, 204);
    let late = put(&server, path, &[("x-cache-lease", &fourth)], "late").await;
    assert_eq!(late.status, 409, "a put without a lease ends it");
    assert_eq!(get(&server, path, &[]).await.body, "from elsewhere");
}

#[tokio::test]
async fn a_batch_is_checked_whole_before_anything_changes() {
    let (server, _dir) = start().await;
    let batch = async |body: serde_json::Value| {
        server.ask("POST", "/v1/cache/products/batch", &[], body.to_string()).await
    };
    let stored = batch(json!({ "put": [
        { "key": "a", "value": "uno", "tags": ["t"], "ttl": 60 },
        { "key": "b", "value_base64": "/wA=", "content_type": "application/x-bits" },
    ] }))
    .await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    assert_eq!(stored.body["put"][1]["key"], "b");
    let answer = batch(json!({ "get": ["b", "a", "c"], "delete": ["d"] })).await;
    let got = &answer.body["get"];
    assert_eq!(
        (&got[0]["value_base64"], &got[0]["content_type"]),
        (&json!("/wA="), &json!("application/x-bits"))
    );
    assert_eq!((&got[1]["value"], &got[1]["hit"]), (&json!("uno"), &json!(true)));
    assert_eq!((&got[2]["hit"], &got[2]["value"]), (&json!(false), &json!(null)));
    assert_eq!(answer.body["deleted"], 0);
    for (bad, param) in [
        (json!({ "put": [{ "key": "n", "value": "x" }, { "key": "m" }] }), "put"),
        (json!({ "put": [{ "key": "n", "value": "x" }, { "key": "m", "value": "x", "ttl": 0 }] }), "ttl"),
        (
            json!({ "put": [{ "key": "n", "value": "x" }, { "key": "m", "value": "x", "tags": ["a b"] }] }),
            "put",
        ),
        (json!({ "put": [{ "key": "n", "value": "x" }, { "key": "n", "value": "y" }] }), "put"),
        (json!({ "put": [{ "key": "n", "value": "x" }], "get": ["n"] }), "put"),
        (json!({ "put": [{ "key": "n", "value_base64": "!" }] }), "put"),
        (json!({ "get": [""] }), "get"),
        (json!({ "take": ["a"] }), "take"),
        (json!({}), "batch"),
    ] {
        let refused = batch(bad.clone()).await;
        assert_eq!((refused.status, refused.error()), (400, ("invalid_input", Some(param))), "{bad}");
    }
    assert_eq!(get(&server, "/v1/cache/products/n", &[]).await.status, 404, "nothing was changed");
}

#[tokio::test]
async fn a_batch_past_a_limit_is_refused_while_it_is_read_and_null_is_nothing() {
    let (server, _dir) = start().await;
    let batch = async |body: String| server.ask("POST", "/v1/cache/products/batch", &[], body).await;
    let stored =
        batch(r#"{"get":null,"delete":null,"put":[{"key":"a","value":"b","tags":null}]}"#.into()).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    // None of these bodies is JSON to its end: what is behind the limit is not looked at.
    let keys = format!("\"k\",{}", "\"k\",".repeat(300_000));
    let puts = "{\"key\":\"k\",\"value\":\"v\"},".repeat(2000);
    let tags = "\"t\",".repeat(65);
    for (body, param) in [
        (format!("{{\"get\":[{keys}"), "get"),
        (format!("{{\"delete\":[{keys}"), "delete"),
        (format!("{{\"put\":[{puts}"), "put"),
        (format!("{{\"put\":[{{\"key\":\"k\",\"value\":\"v\",\"tags\":[{tags}"), "put[0].tags"),
    ] {
        let refused = batch(body).await;
        assert_eq!((refused.status, refused.error().1), (400, Some(param)), "{}", refused.body);
    }
    let half: Vec<String> = (0..600).map(|n| n.to_string()).collect();
    let refused = batch(json!({ "get": half, "delete": half }).to_string()).await;
    assert_eq!((refused.status, refused.error().1), (400, Some("batch")));
    for field in ["tags", "keys"] {
        let body = format!("{{\"namespace\":\"products\",\"{field}\":[{keys}");
        let refused = server.ask("POST", "/v1/invalidate", &[], body).await;
        assert_eq!((refused.status, refused.error().1), (400, Some(field)), "{}", refused.body);
    }
}

#[tokio::test]
async fn what_a_batch_finds_is_bounded() {
    let dir = TempDir::new().unwrap();
    let server = start_in(&dir, &[("LIKEWISE__HTTP__BODY_BYTES_MAX", "2000000")]).await;
    let large = "x".repeat(1_000_000);
    let keys: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for key in &keys {
        assert_eq!(put(&server, &format!("/v1/cache/products/{key}"), &[], &large).await.status, 204);
    }
    let batch = async |keys: &[String]| {
        server
            .ask("POST", "/v1/cache/products/batch", &[], json!({ "get": keys, "delete": ["y"] }).to_string())
            .await
    };
    let refused = batch(&keys).await;
    assert_eq!((refused.status, refused.error()), (413, ("too_large", Some("get"))));
    assert_eq!(batch(&keys[..2]).await.body["get"][1]["value"], large);
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let server = start_in(&dir, &[("LIKEWISE__CACHE__ALLOW_UNKNOWN_NAMESPACES", "false")]).await;
    let path = "/v1/cache/products/1";
    put(&server, path, &[], "one").await;
    let long_key = format!("/v1/cache/products/{}", "k".repeat(1025));
    let too_many_tags = vec!["t"; 65].join(",");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, &str, Headers<'_>, u16, &str)] = &[
        ("PUT", "/v1/cache/shop/1", &[], 404, "namespace"),
        ("GET", "/v1/cache/shop/1", &[], 404, "namespace"),
        ("PUT", &long_key, &[], 400, "key"),
        ("GET", "/v1/cache/products/%FF", &[], 400, "key"),
        ("PUT", path, &[("x-cache-ttl", "-1")], 400, "x-cache-ttl"),
        ("PUT", path, &[("x-cache-ttl", "0")], 400, "x-cache-ttl"),
        ("PUT", path, &[("x-cache-ttl", "99999999")], 400, "x-cache-ttl"),
        ("PUT", path, &[("x-cache-ttl", "soon")], 400, "x-cache-ttl"),
        ("PUT", path, &[("x-cache-tags", "a,,b")], 400, "x-cache-tags"),
        ("PUT", path, &[("x-cache-tags", "a b")], 400, "x-cache-tags"),
        ("PUT", path, &[("x-cache-tags", &too_many_tags)], 400, "tags"),
        ("PUT", path, &[("x-cache-lease", "0123456789abcdef")], 409, "x-cache-lease"),
        ("PUT", path, &[("x-cache-lease", "mine")], 400, "x-cache-lease"),
        ("PUT", path, &[("if-match", "one")], 400, "if-match"),
        ("PUT", path, &[("cache-control", "max-age=x")], 400, "cache-control"),
        ("GET", path, &[("x-cache-lease-seconds", "0")], 400, "x-cache-lease-seconds"),
        ("GET", path, &[("x-cache-lease-seconds", "301")], 400, "x-cache-lease-seconds"),
        ("GET", path, &[("x-cache-wait-ms", "30001")], 400, "x-cache-wait-ms"),
        ("DELETE", path, &[("x-cache-lease", "0123456789abcdef")], 409, "x-cache-lease"),
    ];
    for (method, path, headers, status, param) in cases {
        let refused = server.ask(method, path, headers, "two").await;
        assert_eq!(
            (refused.status, refused.error().1),
            (*status, Some(*param)),
            "{method} {path} {headers:?}"
        );
    }
    let large = server.ask("PUT", path, &[], vec![b'x'; (1 << 20) + 1]).await;
    assert_eq!((large.status, large.error().0), (413, "too_large"));
    assert_eq!(server.ask("PATCH", path, &[], "two").await.status, 405);
    assert_eq!(get(&server, path, &[]).await.body, "one");
}
