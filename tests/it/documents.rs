//! Documents over HTTP beside their searches: pages, ids, counts, partial updates, removal of one, ids made by the server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::kill::splitmix;
use crate::program::{Answer, Server, until};

const POINTS: &str = "/v1/collections/points";

async fn start() -> (Server, Endpoint, TempDir) {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    (server, endpoint, dir)
}

async fn make(server: &Server, name: &str, spec: Value) {
    let made = server.ask("PUT", &format!("/v1/collections/{name}"), &[], spec.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

async fn upsert(server: &Server, name: &str, documents: Value) -> Answer {
    let body = json!({ "documents": documents }).to_string();
    let stored = server.ask("POST", &format!("/v1/collections/{name}/documents"), &[], body).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    stored
}

async fn patch(server: &Server, path: &str, body: Value) -> Answer {
    server.ask("PATCH", path, &[("content-type", "application/merge-patch+json")], body.to_string()).await
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|document| document["id"].as_str().unwrap()).collect()
}

/// The id in a path.
fn encoded(id: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    id.bytes().map(byte).collect()
}

fn point(id: &str, x: u64) -> Value {
    json!({ "id": id, "vector": [x, 1], "metadata": { "x": x } })
}

#[tokio::test]
async fn documents_are_listed_by_page_and_by_id_and_counted() {
    let (server, ..) = start().await;
    make(&server, "points", json!({ "dimensions": 2, "metric": "l2" })).await;
    let documents: Vec<Value> = (0..10).map(|n| point(&format!("{n:02}"), n)).rev().collect();
    upsert(&server, "points", json!(documents)).await;
    let get = async |query: &str| {
        let answer = server.get(&format!("{POINTS}{query}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{query}");
        answer.body
    };
    let page = get("/documents?limit=4").await;
    assert_eq!(ids(&page), ["00", "01", "02", "03"]);
    assert_eq!((&page["object"], &page["next"], &page["version"]), (&json!("list"), &json!("03"), &json!(1)));
    let page = get("/documents?limit=4&after=07").await;
    assert_eq!((ids(&page), page.get("next")), (vec!["08", "09"], None));
    assert_eq!(ids(&get("/documents?after=080").await), ["09"], "behind an id that is not there");
    let whole = get("/documents?limit=10").await;
    assert_eq!((ids(&whole).len(), whole.get("next")), (10, None), "no page behind the last one");
    assert_eq!(ids(&get("/documents?after=09").await), [""; 0]);

    let filter = "filter=%7B%22x%22%3A%7B%22%24gte%22%3A3%7D%7D";
    let page = get(&format!("/documents?limit=2&after=04&{filter}")).await;
    assert_eq!((ids(&page), &page["next"]), (vec!["05", "06"], &json!("06")));
    assert_eq!(get("/count").await, json!({ "documents": 10, "version": 1 }));
    assert_eq!(get(&format!("/count?{filter}")).await["documents"], 7);

    let some = get("/documents?ids=09&ids=absent&ids=01&include=metadata,vector").await;
    assert_eq!(
        some["data"],
        json!([
            { "id": "09", "metadata": { "x": 9 }, "vector": [9.0, 1.0] },
            { "id": "01", "metadata": { "x": 1 }, "vector": [1.0, 1.0] },
        ])
    );
    assert_eq!(get("/documents?limit=1&include=id").await["data"], json!([{ "id": "00" }]));
    let one = get("/documents/00?include=tags").await;
    assert_eq!(one, json!({ "id": "00" }));
}

#[tokio::test]
async fn a_page_ends_at_its_bytes_and_the_next_one_goes_on() {
    let (server, ..) = start().await;
    make(&server, "points", json!({ "dimensions": 2 })).await;
    // Three fit into a page of 8 MiB.
    for n in 0..8 {
        let document = json!({ "id": n.to_string(), "vector": [n, 1], "text": "x".repeat(2_500_000) });
        upsert(&server, "points", json!([document])).await;
    }
    let mut pages = Vec::new();
    let mut after = Some(String::new());
    while let Some(id) = after {
        let page = server.get(&format!("{POINTS}/documents?limit=1000&after={id}")).await.body;
        pages.push(ids(&page).join(" "));
        after = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(pages, ["0 1 2", "3 4 5", "6 7"]);
    let refused = server.get(&format!("{POINTS}/documents?ids=0&ids=1&ids=2&ids=3")).await;
    assert_eq!((refused.status, refused.error().1), (400, Some("ids")), "{}", refused.body);
    assert_eq!(server.get(&format!("{POINTS}/documents?ids=0&ids=1")).await.status, 200);
}

/// Documents that are there the whole time are in exactly one page, while others come and go, all are changed, and segments are written
/// and compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_or_doubled_while_others_write() {
    const KEPT: u64 = 300;
    const ROUNDS: usize = 8;
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let mut program = remote(dir.path(), &endpoint.url);
    program
        .env("LIKEWISE__SEARCH__COMPACTION__SEGMENT_BYTES", "6000")
        .env("LIKEWISE__SEARCH__COMPACTION__DEAD_ROWS_BUSY", "20");
    let server = Server::spawn(&mut program);
    make(&server, "points", json!({ "dimensions": 2, "metric": "l2" })).await;
    let kept = |n: u64| format!("{:04}-kept", n * 7);
    let all: Vec<Value> = (0..KEPT).map(|n| point(&kept(n), n)).collect();
    upsert(&server, "points", json!(all)).await;
    let (is_over, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = async |writer: u64| {
        let mut n = writer << 32;
        while !is_over.load(Ordering::Relaxed) {
            n += 1;
            let random = splitmix(n);
            let other = format!("{:04}-other", random % (KEPT * 7));
            let path = format!("{POINTS}/documents/{}", kept(random % KEPT));
            let answer = match random >> 32 & 3 {
                0 => upsert(&server, "points", json!([point(&other, 1)])).await,
                1 => server.ask("DELETE", &format!("{POINTS}/documents/{other}"), &[], "").await,
                2 => upsert(&server, "points", json!([point(&kept(random % KEPT), random % 9)])).await,
                _ => patch(&server, &path, json!({ "metadata": { "n": random % 1000 } })).await,
            };
            assert!(answer.status < 300, "{}", answer.body);
            writes.fetch_add(1, Ordering::Relaxed);
        }
    };
    let read = async {
        for round in 0..ROUNDS {
            let (mut seen, mut after) = (Vec::new(), Some(String::new()));
            while let Some(id) = after {
                let limit = 5 + round % 13;
                let page = server.get(&format!("{POINTS}/documents?limit={limit}&after={id}")).await.body;
                let before = writes.load(Ordering::Relaxed);
                until("others have written", async || writes.load(Ordering::Relaxed) > before).await;
                seen.extend(ids(&page).into_iter().map(str::to_owned));
                after = page["next"].as_str().map(str::to_owned);
            }
            assert!(seen.is_sorted_by(|one, two| one < two), "in the order of ids, none twice");
            seen.retain(|id| id.ends_with("kept"));
            assert_eq!(seen, (0..KEPT).map(kept).collect::<Vec<_>>());
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(read, join_all((0..3).map(write)));
}

#[tokio::test]
async fn one_document_is_removed_whatever_its_id() {
    let (server, ..) = start().await;
    make(&server, "points", json!({ "dimensions": 2 })).await;
    let long = "ñ".repeat(256);
    let names = ["delete", "a/b", "100%", "%2F", "日本 語", "a?b#c", "a,b", "\"", long.as_str()];
    let documents: Vec<Value> = names.iter().map(|name| point(name, 1)).collect();
    upsert(&server, "points", json!(documents)).await;
    for (gone, name) in names.iter().enumerate() {
        let path = format!("{POINTS}/documents/{}", encoded(name));
        assert_eq!(server.get(&path).await.body["id"], *name);
        let listed = server.get(&format!("{POINTS}/documents?ids={}", encoded(name))).await.body;
        assert_eq!(ids(&listed), [*name]);
        let changed = patch(&server, &path, json!({ "metadata": { "y": 2 } })).await;
        assert_eq!(
            (changed.status, &changed.body["documents"]),
            (200, &json!(1)),
            "{name}: {}",
            changed.body
        );
        assert_eq!(server.get(&path).await.body["metadata"], json!({ "x": 1, "y": 2 }));
        assert_eq!(server.ask("DELETE", &path, &[], "").await.status, 204);
        let missing = server.get(&path).await;
        assert_eq!((missing.status, missing.error()), (404, ("not_found", Some("id"))));
        let version = server.get(&format!("{POINTS}/count")).await.body;
        assert_eq!(version["documents"], names.len() - gone - 1);
        assert_eq!(server.ask("DELETE", &path, &[], "").await.status, 204, "it is gone, as was asked");
        assert_eq!(server.get(&format!("{POINTS}/count")).await.body, version, "nothing was written");
    }
    let absent = server.ask("DELETE", "/v1/collections/absent/documents/1", &[], "").await;
    assert_eq!((absent.status, absent.error().1), (404, Some("name")));
}

#[tokio::test]
async fn documents_without_ids_get_ids_in_the_order_of_the_request() {
    let (server, endpoint, dir) = start().await;
    make(&server, "points", json!({ "dimensions": 2 })).await;
    let mut made: Vec<String> = Vec::new();
    for request in 0..3 {
        let documents =
            json!([{ "vector": [1, request] }, point("own", 1), { "vector": [2, request], "id": null }]);
        let stored = upsert(&server, "points", documents).await.body;
        assert_eq!(stored["documents"], 3);
        let ids: Vec<String> = serde_json::from_value(stored["ids"].clone()).unwrap();
        assert_eq!((ids.len(), ids[1].as_str()), (3, "own"));
        for (id, x) in [(&ids[0], 1.0), (&ids[2], 2.0)] {
            let stored = server.get(&format!("{POINTS}/documents/{id}?include=vector")).await.body;
            let vector: Vec<f64> = serde_json::from_value(stored["vector"].clone()).unwrap();
            assert!((vector[1] / vector[0] - f64::from(request) / x).abs() < 1e-6, "{id}: {vector:?}");
            made.push(id.clone());
        }
    }
    drop(server);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let stored = upsert(&server, "points", json!([{ "vector": [3, 3] }])).await.body;
    made.push(stored["ids"][0].as_str().unwrap().to_owned());
    assert!(made.is_sorted_by(|one, two| one < two), "{made:?}");
    let listed = server.get(&format!("{POINTS}/documents?limit=100")).await.body;
    assert_eq!(ids(&listed), made.iter().map(String::as_str).chain(["own"]).collect::<Vec<_>>());
    let own = upsert(&server, "points", json!([point("own", 2)])).await.body;
    assert_eq!(own.get("ids"), None, "the client knows them");
}

#[tokio::test]
async fn a_patch_merges_metadata_and_embeds_only_a_new_text() {
    let (server, endpoint, dir) = start().await;
    make(&server, "texts", json!({})).await;
    let metadata = json!({ "price": 10, "in": { "a": 1, "b": [1, 2] }, "old": true });
    let document = json!({ "id": "1", "text": "uno", "metadata": metadata, "tags": ["a", "b"] });
    upsert(&server, "texts", json!([document, { "id": "2", "text": "dos" }])).await;
    let (path, with_vector) =
        ("/v1/collections/texts/documents/1", "/v1/collections/texts/documents/1?include=vector");
    let before = server.get(with_vector).await.body;
    let embedded = endpoint.texts();

    let change =
        json!({ "metadata": { "price": 12.5, "in": { "a": null, "c": { "d": null } }, "old": null } });
    let changed = patch(&server, path, change.clone()).await;
    assert_eq!((changed.status, &changed.body), (200, &json!({ "documents": 1, "version": 2 })));
    let after = server.get(with_vector).await.body;
    assert_eq!(after["metadata"], json!({ "price": 12.5, "in": { "b": [1, 2], "c": {} } }));
    for member in ["id", "text", "tags", "vector"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    let again = patch(&server, path, change).await;
    assert_eq!(
        again.body,
        json!({ "documents": 0, "version": 2 }),
        "it changes nothing, and nothing is written"
    );
    assert_eq!(patch(&server, path, json!({})).await.body, json!({ "documents": 0, "version": 2 }));
    assert_eq!(endpoint.texts(), embedded, "nothing was embedded");

    let changed = patch(&server, path, json!({ "text": "otro", "tags": ["c"], "metadata": null })).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(endpoint.texts(), embedded + 1);
    let after = server.get(with_vector).await.body;
    assert_ne!(after["vector"], before["vector"]);
    assert_eq!(
        (&after["text"], &after["tags"], after.get("metadata")),
        (&json!("otro"), &json!(["c"]), None)
    );
    let back = patch(&server, path, json!({ "text": "uno", "tags": null })).await;
    assert_eq!(back.status, 200, "{}", back.body);
    let after = server.get(with_vector).await.body;
    assert_eq!((endpoint.texts(), &after["vector"]), (embedded + 1, &before["vector"]), "through the cache");
    assert_eq!(after.get("tags"), None);

    let own = json!({ "text": null, "vector": vec![2; 384] });
    assert_eq!(patch(&server, path, own).await.status, 200);
    assert!(server.stop().success());
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let after = server.get(with_vector).await.body;
    assert_eq!((after.get("text"), after["vector"][383].as_f64().unwrap() > 0.05), (None, true));
    assert_eq!(ids_of_export(&server, "texts").await, ["2", "1"], "the order of their writes");
}

async fn ids_of_export(server: &Server, name: &str) -> Vec<String> {
    let all = server.get(&format!("/v1/collections/{name}/documents?include=id")).await;
    let lines = all.body.as_str().unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|document| document["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_patch_drops_the_cached_results_that_it_changes_and_no_others() {
    let (server, ..) = start().await;
    make(&server, "points", json!({ "dimensions": 2, "metric": "l2" })).await;
    upsert(&server, "points", json!([point("a", 0), point("b", 50), point("c", 100)])).await;
    let search = async |body: &Value| {
        let found = server.ask("POST", &format!("{POINTS}/search"), &[], body.to_string()).await;
        assert_eq!(found.status, 200, "{}", found.body);
        (found.header("x-likewise-hits") == "1", found.body["results"].clone())
    };
    let near_a = json!({ "vector": [0, 1], "k": 1 });
    let near_c = json!({ "vector": [100, 1], "k": 1 });
    let big = json!({ "vector": [0, 1], "k": 3, "filter": { "x": { "$gte": 60 } } });
    for body in [&near_a, &near_c, &big] {
        search(body).await;
        assert!(search(body).await.0);
    }
    let changed =
        patch(&server, &format!("{POINTS}/documents/a"), json!({ "metadata": { "color": "azul" } })).await;
    assert_eq!(changed.status, 200);
    let (is_hit, found) = search(&near_a).await;
    assert_eq!((is_hit, &found[0]["metadata"]), (false, &json!({ "x": 0, "color": "azul" })));
    assert!(search(&near_c).await.0 && search(&big).await.0, "not among their results");
    assert_eq!(
        patch(&server, &format!("{POINTS}/documents/a"), json!({ "metadata": { "x": 70 } })).await.status,
        200
    );
    assert!(search(&near_c).await.0);
    let (is_hit, found) = search(&big).await;
    assert_eq!((is_hit, &found[0]["id"], found.as_array().unwrap().len()), (false, &json!("a"), 2));
}

/// Each client counts up a member of its own in one document; none loses a count to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_one_document_at_the_same_time_are_all_kept() {
    const CLIENTS: usize = 12;
    const PATCHES: usize = 40;
    let (server, endpoint, _dir) = start().await;
    make(&server, "texts", json!({})).await;
    upsert(&server, "texts", json!([{ "id": "1", "text": "one", "metadata": { "x": 1 } }])).await;
    let path = "/v1/collections/texts/documents/1";
    let client = async |client: usize| {
        for n in 1..=PATCHES {
            let mut body =
                json!({ "metadata": { format!("m{client}"): n, "in": { client.to_string(): n } } });
            if n % 8 == 0 && client == 0 {
                body["text"] = format!("text {n}").into();
            }
            let answer = patch(&server, path, body).await;
            assert_eq!((answer.status, &answer.body["documents"]), (200, &json!(1)), "{}", answer.body);
        }
    };
    join_all((0..CLIENTS).map(client)).await;
    let document = server.get(path).await.body;
    let mut expected = BTreeMap::from([("x".to_owned(), json!(1))]);
    let inner: BTreeMap<String, usize> = (0..CLIENTS).map(|client| (client.to_string(), PATCHES)).collect();
    expected.extend((0..CLIENTS).map(|client| (format!("m{client}"), json!(PATCHES))));
    expected.insert("in".into(), json!(inner));
    assert_eq!(document["metadata"], json!(expected));
    assert_eq!(document["text"], format!("text {PATCHES}"));
    assert_eq!(endpoint.texts(), 1 + PATCHES as u64 / 8);
}

/// A text that is embedded does not hold back other changes, and is not stored in the place of one of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_during_an_embedding_is_kept() {
    let (server, endpoint, _dir) = start().await;
    make(&server, "texts", json!({})).await;
    upsert(&server, "texts", json!([{ "id": "1", "text": "one" }, { "id": "2", "text": "two" }])).await;
    let path = |id: &str| format!("/v1/collections/texts/documents/{id}");
    let (before, held) = (endpoint.texts(), endpoint.hold().await);
    let (one, two) = (path("1"), path("2"));
    let slow = [&one, &two].map(|path| patch(&server, path, json!({ "text": "new" })));
    let meanwhile = async {
        until("the text is being embedded", async || endpoint.texts() > before).await;
        assert_eq!(patch(&server, &one, json!({ "metadata": { "n": 1 } })).await.status, 200);
        assert_eq!(server.ask("DELETE", &two, &[], "").await.status, 204);
        drop(held);
    };
    let (answers, ()) = tokio::join!(join_all(slow), meanwhile);
    assert_eq!((answers[0].status, answers[1].status), (200, 404), "a removed document is not back");
    assert_eq!(server.get(&one).await.body, json!({ "id": "1", "text": "new", "metadata": { "n": 1 } }));
    assert_eq!(server.get(&two).await.status, 404);
}

#[tokio::test]
async fn bad_lists_and_patches_are_refused_and_change_nothing() {
    let (server, endpoint, _dir) = start().await;
    make(&server, "points", json!({ "dimensions": 2 })).await;
    make(&server, "texts", json!({})).await;
    let large = json!({ "id": "large", "vector": [1, 1], "metadata": { "a": "x".repeat(60_000) } });
    upsert(&server, "points", json!([point("a", 1), large])).await;
    upsert(&server, "texts", json!([{ "id": "a", "text": "x" }])).await;
    let embedded = endpoint.texts();
    let many = (0..1001).map(|n| format!("ids={n}")).collect::<Vec<_>>().join("&");
    let long = format!("after={}", "x".repeat(513));
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=1&limit=2", "limit"),
        (long.as_str(), "after"),
        ("ids=a&limit=1", "ids"),
        ("ids=a&after=a", "ids"),
        (many.as_str(), "ids"),
        ("filter=%7B%22x%22%3A%7B%22%24like%22%3A1%7D%7D", "filter.x.$like"),
        ("filter=%5B%5D", "filter"),
        ("filter=x", "filter"),
        ("filter=", "filter"),
        ("limit=1&include=all", "include"),
        ("ofset=1", "ofset"),
        ("limit=1&offset=1", "offset"),
    ] {
        let refused = server.get(&format!("{POINTS}/documents?{query}")).await;
        assert_eq!((refused.status, refused.error().1), (400, Some(param)), "{query}: {}", refused.body);
    }
    for (query, param) in [("filter=x", "filter"), ("limit=1", "limit")] {
        let refused = server.get(&format!("{POINTS}/count?{query}")).await;
        assert_eq!((refused.status, refused.error().1), (400, Some(param)), "{query}: {}", refused.body);
    }
    // A query has one reader: its faults have one wording, here and where a single document is read.
    for path in ["documents?x=1", "count?x=1", "documents/a?x=1"] {
        let refused = server.get(&format!("{POINTS}/{path}")).await;
        assert_eq!((refused.status, refused.error().1), (400, Some("x")), "{path}: {}", refused.body);
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("unknown query parameter \"x\"; known: "), "{message}");
    }
    let deep = (0..150).fold(json!({}), |inner, _| json!({ "inner": inner }));
    let half = "y".repeat(40_000);
    for (path, body, status, param) in [
        ("points/documents/a", json!({ "id": "b" }), 400, Some("id")),
        ("points/documents/a", json!({ "metdata": {} }), 400, Some("metdata")),
        ("points/documents/a", json!([]), 400, None),
        ("points/documents/a", json!({ "metadata": [1] }), 400, Some("metadata")),
        ("points/documents/a", json!({ "metadata": "x" }), 400, Some("metadata")),
        ("points/documents/a", json!({ "metadata": deep }), 400, Some("metadata")),
        ("points/documents/a", json!({ "metadata": { "b": "x".repeat(70_000) } }), 400, Some("metadata")),
        ("points/documents/large", json!({ "metadata": { "b": half } }), 400, Some("metadata")),
        ("points/documents/a", json!({ "tags": ["a b"] }), 400, Some("tags")),
        ("points/documents/a", json!({ "tags": vec!["t"; 65] }), 400, Some("tags")),
        ("points/documents/a", json!({ "tags": "t" }), 400, Some("tags")),
        ("points/documents/a", json!({ "vector": null }), 400, Some("vector")),
        ("points/documents/a", json!({ "vector": [1] }), 400, Some("vector")),
        ("points/documents/a", json!({ "vector": [0, 0] }), 400, Some("vector")),
        ("points/documents/a", json!({ "text": 1 }), 400, Some("text")),
        ("points/documents/a", json!({ "text": "x" }), 409, Some("text")),
        ("texts/documents/a", json!({ "text": "" }), 400, Some("text")),
        ("texts/documents/absent", json!({ "text": "never embedded" }), 404, Some("id")),
        ("points/documents/absent", json!({ "metadata": {} }), 404, Some("id")),
        ("absent/documents/a", json!({ "metadata": {} }), 404, Some("name")),
    ] {
        let refused = patch(&server, &format!("/v1/collections/{path}"), body.clone()).await;
        let said = (refused.status, refused.error().1);
        assert_eq!(said, (status, param), "{path} {:.200}: {}", body.to_string(), refused.body);
    }
    // Deeper than the stack of any thread.
    let bottomless = format!(r#"{{"metadata":{}1{}}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    for broken in ["{", "", r#"{"metadata":{"a":1e999}}"#, &bottomless] {
        let refused = server.ask("PATCH", &format!("{POINTS}/documents/a"), &[], broken.to_owned()).await;
        assert_eq!(refused.status, 400, "{broken:.40}: {}", refused.body);
    }
    for name in ["points", "texts"] {
        assert_eq!(server.get(&format!("/v1/collections/{name}")).await.body["version"], 1, "{name}");
    }
    assert_eq!(endpoint.texts(), embedded);
}
