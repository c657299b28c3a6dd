//! Goal: headers of other caches mean what they mean there, on every route that has a cache. Method: each before an upstream that counts
//! its calls; the table of values is tested beside its parser.

use serde_json::{Value, json};

use super::{CHAT, is_hit, question, start, status, with};
use crate::program::Answer;
use crate::upstream::Mode;

/// The seconds for which a hit is fresh.
fn ttl(answer: &Answer) -> u64 {
    let item = answer.header("cache-status").split("; ").find_map(|item| item.strip_prefix("ttl="));
    item.unwrap_or_else(|| panic!("{}", answer.header("cache-status"))).parse().unwrap()
}

#[tokio::test]
async fn a_request_reads_and_stores_as_its_header_says() {
    let (_dir, upstream, server) = start(&[]).await;
    let ask = async |header: (&str, &str), body: &Value| {
        server.ask("POST", CHAT, &[header], body.to_string()).await
    };
    let plain = ("x-custom", "a");
    for (place, (name, value, reads, stores)) in [
        ("cf-aig-skip-cache", "true", false, false),
        ("cf-aig-skip-cache", "false", true, true),
        ("Helicone-Cache-Enabled", "false", false, false),
        ("Helicone-Cache-Enabled", "true", true, true),
        ("x-portkey-cache-force-refresh", "True", false, true),
        ("X-OpenRouter-Cache", "false", false, false),
        ("X-OpenRouter-Cache", "true", true, true),
        ("X-OpenRouter-Cache-Clear", "true", false, true),
        ("wandb-cache-mode", "readOnly", true, false),
        ("wandb-cache-mode", "writeOnly", false, true),
        ("wandb-cache-mode", "off", false, false),
        ("Helicone-Cache-Seed", "a", true, true),
    ]
    .into_iter()
    .enumerate()
    {
        let (known, new) = (question(&format!("known {place}")), question(&format!("new {place}")));
        assert!(!is_hit(&ask(plain, &known).await));
        assert_eq!(is_hit(&ask((name, value), &known).await), reads, "{name}: {value}");
        assert!(!is_hit(&ask((name, value), &new).await), "{name}: {value}");
        assert_eq!(is_hit(&ask(plain, &new).await), stores, "{name}: {value}");
    }
    let calls = upstream.calls();
    let off = with(question("litellm"), json!({ "cache": { "use-cache": false } }));
    assert!(!is_hit(&ask(plain, &off).await) && !is_hit(&ask(plain, &off).await));
    assert_eq!(upstream.calls(), calls + 2);
}

#[tokio::test]
async fn a_lifetime_of_another_cache_is_shortened_to_what_is_allowed() {
    let (_dir, _upstream, server) = start(&[]).await;
    for (place, (headers, most)) in [
        (&[("cf-aig-cache-ttl", "600")][..], 600),
        (&[("X-OpenRouter-Cache-TTL", "600"), ("x-cache-ttl", "60")], 60),
        (&[("X-OpenRouter-Cache-TTL", "60"), ("x-cache-ttl", "600")], 60),
        (&[("cf-aig-cache-ttl", "99999999999")], 2_592_000),
    ]
    .into_iter()
    .enumerate()
    {
        let body = question(&format!("lifetime {place}")).to_string();
        assert!(!is_hit(&server.ask("POST", CHAT, headers, body.clone()).await));
        let hit = server.ask("POST", CHAT, &[], body).await;
        assert!(is_hit(&hit));
        // Up to 5 % are jitter.
        assert!((most * 9 / 10..=most).contains(&ttl(&hit)), "{headers:?}: {}", status(&hit));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_its_header() {
    let (_dir, upstream, server) = start(&[]).await;
    for (name, value) in [
        ("cf-aig-cache-ttl", "1h"),
        ("cf-aig-skip-cache", "yes"),
        ("helicone-cache-enabled", "1"),
        ("x-portkey-cache-force-refresh", "please"),
        ("x-openrouter-cache", "on"),
        ("x-openrouter-cache-ttl", "0"),
        ("wandb-cache-mode", "read"),
    ] {
        for (method, path, body) in [
            ("POST", CHAT, question("a")),
            ("POST", "/v1/embeddings", json!({ "model": "fake-model", "input": "a" })),
            ("POST", "/v1/answers/lookup", json!({ "prompt": "a" })),
            ("PUT", "/v1/cache/products/1", json!(1)),
        ] {
            let refused = server.ask(method, path, &[(name, value)], body.to_string()).await;
            assert_eq!((refused.status, refused.error().1), (400, Some(name)), "{path}: {}", refused.body);
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn embeddings_and_objects_know_the_same_headers() {
    let (_dir, _upstream, server) = start(&[]).await;
    let embed = async |headers: &[(&str, &str)], text: &str| {
        let body = json!({ "model": "fake-model", "input": text }).to_string();
        let answer = server.ask("POST", "/v1/embeddings", headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.header("x-likewise-hits") == "1"
    };
    let off = [("X-OpenRouter-Cache", "false")];
    assert!(!embed(&off, "a").await && !embed(&[], "a").await, "it is not stored");
    assert!(embed(&[], "a").await && !embed(&off, "a").await, "it is not read");
    assert!(embed(&[("cf-aig-cache-ttl", "60")], "a").await);

    let path = "/v1/cache/products/1";
    assert_eq!(server.ask("PUT", path, &off, "one").await.status, 204);
    assert_eq!(server.get(path).await.status, 404, "it is not stored");
    assert_eq!(server.ask("PUT", path, &[("cf-aig-cache-ttl", "60")], "one").await.status, 204);
    let found = server.get(path).await;
    assert!(found.status == 200 && ttl(&found) <= 60, "{}", found.header("cache-status"));
    assert_eq!(server.ask("GET", path, &[("x-portkey-cache-force-refresh", "true")], "").await.status, 404);
}

/// An upstream may be the gateway whose headers they are.
#[tokio::test]
async fn they_are_passed_on_as_any_other_header() {
    let (_dir, upstream, server) =
        start(&[("LIKEWISE__UPSTREAM__FORWARDED_HEADERS", "cf-aig-cache-ttl")]).await;
    let headers = [("cf-aig-cache-ttl", "600"), ("helicone-cache-enabled", "true"), ("x-cache-key", "k")];
    server.ask("POST", CHAT, &headers, question("a").to_string()).await;
    upstream.usually(Mode::Reply(200, vec![], "{}".into()));
    server.ask("POST", "/v1/moderations", &headers, "{}").await;
    let seen = upstream.seen();
    let of = |call: usize| headers.map(|(name, _)| seen[call].header(name));
    assert_eq!(of(0), [Some("600"), None, None]);
    assert_eq!(of(1), [Some("600"), Some("true"), None]);
}
