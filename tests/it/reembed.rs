//! Goal: a collection is embedded by another model while it is used, and nothing is lost or mixed, whatever happens meanwhile. Method:
//! the program with two models whose vectors differ in their length, a ledger of what was acknowledged, `kill -9`, and a model that
//! refuses, fails and waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::Endpoint;
use crate::kill::{number_from, splitmix};
use crate::model;
use crate::program::{Answer, Server, likewise, output, until};

/// The length of the vectors of the model on another server. Those of the local one have 384 numbers.
const FAR_DIM: u64 = 64;
const FEW: usize = 20;

/// A load that leaves the processors to the job too: each turn of changes is of three documents.
const SEARCH_EVERY: Duration = Duration::from_millis(10);
const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// A server with the local model and one on another server, `far`.
struct Setup {
    dir: TempDir,
    endpoint: Endpoint,
}

impl Setup {
    async fn new() -> Setup {
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        endpoint.change_width(FAR_DIM);
        endpoint.repeat();
        Setup { dir, endpoint }
    }

    fn start(&self) -> Server {
        self.start_with("")
    }

    fn start_with(&self, more: &str) -> Server {
        let url = &self.endpoint.url;
        let config = format!(
            "[[models]]\naliases = [\"far\"]\nremote = {{ base_url = \"{url}\", model = \"mock\", dim = {FAR_DIM}, backoff_ms = 1 }}\n{more}\n"
        );
        let file = self.dir.path().join("config.toml");
        fs_err::write(&file, config).unwrap();
        Server::spawn(likewise("serve", &self.data()).arg("--config").arg(file))
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn collections(&self) -> PathBuf {
        self.data().join("collections")
    }

    /// Whether collections have files whose names begin so.
    fn has_files(&self, start: &str) -> bool {
        let mut files = fs_err::read_dir(self.collections()).unwrap();
        files.any(|file| file.unwrap().file_name().to_string_lossy().starts_with(start))
    }
}

fn text(n: usize) -> String {
    format!("document number {n} of the shop")
}

async fn create(server: &Server, model: &str) {
    let spec = json!({ "model": model }).to_string();
    assert_eq!(server.ask("PUT", "/v1/collections/shop", &[], spec).await.status, 201);
}

async fn upsert(server: &Server, documents: Vec<Value>) -> Answer {
    let body = json!({ "documents": documents }).to_string();
    server.ask("POST", "/v1/collections/shop/documents", &[], body).await
}

async fn fill(server: &Server, count: usize) {
    for from in (0..count).step_by(50) {
        let documents = (from..count.min(from + 50)).map(|n| json!({ "id": n.to_string(), "text": text(n) }));
        let stored = upsert(server, documents.collect()).await;
        assert_eq!(stored.status, 200, "{}", stored.body);
    }
}

async fn begin(server: &Server, more: Value) -> Answer {
    let mut input = json!({ "kind": "reembed", "collection": "shop" });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.ask("POST", "/v1/jobs", &[], input.to_string()).await
}

/// Begins a job that must be taken, and returns its id.
async fn job(server: &Server, more: Value) -> String {
    let begun = begin(server, more).await;
    assert_eq!(begun.status, 202, "{}", begun.body);
    begun.body["id"].as_str().unwrap().to_owned()
}

async fn ended(server: &Server, id: &str) -> Value {
    let mut last = Value::Null;
    until("the job ends", async || {
        last = server.get(&format!("/v1/jobs/{id}")).await.body;
        !["queued", "running"].contains(&last["state"].as_str().unwrap())
    })
    .await;
    last
}

async fn order(server: &Server, id: &str, order: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.ask("POST", &format!("/v1/jobs/{id}/{order}"), &[], body).await
}

/// All documents by their ids: text and vector.
async fn documents(server: &Server) -> BTreeMap<String, (Value, Vec<f32>)> {
    let (mut all, mut after) = (BTreeMap::new(), String::new());
    loop {
        let path = format!("/v1/collections/shop/documents?limit=200&include=text,vector{after}");
        let page = server.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        for document in page.body["data"].as_array().unwrap() {
            let numbers = document["vector"].as_array().unwrap().iter();
            let vector = numbers.map(|number| number.as_f64().unwrap() as f32).collect();
            let id = document["id"].as_str().unwrap().to_owned();
            all.insert(id, (document["text"].clone(), vector));
        }
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

/// That the collection has the documents of the ledger, each with the vector that the local model makes of its text.
async fn check_local(server: &Server, ledger: &BTreeMap<String, String>) {
    let stored = documents(server).await;
    let texts: BTreeMap<String, String> =
        stored.iter().map(|(id, (text, _))| (id.clone(), text.as_str().unwrap().to_owned())).collect();
    assert_eq!(texts, *ledger);
    let (ids, texts): (Vec<&String>, Vec<&String>) = ledger.iter().unzip();
    for (ids, texts) in ids.chunks(200).zip(texts.chunks(200)) {
        let body = json!({ "model": model::NAME, "input": texts, "input_type": "document" }).to_string();
        let expected = server.ask("POST", "/v1/embeddings", &[], body).await.vectors();
        for (id, expected) in ids.iter().zip(expected) {
            assert_eq!(stored[*id].1, expected, "{id}");
        }
    }
}

/// A search by text, whose results must all be of one model.
async fn search(server: &Server, n: usize) -> usize {
    let body = json!({ "query": text(n), "k": 5, "include": ["vector"] }).to_string();
    let found = server.ask("POST", "/v1/collections/shop/search", &[], body).await;
    assert_eq!(found.status, 200, "{}", found.body);
    let results = found.body["results"].as_array().unwrap();
    let lengths: Vec<usize> = results.iter().map(|hit| hit["vector"].as_array().unwrap().len()).collect();
    assert!(!lengths.is_empty() && lengths.iter().all(|&length| length == lengths[0]), "{lengths:?}");
    lengths[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_and_changes_go_on_and_all_of_them_are_in_the_new_vectors() {
    let setup = Setup::new().await;
    let server = Arc::new(setup.start());
    create(&server, "far").await;
    fill(&server, 400).await;
    let mut ledger: BTreeMap<String, String> = (0..400).map(|n| (n.to_string(), text(n))).collect();
    assert_eq!(search(&server, 3).await, 64);
    let id = job(&server, json!({ "model": model::NAME, "requests_per_minute": 6000 })).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let (searching, watched) = (Arc::clone(&server), Arc::clone(&is_over));
    let searches = tokio::spawn(async move {
        let (mut lengths, mut n) = (Vec::new(), 0);
        let mut turns = tokio::time::interval(SEARCH_EVERY);
        while !watched.load(Ordering::SeqCst) {
            turns.tick().await;
            lengths.push(search(&searching, n % 400).await);
            n += 1;
        }
        lengths
    });
    let mut n = 400;
    // Until after the change of the model, and through it.
    let mut after = 0;
    let mut turns = tokio::time::interval(CHANGE_EVERY);
    while after < 5 {
        turns.tick().await;
        let (new, changed, gone) = (n, n % 350, n % 90 + 300);
        let stored = upsert(
            &server,
            vec![
                json!({ "id": new.to_string(), "text": text(new) }),
                json!({ "id": changed.to_string(), "text": format!("{} again {n}", text(changed)) }),
            ],
        )
        .await;
        assert_eq!(stored.status, 200, "{}", stored.body);
        ledger.insert(new.to_string(), text(new));
        ledger.insert(changed.to_string(), format!("{} again {n}", text(changed)));
        let patch = json!({ "text": format!("patched {n}") }).to_string();
        let patched = server.ask("PATCH", "/v1/collections/shop/documents/7", &[], patch).await;
        assert_eq!(patched.status, 200, "{}", patched.body);
        ledger.insert("7".into(), format!("patched {n}"));
        let body = json!({ "ids": [gone.to_string()] }).to_string();
        let removed = server.ask("POST", "/v1/collections/shop/documents/delete", &[], body).await;
        assert_eq!(removed.status, 200, "{}", removed.body);
        ledger.remove(&gone.to_string());
        n += 1;
        let state = server.get(&format!("/v1/jobs/{id}")).await.body;
        assert!(["queued", "running", "succeeded"].contains(&state["state"].as_str().unwrap()), "{state}");
        after += usize::from(state["state"] == "succeeded");
    }
    is_over.store(true, Ordering::SeqCst);
    let lengths = searches.await.unwrap();
    let change = lengths.iter().position(|&length| length == 384).expect("the new vectors are searched");
    assert!(change > 0 && lengths[change..].iter().all(|&length| length == 384), "{lengths:?}");
    check_local(&server, &ledger).await;

    let report = ended(&server, &id).await;
    assert_eq!((&report["report"]["from_model"], &report["report"]["refused"]), (&json!("mock"), &json!(0)));
    assert_eq!(report["report"]["verification"]["not_found_by_own_vector"], 0);
    // What was changed since then is kept by the rollback, and by a restart.
    let id = job(&server, json!({ "rollback": true })).await;
    assert_eq!(ended(&server, &id).await["state"], "succeeded");
    let rolled_back = documents(&server).await;
    assert!(rolled_back.values().all(|(_, vector)| vector.len() == 64));
    assert!(rolled_back.keys().eq(ledger.keys()));
    Arc::into_inner(server).unwrap().stop();
    let server = setup.start();
    assert_eq!(documents(&server).await, rolled_back);
    assert_eq!(search(&server, 1).await, 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_killed_again_and_again_ends_as_one_that_was_not() {
    let rounds = number_from("LIKEWISE_KILL_ROUNDS", 10).min(20);
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "moment of death");
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, "far").await;
    fill(&server, 300).await;
    let id = job(&server, json!({ "model": model::NAME, "requests_per_minute": 600 })).await;
    server.kill();
    for round in 0..rounds {
        let server = setup.start();
        let until_death = Duration::from_micros(splitmix(seed + round) % 150_000);
        let died = async {
            tokio::time::sleep(until_death).await;
            server.kill();
        };
        died.await;
    }
    let server = setup.start();
    let job = ended(&server, &id).await;
    assert_eq!(job["state"], "succeeded", "{job} (seed {seed})");
    let ledger = (0..300).map(|n| (n.to_string(), text(n))).collect();
    check_local(&server, &ledger).await;
    assert_eq!(search(&server, 1).await, 384);
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_take_and_does_nothing() {
    let setup = Setup::new().await;
    let server = setup.start_with("[[upstream.prices]]\nmodels = [\"mock\"]\nprompt_usd_per_million = 2.0\ncompletion_usd_per_million = 0.0\n");
    create(&server, model::NAME).await;
    fill(&server, FEW).await;
    upsert(&server, vec![json!({ "id": "twin", "text": text(3) })]).await;
    let id = job(&server, json!({ "model": "far", "dry_run": true })).await;
    let planned = ended(&server, &id).await;
    let plan = &planned["plan"];
    assert_eq!((&plan["documents"], &plan["distinct_texts"]), (&json!(FEW + 1), &json!(FEW)), "{planned}");
    assert_eq!((&plan["cached_texts"], &plan["dimensions"]), (&json!(0), &json!(FAR_DIM)), "{planned}");
    assert_eq!(plan["tokenizer"], "cl100k");
    let tokens = plan["uncached_tokens"].as_u64().unwrap();
    assert!((plan["cost_usd"].as_f64().unwrap() - tokens as f64 * 2e-6).abs() < 1e-12, "{planned}");
    assert_eq!((setup.endpoint.calls(), search(&server, 1).await), (0, 384));
    // The way back is free: the texts of the local model are cached.
    let id = job(&server, json!({ "model": "far" })).await;
    assert_eq!(ended(&server, &id).await["state"], "succeeded");
    let id = job(&server, json!({ "model": model::NAME, "dry_run": true })).await;
    let plan = ended(&server, &id).await["plan"].clone();
    assert_eq!((&plan["cached_texts"], &plan["uncached_tokens"]), (&json!(FEW), &json!(0)), "{plan}");
    assert_eq!((&plan["tokenizer"], &plan["seconds"]), (&json!("model"), &json!(0.0)), "{plan}");
}

#[tokio::test]
async fn refused_texts_are_listed_and_left_in_the_former_vectors() {
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, model::NAME).await;
    fill(&server, FEW).await;
    upsert(&server, vec![json!({ "id": "bad", "text": "a forbidden text" })]).await;
    setup.endpoint.refuse("forbidden", 400, "this text is refused");
    let id = job(&server, json!({ "model": "far" })).await;
    let paused = ended(&server, &id).await;
    assert_eq!((&paused["state"], &paused["errors_total"]), (&json!("paused"), &json!(1)), "{paused}");
    assert_eq!(paused["errors"][0]["item"], "bad");
    assert!(paused["errors"][0]["message"].as_str().unwrap().contains("this text is refused"), "{paused}");
    assert!(paused["message"].as_str().unwrap().contains("leave_refused"), "{paused}");
    assert_eq!((search(&server, 1).await, documents(&server).await.len()), (384, FEW + 1));

    assert_eq!(order(&server, &id, "resume", json!({ "leave_refused": true })).await.status, 202);
    let done = ended(&server, &id).await;
    assert_eq!((&done["state"], &done["report"]["refused"]), (&json!("succeeded"), &json!(1)), "{done}");
    assert_eq!((search(&server, 1).await, documents(&server).await.len()), (64, FEW));
    let id = job(&server, json!({ "rollback": true })).await;
    let back = ended(&server, &id).await;
    assert_eq!(back["state"], "succeeded", "{back}");
    assert_eq!(documents(&server).await["bad"].0, "a forbidden text");
}

#[tokio::test]
async fn a_job_is_paused_resumed_and_cancelled_and_its_orders_survive_a_restart() {
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, model::NAME).await;
    fill(&server, FEW).await;
    let held = setup.endpoint.hold().await;
    let id = job(&server, json!({ "model": "far" })).await;
    until("the model is asked", async || setup.endpoint.calls() > 0).await;
    let (code, param) = {
        let second = begin(&server, json!({ "model": "far" })).await;
        assert_eq!(second.status, 409);
        (second.error().0.to_owned(), second.error().1.map(str::to_owned))
    };
    assert_eq!((&*code, param.as_deref()), ("conflict", Some("collection")));
    let paused = order(&server, &id, "pause", Value::Null).await;
    assert_eq!((paused.status, &paused.body["state"]), (200, &json!("paused")), "{}", paused.body);
    drop(held);
    server.kill();
    let server = setup.start();
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.body["state"], "paused");
    assert_eq!(order(&server, &id, "pause", Value::Null).await.error().0, "conflict");
    let held = setup.endpoint.hold().await;
    assert_eq!(order(&server, &id, "resume", Value::Null).await.status, 202);
    let cancelled = order(&server, &id, "cancel", Value::Null).await;
    assert_eq!(
        (cancelled.status, &cancelled.body["state"]),
        (200, &json!("cancelled")),
        "{}",
        cancelled.body
    );
    drop(held);
    assert!(!setup.has_files("shop~"), "what it has made is removed");
    assert_eq!(order(&server, &id, "cancel", Value::Null).await.error().0, "conflict");
    assert_eq!(order(&server, &id, "resume", Value::Null).await.error().0, "conflict");
    // Without a day to go back, the former vectors are removed at once.
    let id = job(&server, json!({ "model": "far", "keep_old_hours": 0 })).await;
    assert_eq!(ended(&server, &id).await["state"], "succeeded");
    until("the former generation is removed", async || !setup.has_files("shop.")).await;
    assert_eq!(begin(&server, json!({ "rollback": true })).await.error(), ("conflict", Some("rollback")));
    let states: Vec<Value> = server.get("/v1/jobs").await.body["data"].as_array().unwrap().clone();
    assert_eq!(states.iter().map(|job| &job["state"]).collect::<Vec<_>>(), ["succeeded", "cancelled"]);
    // A dropped collection leaves no generation behind.
    assert_eq!(server.ask("DELETE", "/v1/collections/shop", &[], String::new()).await.status, 204);
    assert!(!setup.has_files("shop~"));
}

#[tokio::test]
async fn a_job_pauses_before_it_costs_more_than_it_may() {
    let setup = Setup::new().await;
    let prices = "[[upstream.prices]]\nmodels = [\"mock\"]\nprompt_usd_per_million = 1000.0\ncompletion_usd_per_million = 0.0\n";
    let server = setup.start_with(prices);
    create(&server, model::NAME).await;
    fill(&server, FEW).await;
    let id = job(&server, json!({ "model": "far", "cost_usd_max": 0.000_1 })).await;
    let paused = ended(&server, &id).await;
    assert_eq!(paused["state"], "paused", "{paused}");
    assert!(paused["message"].as_str().unwrap().contains("cost_usd_max"), "{paused}");
    assert_eq!(setup.endpoint.calls(), 0);
    assert_eq!(order(&server, &id, "resume", json!({ "cost_usd_max": 100 })).await.status, 202);
    let done = ended(&server, &id).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let (tokens, cost) = (done["tokens"].as_u64().unwrap(), done["cost_usd"].as_f64().unwrap());
    assert!(tokens > 100 && (cost - tokens as f64 * 1e-3).abs() < 1e-9, "{done}");
}

#[tokio::test]
async fn another_document_prompt_is_embedded_again_and_rolled_back_once_it_is_changed_back() {
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, "far").await;
    fill(&server, FEW).await;
    let former = documents(&server).await;
    assert_eq!(begin(&server, json!({ "model": "far" })).await.error(), ("conflict", Some("model")));
    server.stop();
    let server = setup.start_with("prompts = { document = \"passage: \" }");
    let again = server.ask("PUT", "/v1/collections/shop", &[], r#"{"model": "far"}"#.to_owned()).await;
    assert_eq!(again.status, 200, "the collection is the same: {}", again.body);
    let id = job(&server, json!({ "model": "far" })).await;
    let done = ended(&server, &id).await;
    assert_eq!((&done["state"], &done["report"]["documents"]), (&json!("succeeded"), &json!(FEW)), "{done}");
    let prompted = documents(&server).await;
    assert!(former.iter().all(|(id, (_, vector))| prompted[id].1 != *vector));
    assert_eq!(begin(&server, json!({ "model": "far" })).await.error(), ("conflict", Some("model")));
    let refused = begin(&server, json!({ "rollback": true })).await;
    assert_eq!(refused.error(), ("conflict", Some("rollback")));
    assert!(
        refused.body["error"]["message"].as_str().unwrap().contains("prompts.document"),
        "{}",
        refused.body
    );
    server.stop();
    let server = setup.start();
    let id = job(&server, json!({ "rollback": true })).await;
    assert_eq!(ended(&server, &id).await["state"], "succeeded");
    assert_eq!(documents(&server).await, former);
}

#[tokio::test]
async fn bad_input_is_refused_and_names_the_field() {
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, model::NAME).await;
    fill(&server, 3).await;
    let vectors = r#"{"dimensions": 2}"#;
    assert_eq!(server.ask("PUT", "/v1/collections/own", &[], vectors).await.status, 201);
    let cases = [
        (json!({ "kind": "copy", "model": "far" }), 400, "invalid_input", Some("kind")),
        (json!({}), 400, "invalid_input", Some("model")),
        (json!({ "model": "far", "rollback": true }), 400, "invalid_input", Some("model")),
        (
            json!({ "model": "far", "requests_per_minute": 0 }),
            400,
            "invalid_input",
            Some("requests_per_minute"),
        ),
        (json!({ "model": "far", "tokens_per_minute": 0 }), 400, "invalid_input", Some("tokens_per_minute")),
        (json!({ "model": "far", "cost_usd_max": -1 }), 400, "invalid_input", Some("cost_usd_max")),
        (json!({ "model": "far", "cost_usd_max": 1 }), 400, "invalid_input", Some("cost_usd_max")),
        (json!({ "model": "far", "keep_old_hours": 9999 }), 400, "invalid_input", Some("keep_old_hours")),
        (json!({ "model": "far", "more": 1 }), 400, "invalid_input", Some("more")),
        (json!({ "model": "none-such" }), 404, "model_not_found", Some("model")),
        (json!({ "model": "far", "collection": "none-such" }), 404, "not_found", Some("collection")),
        (json!({ "model": model::NAME }), 409, "conflict", Some("model")),
        (json!({ "rollback": true }), 409, "conflict", Some("rollback")),
        (json!({ "model": "far", "collection": "own" }), 409, "conflict", Some("collection")),
    ];
    for (input, status, code, param) in cases {
        let refused = begin(&server, input.clone()).await;
        assert_eq!((refused.status, refused.error()), (status, (code, param)), "{input}: {}", refused.body);
    }
    let refused = begin(&server, json!({ "model": "text-embedding-3-small" })).await;
    let message = refused.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("[[models]] with name = \"text-embedding-3-small\""), "{message}");
    for id in ["job-9", "job-", "x", "job-01"] {
        let path = format!("/v1/jobs/{id}");
        assert_eq!(server.get(&path).await.error(), ("not_found", Some("id")));
        assert_eq!(order(&server, id, "pause", Value::Null).await.status, 404);
    }
    let vector = vec![0.5; 384];
    upsert(&server, vec![json!({ "id": "own", "text": "x", "vector": vector })]).await;
    let refused = begin(&server, json!({ "model": "far" })).await;
    assert_eq!(refused.error(), ("conflict", Some("collection")));
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("\"own\""), "{}", refused.body);
    assert_eq!(server.get("/v1/jobs").await.body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_begins_a_job_follows_it_and_names_what_is_wrong() {
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, model::NAME).await;
    fill(&server, FEW).await;
    let run = |arguments: &[&str]| {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_likewise"));
        let done = output(program.args(arguments).arg("--url").arg(server.url()));
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, plan, log) = run(&["reembed", "shop", "--model", "far", "--dry-run"]);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(serde_json::from_str::<Value>(&plan).unwrap()["documents"], FEW, "{plan}");
    let (code, report, log) = run(&["reembed", "shop", "--model", "far"]);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["to_model"], "mock", "{report}");
    let (code, _, log) = run(&["reembed", "shop", "--model", "far"]);
    assert!(code == Some(1) && log.contains("already"), "{log}");
    let (code, _, log) = run(&["reembed", "shop", "--rollback"]);
    assert_eq!(code, Some(0), "{log}");
    setup.endpoint.refuse("number 3 ", 400, "refused");
    let renewed = json!({ "id": "3", "text": format!("{} renewed", text(3)) });
    upsert(&server, vec![renewed]).await;
    let (code, id, log) = run(&["reembed", "shop", "--model", "far", "--detach"]);
    assert_eq!(code, Some(0), "{log}");
    let (code, _, log) = run(&["jobs", "watch", id.trim()]);
    assert!(code == Some(1) && log.contains("paused") && log.contains("3: "), "{log}");
    let (code, _, log) = run(&["jobs", "resume", id.trim(), "--leave-refused"]);
    assert_eq!(code, Some(3), "a part was left out: {log}");
    let (_, list, _) = run(&["jobs"]);
    assert_eq!(list.lines().count(), 4, "{list}");
    assert!(list.starts_with("job-4  reembed  succeeded  shop -> mock  19/20  1 errors"), "{list}");
}

#[tokio::test]
async fn a_generation_that_a_crash_has_left_is_gone_on_with() {
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, model::NAME).await;
    fill(&server, FEW).await;
    let held = setup.endpoint.hold().await;
    let id = job(&server, json!({ "model": "far" })).await;
    until("the model is asked", async || setup.endpoint.calls() > 0).await;
    server.kill();
    drop(held);
    assert!(setup.has_files("shop~2."));
    let server = setup.start();
    assert_eq!(ended(&server, &id).await["state"], "succeeded");
    assert_eq!(search(&server, 1).await, 64);
}

/// The generation that cannot be opened may be the one that was served last.
#[tokio::test]
async fn a_collection_with_a_damaged_generation_is_not_served_as_it_was_before() {
    let setup = Setup::new().await;
    let server = setup.start();
    create(&server, model::NAME).await;
    fill(&server, FEW).await;
    let id = job(&server, json!({ "model": "far" })).await;
    assert_eq!(ended(&server, &id).await["state"], "succeeded");
    server.stop();
    for file in ["shop~2.manifest", "shop~2.manifest-copy"] {
        fs_err::write(setup.collections().join(file), "no manifest").unwrap();
    }
    let server = setup.start();
    let found = server.get("/v1/collections/shop").await;
    assert_eq!((found.status, found.error().0), (503, "unavailable"));
    assert_eq!(begin(&server, json!({ "rollback": true })).await.status, 503);
    assert_eq!(server.ask("DELETE", "/v1/collections/shop", &[], String::new()).await.status, 204);
    assert!(!setup.has_files("shop"), "all generations are removed");
}

#[tokio::test]
async fn the_oldest_jobs_are_forgotten_and_too_many_are_refused() {
    let setup = Setup::new().await;
    let server = setup.start_with("[jobs]\nended_max = 1\nactive_max = 1");
    create(&server, model::NAME).await;
    fill(&server, 3).await;
    for _ in 0..3 {
        let id = job(&server, json!({ "model": "far", "dry_run": true })).await;
        assert_eq!(ended(&server, &id).await["state"], "succeeded");
    }
    let held = setup.endpoint.hold().await;
    let id = job(&server, json!({ "model": "far" })).await;
    let jobs = server.get("/v1/jobs").await.body;
    let ids: Vec<&Value> = jobs["data"].as_array().unwrap().iter().map(|job| &job["id"]).collect();
    assert_eq!(ids, ["job-4", "job-3"]);
    assert_eq!(server.ask("PUT", "/v1/collections/other", &[], "{}").await.status, 201);
    let refused = begin(&server, json!({ "collection": "other", "model": "far" })).await;
    assert_eq!((refused.status, refused.error().0), (429, "overloaded"));
    drop(held);
    assert_eq!(ended(&server, &id).await["state"], "succeeded");
}
