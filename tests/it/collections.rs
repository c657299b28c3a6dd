//! Collections over HTTP: made, filled, searched, filtered, cached, exported, dropped; every bad input refused.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::program::{Answer, Server, likewise, until};

fn start_in(dir: &TempDir) -> Server {
    Server::spawn(&mut likewise("serve", dir.path()))
}

fn start() -> (Server, TempDir) {
    let dir = TempDir::new().unwrap();
    (start_in(&dir), dir)
}

async fn post(server: &Server, path: &str, body: Value) -> Answer {
    server.ask("POST", &format!("/v1/collections/{path}"), &[], body.to_string()).await
}

async fn make(server: &Server, name: &str, body: Value) {
    let made = server.ask("PUT", &format!("/v1/collections/{name}"), &[], body.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

async fn upsert(server: &Server, name: &str, documents: Value) -> Value {
    let answer = post(server, &format!("{name}/documents"), json!({ "documents": documents })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn search(server: &Server, name: &str, body: Value) -> Answer {
    let answer = post(server, &format!("{name}/search"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

fn ids(results: &Value) -> Vec<&str> {
    results.as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

/// Three directions, and some between.
fn points() -> Value {
    json!([
        { "id": "east", "vector": [1, 0, 0], "metadata": { "kind": "axis", "rank": 1 } },
        { "id": "north", "vector": [0, 1, 0], "metadata": { "kind": "axis", "rank": 2 }, "tags": ["cold"] },
        { "id": "up", "vector": [0, 0, 1], "metadata": { "kind": "axis", "rank": 3, "in": { "air": true } } },
        { "id": "north-east", "vector": [2, 2, 0], "text": "between", "tags": ["cold", "mixed"] },
    ])
}

#[tokio::test]
async fn texts_are_found_by_what_they_mean_and_still_after_a_restart() {
    let (server, dir) = start();
    make(&server, "catalogue", json!({})).await;
    let receipt = upsert(
        &server,
        "catalogue",
        json!([
            { "id": "1", "text": "blue cotton t-shirt", "metadata": { "price": 19.9 }, "tags": ["product:1"] },
            { "id": "2", "text": "red woollen scarf", "metadata": { "price": 35 } },
            { "id": "3", "text": "espresso machine with milk frother", "metadata": { "price": 249.0 } },
        ]),
    )
    .await;
    assert_eq!(receipt, json!({ "documents": 3, "version": 1 }));
    let question = json!({ "query": "something to make coffee", "k": 2 });
    let found = search(&server, "catalogue", question.clone()).await;
    let first = &found.body["results"][0];
    assert_eq!((&first["id"], &first["metadata"]["price"]), (&json!("3"), &json!(249.0)));
    assert_eq!(first["text"], "espresso machine with milk frother");
    assert_eq!(found.header("cache-status"), "likewise; fwd=miss");
    let again = search(&server, "catalogue", question.clone()).await;
    assert_eq!(again.header("cache-status"), "likewise; hit; detail=memory");
    assert_eq!(again.body, found.body);
    assert!(server.stop().success());

    let server = start_in(&dir);
    assert_eq!(search(&server, "catalogue", question).await.body, found.body);
    let described = server.get("/v1/collections/catalogue").await.body;
    for (field, value) in [
        ("metric", json!("cosine")),
        ("dimensions", json!(384)),
        ("model", json!("fake-model")),
        ("documents", json!(3)),
        ("version", json!(1)),
    ] {
        assert_eq!(described[field], value, "{field}");
    }
    // Texts go through the cache: what was embedded for the first search was on the disk.
    assert_eq!(server.stat("/texts/misses").await, 0);
    assert_eq!(server.stat("/searches/documents").await, 3);
}

#[tokio::test]
async fn vectors_are_searched_under_each_metric_filtered_batched_and_with_what_is_asked_for() {
    let (server, _dir) = start();
    for (metric, best, score) in
        [("cosine", "north-east", 1.0), ("inner_product", "north-east", 4.0), ("l2", "east", -1.0)]
    {
        make(&server, metric, json!({ "metric": metric, "dimensions": 3 })).await;
        upsert(&server, metric, points()).await;
        let found = search(&server, metric, json!({ "vector": [1, 1, 0], "k": 1 })).await.body;
        let hit = &found["results"][0];
        let near = (hit["score"].as_f64().unwrap() - score).abs() < 1e-6;
        assert!(hit["id"] == best && near, "{metric}: {hit}");
    }
    let filtered = async |filter: Value| {
        let body = json!({ "vector": [3, 2, 1], "filter": filter, "include": [] });
        let found = search(&server, "cosine", body).await.body;
        ids(&found["results"]).join(" ")
    };
    assert_eq!(filtered(json!({})).await, "north-east east north up");
    assert_eq!(filtered(json!({ "kind": "axis", "rank": { "$gte": 2 } })).await, "north up");
    assert_eq!(
        filtered(json!({ "$or": [{ "rank": { "$in": [1, 9] } }, { "in.air": true }] })).await,
        "east up"
    );
    assert_eq!(filtered(json!({ "kind": { "$exists": false } })).await, "north-east");
    assert_eq!(filtered(json!({ "$not": { "rank": { "$lt": 3 } } })).await, "north-east up");
    let batch = json!({ "vectors": [[0, 0, 2], "AACAPwAAAAAAAAAA"], "k": 1, "include": ["vector", "tags"] });
    let found = search(&server, "cosine", batch).await.body;
    assert_eq!(
        found["results"][0],
        json!([{ "id": "up", "score": 1.0, "tags": [], "vector": [0.0, 0.0, 1.0] }])
    );
    assert_eq!(ids(&found["results"][1]), ["east"]);
    let near = json!({ "vector": [1, 0, 0], "min_score": 0.5, "include": ["text"] });
    let found = search(&server, "cosine", near).await.body;
    assert_eq!(ids(&found["results"]), ["east", "north-east"]);
    assert_eq!(found["results"][1]["text"], "between");
}

#[tokio::test]
async fn a_write_drops_the_cached_results_that_it_changes_and_no_others() {
    let (server, _dir) = start();
    make(&server, "points", json!({ "dimensions": 3 })).await;
    upsert(&server, "points", points()).await;
    let east = json!({ "vector": [1, 0, 0], "k": 2, "include": [] });
    let up = json!({ "vector": [0, 0, 1], "k": 1, "include": [] });
    let axes = json!({ "vector": [0, 0, 1], "k": 9, "filter": { "kind": "axis" }, "include": [] });
    let hits = async || {
        let mut hits = Vec::new();
        for body in [&east, &up, &axes] {
            let answer = search(&server, "points", body.clone()).await;
            let fresh = server.ask(
                "POST",
                "/v1/collections/points/search",
                &[("cache-control", "no-cache")],
                body.to_string(),
            );
            assert_eq!(fresh.await.body, answer.body);
            hits.push(answer.header("x-likewise-hits") == "1");
        }
        hits
    };
    assert_eq!(hits().await, [false; 3]);
    assert_eq!(hits().await, [true; 3]);
    upsert(&server, "points", json!([{ "id": "near-east", "vector": [9, 1, 0] }])).await;
    assert_eq!(hits().await, [false, true, true], "near the first query, and of no kind");
    upsert(
        &server,
        "points",
        json!([{ "id": "down", "vector": [0, 0, -1], "metadata": { "kind": "axis" } }]),
    )
    .await;
    assert_eq!(hits().await, [true, true, false], "far from all, but the last has fewer than k results");
    let gone = post(&server, "points/documents/delete", json!({ "ids": ["up", "absent"] })).await;
    assert_eq!(gone.body["documents"], 1);
    assert_eq!(hits().await, [true, false, false]);
    let gone = post(&server, "points/documents/delete", json!({ "ids": ["absent"] })).await;
    assert_eq!(gone.body, json!({ "documents": 0, "version": 4 }));
    let gone = post(&server, "points/documents/delete", json!({ "tags": ["mixed"] })).await;
    assert_eq!(gone.body["documents"], 1);
    assert_eq!(hits().await, [true; 3], "it was among no results");
    let gone = post(&server, "points/documents/delete", json!({ "filter": { "rank": 1 } })).await;
    assert_eq!(gone.body["documents"], 1);
    assert_eq!(hits().await, [false; 3], "it was among all, if only as the first of equals");
    assert_eq!(hits().await, [true; 3]);
    let hidden =
        server.ask("POST", "/v1/invalidate", &[], json!({ "namespace": "search_results" }).to_string()).await;
    assert_eq!(hidden.status, 200);
    assert_eq!(hits().await, [false; 3], "invalidated as everything is");
}

#[tokio::test]
async fn results_searched_before_an_invalidation_are_not_kept_after_it() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    make(&server, "texts", json!({})).await;
    upsert(&server, "texts", json!([{ "id": "1", "vector": vec![1; 384] }])).await;
    let ask = || search(&server, "texts", json!({ "query": "camiseta" }));
    let held = endpoint.hold().await;
    let invalidate_and_release = async {
        until("the text is being embedded", async || endpoint.texts() > 0).await;
        let body = json!({ "namespace": "search_results" }).to_string();
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], body).await.status, 200);
        drop(held);
    };
    let (first, ()) = tokio::join!(ask(), invalidate_and_release);
    assert_eq!(ids(&first.body["results"]), ["1"]);
    assert_eq!(ask().await.header("x-likewise-hits"), "0", "it was begun before the invalidation");
    assert_eq!(ask().await.header("x-likewise-hits"), "1");
    let elsewhere = json!({ "query": "camiseta", "cache": { "namespace": "campaign", "ttl": 60 } });
    assert_eq!(search(&server, "texts", elsewhere.clone()).await.header("x-likewise-hits"), "0");
    assert_eq!(search(&server, "texts", elsewhere).await.header("x-likewise-hits"), "1");
}

#[tokio::test]
async fn equal_searches_at_one_time_are_one_search() {
    let (server, _dir) = start();
    make(&server, "points", json!({ "dimensions": 3 })).await;
    upsert(&server, "points", points()).await;
    let body = json!({ "vectors": [[1, 0, 0], [1, 0, 0], [0, 1, 0]], "k": 1 });
    let found = search(&server, "points", body).await;
    let counts =
        ["x-likewise-hits", "x-likewise-misses", "x-likewise-coalesced"].map(|name| found.header(name));
    assert_eq!(counts, ["0", "2", "1"]);
}

#[tokio::test]
async fn documents_are_read_exported_and_dropped() {
    let (server, dir) = start();
    make(&server, "points", json!({ "dimensions": 3, "metric": "l2" })).await;
    upsert(&server, "points", points()).await;
    upsert(
        &server,
        "points",
        json!([{ "id": "a/ñ b", "vector": [1, 2, 3], "metadata": { "n": 12345678901234567890_u64 } }]),
    )
    .await;
    let one = server.get("/v1/collections/points/documents/a%2F%C3%B1%20b?include=vector").await;
    let expected =
        json!({ "id": "a/ñ b", "metadata": { "n": 12345678901234567890_u64 }, "vector": [1.0, 2.0, 3.0] });
    assert_eq!((one.status, one.body), (200, expected));
    let all = server.get("/v1/collections/points/documents").await;
    assert_eq!(all.header("x-likewise-documents"), "5");
    let lines: Vec<Value> =
        all.body.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids(&json!(lines)), ["east", "north", "up", "north-east", "a/ñ b"]);
    assert_eq!(lines[3], json!({ "id": "north-east", "text": "between", "tags": ["cold", "mixed"] }));
    let listed = server.get("/v1/collections").await.body;
    assert_eq!(listed["data"][0]["name"], "points");
    let same = server.ask("PUT", "/v1/collections/points", &[], r#"{"dimensions": 3, "metric": "l2"}"#).await;
    assert_eq!((same.status, &same.body["documents"]), (200, &json!(5)));
    assert_eq!(server.ask("DELETE", "/v1/collections/points", &[], "").await.status, 204);
    let gone = server.get("/v1/collections/points").await;
    assert_eq!((gone.status, gone.error()), (404, ("not_found", Some("name"))));
    let left = fs_err::read_dir(dir.path().join("collections")).unwrap().count();
    assert_eq!(left, 0, "its bytes are removed");
    make(&server, "points", json!({ "dimensions": 2 })).await;
    assert_eq!(search(&server, "points", json!({ "vector": [1, 0] })).await.body["results"], json!([]));
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let deep = (0..150).fold(json!({}), |inner, _| json!({ "inner": inner }));
    let (server, dir) = start();
    make(&server, "points", json!({ "dimensions": 3 })).await;
    make(&server, "texts", json!({})).await;
    upsert(&server, "points", points()).await;
    let ask = async |path: &str, body: Value, status: u16, param: Option<&str>| {
        let answer = post(&server, path, body.clone()).await;
        assert_eq!((answer.status, answer.error().1), (status, param), "{path} {body}: {}", answer.body);
    };
    let nan = "AACAPwAAwH8AAAAA";
    for (documents, param) in [
        (json!([]), "documents"),
        (json!([{ "id": "a", "vector": [1, 2] }]), "documents[0].vector"),
        (
            json!([{ "id": "a", "vector": [1, 2, 3] }, { "id": "b", "vector": [0, 0, 0] }]),
            "documents[1].vector",
        ),
        (json!([{ "id": "a", "vector": nan }]), "documents[0].vector"),
        (json!([{ "id": "a", "vector": [1, 1, 1] }, { "id": "a", "vector": [1, 1, 1] }]), "documents[1].id"),
        (json!([{ "id": "", "vector": [1, 1, 1] }]), "documents[0].id"),
        (json!([{ "id": "x".repeat(513), "vector": [1, 1, 1] }]), "documents[0].id"),
        (json!([{ "id": "a", "vector": [1, 1, 1] }, { "id": "b" }]), "documents[1].text"),
        (json!([{ "id": "a", "vector": [1, 1, 1], "metadata": [1] }]), "documents[0].metadata"),
        // What filters could not read.
        (json!([{ "id": "a", "vector": [1, 1, 1], "metadata": deep }]), "documents[0].metadata"),
        (
            json!([{ "id": "a", "vector": [1, 1, 1], "metadata": { "x": "y".repeat(70_000) } }]),
            "documents[0].metadata",
        ),
        (json!([{ "id": "a", "vector": [1, 1, 1], "tags": ["a b"] }]), "documents[0].tags"),
        (json!([{ "id": "a", "vector": "%%" }]), "documents[0].vector"),
        (json!([{ "id": "a", "vector": [1, 1, 1] }, { "id": 7 }]), "documents[1].id"),
        (json!([{ "id": "a", "vector": [1, "one", 1] }]), "documents[0].vector[1]"),
        (json!([{ "id": "a", "vector": [1, 1, 1], "tag": "x" }]), "documents[0].tag"),
        (json!([[]]), "documents[0]"),
    ] {
        ask("points/documents", json!({ "documents": documents }), 400, Some(param)).await;
    }
    ask(
        "points/documents",
        json!({ "documents": [{ "id": "a", "text": "x" }] }),
        409,
        Some("documents[0].text"),
    )
    .await;
    ask(
        "texts/documents",
        json!({ "documents": [{ "id": "a", "text": "" }] }),
        400,
        Some("documents[0].text"),
    )
    .await;
    ask(
        "points/documents",
        json!({ "documents": [{ "id": "a", "vector": [1e39, 0, 0] }] }),
        400,
        Some("documents[0].vector"),
    )
    .await;
    let long = json!([{ "id": "a", "text": "corto" }, { "id": "b", "text": "palabra ".repeat(600) }]);
    let uncut = json!({ "documents": long, "truncate": false });
    ask("texts/documents", uncut, 400, Some("documents[1].text")).await;
    ask("points/documents", json!({ "docs": [] }), 400, Some("docs")).await;
    for (body, param) in [
        (json!({}), "query"),
        (json!({ "vector": [1, 0, 0], "query": "x" }), "query"),
        (json!({ "vector": [1, 0, 0], "k": 0 }), "k"),
        (json!({ "vector": [1, 0, 0], "k": 1001 }), "k"),
        (json!({ "vector": [1, 0] }), "vector"),
        (json!({ "vector": [0, 0, 0] }), "vector"),
        (json!({ "vectors": [[1, 0, 0], [1]] }), "vectors[1]"),
        (json!({ "vectors": [[1, 0, 0], [1, "x", 0]] }), "vectors[1][1]"),
        (json!({ "vectors": [] }), "vectors"),
        (json!({ "vector": [1, 0, 0], "filter": { "a": { "$like": "x" } } }), "filter.a.$like"),
        (json!({ "vector": [1, 0, 0], "filter": { "a": { "$gt": [] } } }), "filter.a.$gt"),
        (json!({ "vector": [1, 0, 0], "include": ["everything"] }), "include[0]"),
        (json!({ "vector": [1, 0, 0], "limit": 3 }), "limit"),
        (json!({ "vector": [1, 0, 0], "cache": { "ttl": 0 } }), "cache.ttl"),
    ] {
        ask("points/search", body, 400, Some(param)).await;
    }
    ask("points/search", json!({ "query": "x" }), 409, Some("query")).await;
    ask("texts/search", json!({ "query": "" }), 400, Some("query")).await;
    ask("texts/search", json!({ "query": "x", "cache": { "only-if-cached": true } }), 504, None).await;
    ask("absent/search", json!({ "vector": [1] }), 404, Some("name")).await;
    ask("absent/documents", json!({ "documents": [] }), 404, Some("name")).await;
    ask("points/documents/delete", json!({ "ids": ["east"], "tags": ["cold"] }), 400, Some("ids")).await;
    ask("points/documents/delete", json!({ "tags": ["a b"] }), 400, Some("tags")).await;
    for (name, body, status, param) in [
        ("a%20b", json!({}), 400, "name"),
        ("points", json!({ "dimensions": 4 }), 409, "name"),
        ("new", json!({ "metric": "manhattan" }), 400, "metric"),
        ("new", json!({ "dimensions": 0 }), 400, "dimensions"),
        ("new", json!({ "dimensions": 100_000 }), 400, "dimensions"),
        ("new", json!({ "model": "gpt" }), 404, "model"),
        ("new", json!({ "model": "fake-model", "dimensions": 3 }), 400, "dimensions"),
    ] {
        let answer = server.ask("PUT", &format!("/v1/collections/{name}"), &[], body.to_string()).await;
        assert_eq!(
            (answer.status, answer.error().1),
            (status, Some(param)),
            "{name} {body}: {}",
            answer.body
        );
    }
    let missing = server.get("/v1/collections/points/documents/absent").await;
    assert_eq!((missing.status, missing.error().1), (404, Some("id")));
    let wrong = server.get("/v1/collections/points/documents/east?include=all").await;
    assert_eq!((wrong.status, wrong.error().1), (400, Some("include")));
    assert_eq!(server.get("/v1/collections/points").await.body["version"], 1, "nothing was changed");
    assert!(server.stop().success());

    // Another model: the collection remembers whose vectors it holds.
    let mut other = likewise("serve", dir.path());
    let server = Server::spawn(other.env("LIKEWISE__EMBED__TOKENS_MAX", "64"));
    let answer = post(&server, "texts/search", json!({ "query": "x" })).await;
    assert_eq!((answer.status, answer.error().1), (409, Some("query")), "{}", answer.body);
}

#[tokio::test]
async fn a_damaged_collection_is_left_alone_until_it_is_dropped_and_the_others_are_served() {
    let (server, dir) = start();
    for name in ["good", "bad"] {
        make(&server, name, json!({ "dimensions": 3 })).await;
        upsert(&server, name, points()).await;
    }
    assert!(server.stop().success());
    let manifest = dir.path().join("collections/bad.manifest");
    let mut bytes = fs_err::read(&manifest).unwrap();
    bytes[20] ^= 1;
    fs_err::write(&manifest, bytes).unwrap();
    let server = start_in(&dir);
    assert_eq!(
        ids(&search(&server, "good", json!({ "vector": [1, 0, 0], "k": 1 })).await.body["results"]),
        ["east"]
    );
    let answer = post(&server, "bad/search", json!({ "vector": [1, 0, 0] })).await;
    assert_eq!((answer.status, answer.error().0), (503, "unavailable"));
    let said = answer.body.to_string();
    assert!(!said.contains(dir.path().to_str().unwrap()) && !said.contains("manifest"), "{said}");
    let listed = server.get("/v1/collections").await.body;
    assert_eq!(listed["data"][0], json!({ "name": "bad", "is_available": false }));
    assert!(manifest.exists(), "what is damaged is not removed unasked");
    assert_eq!(server.ask("DELETE", "/v1/collections/bad", &[], "").await.status, 204);
    assert_eq!(post(&server, "bad/search", json!({ "vector": [1, 0, 0] })).await.status, 404);
    let left = || {
        let files = fs_err::read_dir(dir.path().join("collections")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("bad.")).collect::<Vec<_>>()
    };
    assert!(left().is_empty(), "{:?}", left());
    make(&server, "bad", json!({ "dimensions": 3 })).await;
    upsert(&server, "bad", points()).await;
    assert!(server.stop().success());
    let server = start_in(&dir);
    assert_eq!(server.get("/v1/collections/bad").await.body["documents"], 4);
}

/// An upload of any shape: documents lie in lines, and in one line each in an export.
#[tokio::test]
async fn metadata_are_read_as_filters_read_them_and_exported_in_one_line() {
    let (server, _dir) = start();
    make(&server, "points", json!({ "dimensions": 3 })).await;
    let upload =
        "{\"documents\": [{\"id\": \"a\", \"vector\": [1, 0, 0],\r\n \"metadata\": {\n\"x\":\r\n 1\n}}]}";
    let path = "/v1/collections/points/documents";
    assert_eq!(server.ask("POST", path, &[], upload).await.status, 200);
    let exported =
        server.client().get(format!("{}{path}", server.url())).send().await.unwrap().text().await.unwrap();
    assert_eq!(exported.lines().count(), 1, "{exported}");
    assert_eq!(serde_json::from_str::<Value>(&exported).unwrap()["metadata"], json!({ "x": 1 }));
    for metadata in [r#"{"a":1,"x":1e999}"#, r#"{"a":1,"x":"\ud800"}"#] {
        let upload = format!(r#"{{"documents":[{{"id":"b","vector":[1,1,1],"metadata":{metadata}}}]}}"#);
        let refused = server.ask("POST", path, &[], upload).await;
        assert_eq!(
            (refused.status, refused.error().1),
            (400, Some("documents[0].metadata")),
            "{}",
            refused.body
        );
    }
    let refused = server.ask("PUT", "/v1/collections/other", &[], "[]").await;
    assert_eq!(refused.status, 400, "{}", refused.body);
}

#[tokio::test]
async fn results_have_a_limit_and_texts_that_are_too_long_are_named() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let mut program = remote(dir.path(), &endpoint.url);
    program.env("LIKEWISE__COLLECTIONS__RESULT_BYTES_MAX", "20000");
    program.env("LIKEWISE__EMBEDDINGS__TEXT_BYTES_MAX", "1000");
    let server = Server::spawn(&mut program);
    make(&server, "points", json!({ "dimensions": 3 })).await;
    upsert(&server, "points", json!([{ "id": "a", "vector": [1, 0, 0], "text": "x".repeat(900) }])).await;
    // Each another one: equal queries are searched once.
    let vectors = |count: usize| {
        let vectors: Vec<[usize; 3]> = (1..=count).map(|n| [n, 1, 0]).collect();
        json!({ "vectors": vectors, "include": [] })
    };
    assert_eq!(search(&server, "points", vectors(20)).await.body["results"][19][0]["id"], "a");
    let refused = post(&server, "points/search", vectors(40)).await;
    assert_eq!((refused.status, refused.error().1), (400, Some("k")), "{}", refused.body);

    make(&server, "texts", json!({})).await;
    let long = "x".repeat(1001);
    let documents = json!({ "documents": [{ "id": "a", "text": "short" }, { "id": "b", "text": long }] });
    for (path, body, param) in [
        ("texts/documents", documents, "documents[1].text"),
        ("texts/search", json!({ "query": long }), "query"),
        ("texts/search", json!({ "queries": ["short", long] }), "queries[1]"),
    ] {
        let refused = post(&server, path, body).await;
        assert_eq!((refused.status, refused.error().1), (413, Some(param)), "{}", refused.body);
        assert!(refused.body["error"]["message"].as_str().unwrap().starts_with(param), "{}", refused.body);
    }
}

/// A client that disconnects while a collection is created leaves one whole collection.
#[tokio::test]
async fn clients_that_leave_while_a_collection_is_made_break_nothing() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let names: Vec<String> = (0..60).map(|number| format!("points-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let make = || {
            let url = format!("{}/v1/collections/{name}", server.url());
            server.client().put(url).body(r#"{"dimensions": 3}"#)
        };
        // It may have been answered by then.
        let _ = make().timeout(std::time::Duration::from_micros(200 + 50 * number as u64)).send().await;
        let made = make().send().await.unwrap().status().as_u16();
        assert!(made == 200 || made == 201, "{name}: {made}");
        upsert(&server, name, json!([{ "id": "a", "vector": [1, 0, 0] }])).await;
    }
    server.kill();
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    for name in names {
        let found = server.get(&format!("/v1/collections/{name}/documents/a")).await;
        assert_eq!(found.status, 200, "{name}: {}", found.body);
    }
}
