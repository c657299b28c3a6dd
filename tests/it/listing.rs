//! Listing over HTTP: what a lookup would serve is listed, under its names, once; nothing else is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::model;
use crate::program::{Answer, Server, until};

const KEYS: usize = 3000;

async fn put(server: &Server, path: &str, headers: &[(&str, &str)], value: &str) -> Answer {
    let stored = server.ask("PUT", &format!("/v1/cache/{path}"), headers, value.to_owned()).await;
    assert_eq!(stored.status, 204, "{}", stored.body);
    stored
}

/// Stores and removes objects of the namespace `shop` in one request.
async fn batch(server: &Server, put: impl IntoIterator<Item = String>, delete: &[String]) {
    let put: Vec<Value> = put.into_iter().map(|key| json!({ "key": key, "value": "v" })).collect();
    let body = json!({ "put": put, "delete": delete }).to_string();
    let done = server.ask("POST", "/v1/cache/shop/batch", &[], body).await;
    assert_eq!(done.status, 200, "{}", done.body);
}

async fn page(server: &Server, path: &str) -> Value {
    let page = server.get(path).await;
    assert_eq!(page.status, 200, "{path}: {}", page.body);
    page.body
}

/// The entries of all pages. Each page has at most `limit` of them.
async fn all(server: &Server, path: &str, limit: usize) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let page = page(server, &format!("{path}{mark}limit={limit}{after}")).await;
        let data = page["data"].as_array().expect("a list");
        assert!(data.len() <= limit && page["scanned"].as_u64().is_some_and(|n| n <= 10_500), "{page}");
        found.extend(data.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

fn counted(entries: &[Value]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for entry in entries {
        *counted.entry(entry["key"].as_str().expect("objects have keys").to_owned()).or_default() += 1;
    }
    counted
}

async fn keys(server: &Server, path: &str) -> Vec<String> {
    counted(&all(server, path, 1000).await).into_keys().collect()
}

#[tokio::test]
async fn an_object_is_listed_with_its_key_and_tags_whatever_its_content_type() {
    let server = Server::start();
    let headers = [("content-type", "application/vnd.likewise.answer+json"), ("x-cache-tags", "season")];
    put(&server, "shop/tea", &headers, "v").await;
    let page = page(&server, "/v1/cache/shop").await;
    let listed = &page["data"][0];
    assert_eq!((&listed["kind"], &listed["key"]), (&json!("object"), &json!("tea")), "{page}");
    assert_eq!(listed["tags"], json!(["season"]), "{page}");
}

#[tokio::test]
async fn what_is_cached_throughout_is_listed_once_while_others_write_and_delete() {
    let server = Server::start();
    for first in (0..KEYS).step_by(1000) {
        batch(&server, (first..first + 1000).map(|n| format!("kept/{n}")), &[]).await;
    }
    let is_listed = AtomicBool::new(false);
    let write = async {
        let mut rounds = 0_usize;
        while rounds == 0 || !is_listed.load(Ordering::Acquire) {
            let brief: Vec<String> = (0..200).map(|n| format!("brief/{rounds}/{n}")).collect();
            batch(&server, brief.iter().cloned(), &[]).await;
            let again = (0..100).map(|n| format!("kept/{}", (rounds * 100 + n) % KEYS));
            batch(&server, again, &brief).await;
            rounds += 1;
        }
    };
    let list = async {
        let entries = all(&server, "/v1/cache/shop", 97).await;
        is_listed.store(true, Ordering::Release);
        entries
    };
    let ((), entries) = tokio::join!(write, list);
    let counted = counted(&entries);
    assert!(counted.values().all(|&times| times == 1), "nothing is listed twice");
    let kept = counted.keys().filter(|key| key.starts_with("kept/")).count();
    assert_eq!(kept, KEYS, "nothing is missed");
    assert_eq!(all(&server, "/v1/cache/shop?prefix=kept/", 1000).await.len(), KEYS);
    assert_eq!(keys(&server, "/v1/cache/shop?prefix=kept/299").await.len(), 11);
    assert!(keys(&server, "/v1/cache/shop?prefix=brief/").await.is_empty(), "all of them were removed");
    assert!(keys(&server, "/v1/cache/shop?prefix=shop").await.is_empty());
}

#[tokio::test]
async fn an_entry_is_listed_with_its_names_and_metadata_also_after_a_restart() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Server::start_in(dir.path(), &[]);
    let headers =
        [("x-cache-tags", "product:42, año"), ("x-cache-ttl", "600"), ("content-type", "text/plain")];
    put(&server, "productos/tea%2Fgr%C3%BCn", &headers, "green tea").await;
    put(&server, "products/plain", &[], "x").await;
    let got = server.get("/v1/cache/products/tea%2Fgr%C3%BCn").await;
    let check = async |server: &Server| {
        let listed = page(server, "/v1/cache/products?key=tea%2Fgr%C3%BCn").await;
        let entry = &listed["data"][0];
        assert_eq!(entry["key"], "tea/grün");
        assert_eq!((&entry["kind"], &entry["namespace"]), (&json!("object"), &json!("products")));
        assert_eq!((&entry["bytes"], &entry["content_type"]), (&json!(9), &json!("text/plain")));
        assert_eq!(entry["tags"], json!(["product:42", "año"]));
        assert_eq!(format!("{:?}", entry["etag"].as_str().unwrap()), got.header("etag"));
        let number = |name: &str| entry[name].as_u64().unwrap();
        assert!((540..=600).contains(&(number("expires") - number("created"))), "{entry}");
        assert!(number("ttl") <= 600 && number("age") < 600 && entry["is_stale"] == false, "{entry}");
        assert_eq!(keys(server, "/v1/cache/products?prefix=tea").await, ["tea/grün"]);
        let plain = page(server, "/v1/cache/productos?key=plain").await;
        assert_eq!((&plain["data"][0]["tags"], &plain["next"]), (&json!([]), &Value::Null));
    };
    check(&server).await;
    let soft = json!({ "namespace": "products", "keys": ["plain"], "mode": "soft" }).to_string();
    assert_eq!(server.ask("POST", "/v1/invalidate", &[], soft).await.status, 200);
    let plain = page(&server, "/v1/cache/products?key=plain").await;
    assert_eq!(plain["data"][0]["is_stale"], true, "the rewritten entry keeps its names: {plain}");
    assert_eq!(page(&server, "/v1/cache/products?key=unknown").await["data"], json!([]));
    server.stop();
    check(&Server::start_in(dir.path(), &[])).await;
}

#[tokio::test]
async fn what_would_not_be_served_is_not_listed() {
    let server = Server::start();
    for key in ["kept", "tagged", "named", "replaced", "removed"] {
        let tags = if key == "tagged" { "gone" } else { "here" };
        put(&server, &format!("shop/{key}"), &[("x-cache-tags", tags)], key).await;
    }
    put(&server, "shop/brief", &[("x-cache-ttl", "1")], "brief").await;
    put(&server, "search_results/in_memory", &[], "x").await;
    let shop = async || keys(&server, "/v1/cache/shop").await;
    until("its life has ended", async || !shop().await.contains(&"brief".to_owned())).await;
    let invalidate = async |body: Value| {
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], body.to_string()).await.status, 200);
    };
    assert_eq!(shop().await, ["kept", "named", "removed", "replaced", "tagged"]);
    assert_eq!(keys(&server, "/v1/tags/here").await, ["kept", "named", "removed", "replaced"]);
    invalidate(json!({ "tags": ["gone"] })).await;
    invalidate(json!({ "namespace": "shop", "keys": ["named"] })).await;
    put(&server, "shop/replaced", &[("x-cache-tags", "other")], "replaced").await;
    assert_eq!(server.ask("DELETE", "/v1/cache/shop/removed", &[], "").await.status, 204);
    assert_eq!(shop().await, ["kept", "replaced"]);
    assert_eq!(keys(&server, "/v1/tags/here").await, ["kept"]);
    assert_eq!(keys(&server, "/v1/tags/gone").await, [""; 0]);
    assert_eq!(server.get("/v1/cache/search_results/in_memory").await.status, 200);
    assert!(keys(&server, "/v1/cache/search_results").await.is_empty(), "it is in memory only");

    let summary = async |name: &str| {
        let namespaces = page(&server, "/v1/namespaces").await;
        let data = namespaces["data"].as_array().unwrap().clone();
        assert!(data.is_sorted_by_key(|namespace| namespace["name"].as_str().unwrap().to_owned()));
        data.into_iter().find(|namespace| namespace["name"] == name).unwrap_or_else(|| panic!("{namespaces}"))
    };
    let disk = &summary("shop").await["disk"];
    // The brief one may stand in for a failed origin, so it has not ended for good.
    assert_eq!((&disk["entries"], &disk["invalidated"]), (&json!(4), &json!(1)), "{disk}");
    assert!(disk["bytes"].as_u64().is_some_and(|bytes| bytes > 400), "{disk}");
    let results = summary("search_results").await;
    assert_eq!((&results["memory"]["entries"], &results["disk"]["entries"]), (&json!(1), &json!(0)));
    assert_eq!(summary("products").await["aliases"], json!(["productos"]));
    invalidate(json!({ "namespace": "shop" })).await;
    assert!(shop().await.is_empty());
    let disk = &summary("shop").await["disk"];
    assert_eq!(disk["entries"], disk["invalidated"], "{disk}");
}

#[tokio::test]
async fn a_tag_lists_objects_and_answers_and_a_dry_run_counts_them_by_kind_and_namespace() {
    let server = Server::start();
    for (namespace, count) in [("shop", 3), ("stock", 2)] {
        for n in 0..count {
            put(&server, &format!("{namespace}/{n}"), &[("x-cache-tags", "season:winter")], "x").await;
        }
    }
    put(&server, "shop/other", &[("x-cache-tags", "season:summer")], "x").await;
    let given = json!({ "prompt": "¿Cuánto cuesta?", "answer": "19,90 €", "tags": ["season:winter"] });
    let given = server.ask("POST", "/v1/answers", &[], given.to_string()).await;
    assert_eq!(given.status, 201, "{}", given.body);

    let entries = all(&server, "/v1/tags/season:winter", 2).await;
    assert_eq!(entries.len(), 6);
    let answers: Vec<&Value> = entries.iter().filter(|entry| entry["kind"] == "answer").collect();
    assert_eq!((&answers[0]["id"], &answers[0]["namespace"]), (&given.body["id"], &json!("llm_responses")));
    assert!(answers.len() == 1 && answers[0]["key"].is_null(), "{answers:?}");
    let listed = all(&server, "/v1/cache/llm_responses", 10).await;
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &given.body["id"]));

    let dry_run = async |mut target: Value| {
        target["dry_run"] = true.into();
        let counted = server.ask("POST", "/v1/invalidate", &[], target.to_string()).await;
        assert_eq!(counted.status, 200, "{}", counted.body);
        counted.body["entries"].clone()
    };
    let counted = dry_run(json!({ "tags": ["season:winter"] })).await;
    assert_eq!((&counted["memory"], &counted["disk"]), (&json!(6), &json!(6)));
    let group = |kind: &str, namespace: &str, count: u64| json!({ "kind": kind, "namespace": namespace, "memory": count, "disk": count });
    let expected =
        [group("object", "shop", 3), group("object", "stock", 2), group("answer", "llm_responses", 1)];
    assert_eq!(counted["groups"], json!(expected));
    assert_eq!(
        dry_run(json!({ "namespace": "stock" })).await["groups"],
        json!([group("object", "stock", 2)])
    );
    server.embed(&["one", "two"]).await;
    let everything = dry_run(json!({ "all": true })).await;
    let groups = everything["groups"].as_array().unwrap();
    let embeddings = |namespace: Value, tier: &str| {
        let of = |group: &&Value| group["kind"] == "embedding" && group["namespace"] == namespace;
        groups.iter().find(of).map(|group| group[tier].clone())
    };
    assert_eq!(embeddings(json!("embeddings"), "memory"), Some(json!(2)), "{everything}");
    assert_eq!(embeddings(Value::Null, "disk"), Some(json!(2)), "{everything}");
}

#[tokio::test]
async fn statistics_count_lookups_by_namespace_and_model() {
    let server = Server::start();
    put(&server, "products/a", &[], "x").await;
    put(&server, "open/a", &[], "x").await;
    for (path, status) in [("products/a", 200), ("productos/a", 200), ("products/b", 404), ("open/a", 200)] {
        assert_eq!(server.get(&format!("/v1/cache/{path}")).await.status, status);
    }
    let body = json!({ "get": ["a", "b"] }).to_string();
    assert_eq!(server.ask("POST", "/v1/cache/open/batch", &[], body).await.status, 200);
    server.embed(&["one", "two", "one"]).await;
    server.embed(&["one"]).await;
    let lookup = json!({ "prompt": "p" }).to_string();
    assert_eq!(server.ask("POST", "/v1/answers/lookup", &[], lookup).await.status, 200);
    let stats = server.get("/v1/stats").await.body;
    let namespaces = stats["namespaces"].as_array().unwrap();
    let of = |namespace: &str| {
        let found = namespaces.iter().find(|element| element["name"] == namespace);
        let count =
            |name| found.and_then(|element| element[name].as_u64()).unwrap_or_else(|| panic!("{stats}"));
        (count("hits"), count("misses"), count("entries"))
    };
    assert_eq!((of("products"), of("open"), of("llm_responses")), ((2, 1, 1), (2, 1, 1), (0, 1, 0)));
    assert_eq!(of("embeddings"), (1, 2, 0));
    let model = &stats["models"]["embeddings"][0];
    assert_eq!(
        (&model["name"], &model["hits"], &model["misses"]),
        (&model::NAME.into(), &1.into(), &2.into())
    );
    let others = namespaces.last().unwrap();
    assert_eq!((&others["name"], &others["hits"]), (&Value::Null, &0.into()));
}

#[tokio::test]
async fn a_bad_parameter_is_refused_by_its_name() {
    let server = Server::start();
    for key in ["a", "b"] {
        put(&server, &format!("shop/{key}"), &[], key).await;
        put(&server, &format!("stock/{key}"), &[("x-cache-tags", "t")], key).await;
    }
    let next = page(&server, "/v1/cache/stock?limit=1").await["next"].as_str().unwrap().to_owned();
    let foreign = format!("/v1/cache/shop?after={next}");
    for (path, param) in [
        ("/v1/cache/shop?limit=0", "limit"),
        ("/v1/cache/shop?limit=1001", "limit"),
        ("/v1/cache/shop?limit=-1", "limit"),
        ("/v1/cache/shop?limit=ten", "limit"),
        ("/v1/cache/shop?limit=99999999999999999999", "limit"),
        ("/v1/cache/shop?limit=1&limit=2", "limit"),
        ("/v1/cache/shop?after=garbage", "after"),
        ("/v1/cache/shop?after=", "after"),
        (&foreign, "after"),
        ("/v1/cache/shop?cursor=1", "cursor"),
        ("/v1/cache/shop?key=a&prefix=a", "prefix"),
        ("/v1/cache/shop?key=a&limit=5", "limit"),
        ("/v1/cache/shop?key=", "key"),
        ("/v1/cache/bad%20name", "namespace"),
        ("/v1/tags/a%2Cb", "tag"),
        ("/v1/tags/t?limit=0", "limit"),
        ("/v1/tags/t?after=AAAA", "after"),
        ("/v1/tags/t?prefix=a", "prefix"),
    ] {
        let refused = server.get(path).await;
        assert_eq!((refused.status, refused.error().1), (400, Some(param)), "{path}: {}", refused.body);
    }
    assert_eq!(page(&server, &format!("/v1/tags/t?after={next}")).await["data"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/namespaces/shop").await.status, 404);
}
