//! Goal: groups of RFC 9875 are tags, on what is stored, on hits, and where an upstream invalidates them. Method: objects and answers whose
//! groups are invalidated, by a client and by an upstream.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CHAT, ask, is_hit, question, quiet, start, start_in, with};
use crate::program::{Answer, Server};
use crate::upstream::{Mode, Upstream};

const OBEYS: (&str, &str) = ("LIKEWISE__UPSTREAM__OBEY_GROUP_INVALIDATION", "true");
const GROUPS: (&str, &str) = ("cache-groups", r#""product:42";v=1, "brand:7""#);

async fn hide(server: &Server, tag: &str) {
    let body = json!({ "tags": [tag] }).to_string();
    assert_eq!(server.ask("POST", "/v1/invalidate", &[], body).await.status, 200);
}

async fn put(server: &Server, key: &str, headers: &[(&str, &str)]) -> Answer {
    server.ask("PUT", &format!("/v1/cache/products/{key}"), headers, key.to_owned()).await
}

async fn get(server: &Server, key: &str) -> Answer {
    server.get(&format!("/v1/cache/products/{key}")).await
}

async fn ask_with(server: &Server, headers: &[(&str, &str)], body: &Value) -> Answer {
    server.ask("POST", CHAT, headers, body.to_string()).await
}

#[tokio::test]
async fn groups_are_tags_of_objects_and_are_sent_with_them() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(dir.path(), &upstream, &[]);
    assert_eq!(put(&server, "1", &[GROUPS, ("x-cache-tags", "año")]).await.status, 204);
    assert_eq!(put(&server, "2", &[]).await.status, 204);
    assert_eq!(get(&server, "2").await.header("cache-groups"), "");
    let found = get(&server, "1").await;
    let all = r#""product:42", "brand:7""#;
    assert!(
        ["\"brand:7\"", "\"product:42\""].iter().all(|group| found.header("cache-groups").contains(group))
    );
    assert_eq!(found.header("cache-groups").len(), all.len(), "no group is called año");
    let known = found.header("etag").to_owned();
    let known = server.ask("GET", "/v1/cache/products/1", &[("if-none-match", &known)], "").await;
    assert_eq!((known.status, known.header("cache-groups")), (304, found.header("cache-groups")));
    let groups = found.header("cache-groups").to_owned();
    assert!(server.stop().success());

    let server = start_in(dir.path(), &upstream, &[]);
    for _ in 0..2 {
        assert_eq!(get(&server, "1").await.header("cache-groups"), groups, "the names are on disk");
    }
    hide(&server, "brand:7").await;
    assert_eq!((get(&server, "1").await.status, get(&server, "2").await.status), (404, 200));
}

#[tokio::test]
async fn groups_are_tags_of_answers_and_a_hit_has_those_of_its_request() {
    let (_dir, _upstream, server) = start(&[]).await;
    let body = with(question("price?"), json!({ "cache": { "tags": ["shop"] } }));
    let first = ask_with(&server, &[GROUPS], &body).await;
    assert!(!is_hit(&first) && first.header("cache-groups").is_empty());
    let hit = ask_with(&server, &[GROUPS], &body).await;
    assert!(is_hit(&hit));
    assert_eq!(hit.header("cache-groups"), r#""shop", "product:42", "brand:7""#);
    let other = ask(&server, &question("price?")).await;
    assert!(is_hit(&other) && other.header("cache-groups").is_empty());
    hide(&server, "product:42").await;
    assert!(!is_hit(&ask(&server, &body).await));
}

#[tokio::test]
async fn what_is_no_list_of_tags_is_refused_by_the_header() {
    let (_dir, upstream, server) = start(&[]).await;
    let many = (0..65).map(|n| format!("\"t{n}\"")).collect::<Vec<_>>().join(", ");
    for bad in ["product:42", "\"a", "\"a\",", "\"a b\"", "(\"a\")"] {
        for refused in [
            put(&server, "1", &[("cache-groups", bad)]).await,
            ask_with(&server, &[("cache-groups", bad)], &question("a")).await,
        ] {
            assert_eq!((refused.status, refused.error().1), (400, Some("cache-groups")), "{bad}");
        }
    }
    assert_eq!(put(&server, "1", &[("cache-groups", &many)]).await.status, 400);
    assert_eq!(upstream.calls(), 0);
}

/// A reply of an upstream that changes something.
fn changing(status: u16, groups: &'static str) -> Mode {
    Mode::Reply(
        status,
        vec![("cache-group-invalidation", groups), ("cache-groups", "\"theirs\"")],
        "{}".into(),
    )
}

#[tokio::test]
async fn an_upstream_invalidates_groups_where_it_is_obeyed() {
    let (_dir, upstream, server) = start(&[OBEYS]).await;
    let answer = with(question("price?"), json!({ "cache": { "tags": ["product:42"] } }));
    let store = async || {
        assert_eq!(put(&server, "1", &[GROUPS]).await.status, 204);
        upstream.usually(Mode::Answer);
        assert_eq!(ask(&server, &answer).await.status, 200);
        quiet(&server).await;
        assert!(is_hit(&ask(&server, &answer).await));
    };
    store().await;
    let is_stored = async || get(&server, "1").await.status == 200 && is_hit(&ask(&server, &answer).await);
    for (method, path, reply) in [
        ("GET", "/v1/models/own", changing(200, "\"product:42\"")),
        ("POST", "/v1/moderations", changing(400, "\"product:42\"")),
        ("POST", "/v1/moderations", changing(503, "\"product:42\"")),
        ("POST", "/v1/moderations", changing(200, "\"product:43\"")),
        ("POST", "/v1/moderations", changing(200, "product:42")),
        ("POST", "/v1/moderations", changing(200, "")),
    ] {
        upstream.usually(reply);
        server.ask(method, path, &[], "{}").await;
        assert!(is_stored().await, "{method} {path}");
    }
    for (method, path, status) in [
        ("POST", "/v1/moderations", 201),
        ("DELETE", "/v1/responses/r-1", 200),
        ("POST", "/v1/embeddings", 200),
    ] {
        upstream.usually(changing(status, "\"x y\", \"product:42\";p=1"));
        let body = json!({ "model": "theirs", "input": "a", "fields": "of its own" }).to_string();
        let changed = server.ask(method, path, &[], body).await;
        assert_eq!(changed.status, status, "{method} {path}: {}", changed.body);
        assert!(
            changed.header("cache-group-invalidation").is_empty()
                && changed.header("cache-groups").is_empty()
        );
        assert_eq!(get(&server, "1").await.status, 404, "{method} {path}");
        upstream.usually(Mode::Answer);
        assert!(!is_hit(&ask(&server, &answer).await), "{method} {path}");
        store().await;
    }
}

#[tokio::test]
async fn an_upstream_is_not_obeyed_unless_switched_on_nor_in_an_answer() {
    for environment in [&[][..], &[OBEYS]] {
        let (_dir, upstream, server) = start(environment).await;
        assert_eq!(put(&server, "1", &[GROUPS]).await.status, 204);
        upstream.usually(changing(200, "\"product:42\""));
        let path = if environment.is_empty() { "/v1/moderations" } else { CHAT };
        server.ask("POST", path, &[], question("a").to_string()).await;
        assert_eq!((upstream.calls(), get(&server, "1").await.status), (1, 200), "{path}");
    }
}
