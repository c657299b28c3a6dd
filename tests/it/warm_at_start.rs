//! Goal: a server warms its caches from files once it is ready, pays for each line once, whatever happens meanwhile, and leaves alone what
//! applications have stored since. Method: the real program with files of lines, before an upstream of the test, killed and started again.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Server, likewise, output, until};
use crate::upstream::{Mode, Upstream};

const PRICES: &str = "[[upstream.prices]]\nmodels = [\"gpt-5*\"]\nprompt_usd_per_million = 500000.0\n\
    completion_usd_per_million = 0.0\n";

/// Lines that a job asks for at the same time.
const LINES_AT_ONCE: usize = 8;

struct Setup {
    dir: TempDir,
    upstream: Upstream,
}

impl Setup {
    async fn new() -> Setup {
        Setup { dir: TempDir::new().unwrap(), upstream: Upstream::start().await }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, lines: &[Value]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs_err::write(self.path(name), text).unwrap();
    }

    /// The server with a model of its own, that warms with `files`.
    fn program(&self, files: &[&str], options: &str, prices: &str) -> Command {
        let files: Vec<PathBuf> = files.iter().map(|name| self.path(name)).collect();
        let config = self.path("config.toml");
        fs_err::write(&config, format!("[warm]\nfiles = {}\n{options}\n{prices}", json!(files))).unwrap();
        let mut program = likewise("serve", &self.path("data"));
        program.arg("--upstream").arg(&self.upstream.url).arg("--config").arg(config);
        program.env("OPENAI_API_KEY", "sk-ours").env("LIKEWISE__UPSTREAM__RETRIES_MAX", "0");
        program
    }

    fn start(&self, files: &[&str]) -> Server {
        Server::spawn(&mut self.program(files, "", ""))
    }
}

fn chat(question: &str) -> Value {
    json!({ "model": "gpt-5", "messages": [{ "role": "user", "content": question }] })
}

async fn jobs(server: &Server) -> Vec<Value> {
    server.get("/v1/jobs").await.body["data"].as_array().unwrap().clone()
}

/// A job, once it is neither queued nor running.
async fn ended(server: &Server, id: &str) -> Value {
    let mut last = Value::Null;
    until("the job ends", async || {
        last = server.get(&format!("/v1/jobs/{id}")).await.body;
        !["queued", "running"].contains(&last["state"].as_str().unwrap())
    })
    .await;
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_warms_every_cache_once_and_names_wrong_lines() {
    let own = Setup::new().await;
    let server = own.start(&[]);
    let documents = json!({ "documents": [{ "id": "1", "text": "camiseta azul" }] }).to_string();
    assert_eq!(server.ask("PUT", "/v1/collections/shop", &[], "{}").await.status, 201);
    assert_eq!(server.ask("POST", "/v1/collections/shop/documents", &[], documents).await.status, 200);
    assert_eq!(jobs(&server).await, [] as [Value; 0]);
    assert!(server.stop().success());

    let search = json!({ "collection": "shop", "queries": ["blue t-shirt"], "k": 1 });
    own.file(
        "warm.jsonl",
        &[
            json!({ "text": "botas de agua", "id": "sku-7" }),
            chat("uno"),
            search.clone(),
            json!({ "namespace": "products", "key": "42", "value": { "price": 19.9 }, "tags": ["brand:7"] }),
            json!({ "txt": "no text" }),
            json!({ "namespace": "products", "key": "43", "value": "v", "ttl": "soon" }),
        ],
    );
    fs_err::write(own.path("texts.txt"), "sombrero\n\nbufanda\n").unwrap();
    let files = ["warm.jsonl", "texts.txt"];
    let server = own.start(&files);
    let job = ended(&server, "job-1").await;
    assert_eq!((&job["kind"], &job["state"]), (&json!("warm"), &json!("succeeded")), "{job}");
    assert_eq!(job["files"], json!(files.map(|name| own.path(name))));
    assert_eq!(
        (&job["done"], &job["total"], &job["errors_total"]),
        (&json!(8), &json!(8), &json!(2)),
        "{job}"
    );
    assert_eq!(job["lines"], json!({ "cached": 0, "made": 6, "failed": 2 }), "{job}");
    let mut errors: Vec<String> = job["errors"].as_array().unwrap().iter().map(Value::to_string).collect();
    errors.sort_unstable();
    assert!(errors[0].contains("warm.jsonl:5") && errors[0].contains("a line has text, input"), "{errors:?}");
    assert!(errors[1].contains("warm.jsonl:6") && errors[1].contains("expected u32"), "{errors:?}");
    assert!(job["tokens"].as_u64().unwrap() > 0 && job.get("collection").is_none(), "{job}");
    assert_eq!(own.upstream.calls(), 1);

    assert_eq!(server.embed(&["botas de agua", "sombrero", "bufanda"]).await.counts(), (3, 0, 0));
    let hit = async |path: &str, body: Value| {
        let answer = server.ask("POST", path, &[], body.to_string()).await;
        assert!(answer.header("cache-status").starts_with("likewise; hit"), "{path}: {}", answer.body);
    };
    hit("/v1/chat/completions", chat("uno")).await;
    let mut body = search;
    body.as_object_mut().unwrap().remove("collection");
    hit("/v1/collections/shop/search", body).await;
    let object = server.get("/v1/cache/products/42").await;
    assert_eq!((object.header("content-type"), &object.body["price"]), ("application/json", &19.9.into()));
    // An application's value is newer than the file's.
    assert_eq!(server.ask("PUT", "/v1/cache/products/42", &[], "sold out").await.status, 204);
    assert!(server.stop().success());

    let server = own.start(&files);
    let job = ended(&server, "job-2").await;
    // Results of searches are in memory only.
    assert_eq!(job["lines"], json!({ "cached": 5, "made": 1, "failed": 2 }), "{job}");
    assert_eq!(server.get("/v1/cache/products/42").await.body, json!("sold out"));
    assert_eq!(own.upstream.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_responses_and_messages_warm_and_are_counted() {
    let own = Setup::new().await;
    let response = json!({ "model": "gpt-5", "input": "uno" });
    let message = json!({ "model": "claude-x", "max_tokens": 9, "messages": chat("dos")["messages"] });
    let bodies = [("/v1/responses", response), ("/v1/messages", message)];
    let lines = bodies.clone().map(|(url, body)| json!({ "custom_id": url, "url": url, "body": body }));
    own.file("warm.jsonl", &lines);
    let server = own.start(&["warm.jsonl"]);
    let job = ended(&server, "job-1").await;
    assert_eq!(job["lines"], json!({ "cached": 0, "made": 2, "failed": 0 }), "{job}");
    for (path, body) in bodies {
        let version = [("anthropic-version", "2023-06-01")];
        let headers = if path == "/v1/messages" { &version[..] } else { &[] };
        let answer = server.ask("POST", path, headers, body.to_string()).await;
        assert!(answer.header("cache-status").starts_with("likewise; hit"), "{path}: {}", answer.body);
    }
    assert_eq!(own.upstream.calls(), 2);
    assert!(server.stop().success());
    let server = own.start(&["warm.jsonl"]);
    assert_eq!(ended(&server, "job-2").await["lines"], json!({ "cached": 2, "made": 0, "failed": 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_killed_goes_on_and_pays_no_line_again() {
    let own = Setup::new().await;
    let lines: Vec<Value> = (0..20).map(|n| chat(&format!("question {n}"))).collect();
    own.file("warm.jsonl", &lines[..10]);
    own.file("more.jsonl", &lines[10..]);
    let files = ["warm.jsonl", "more.jsonl"];
    let mut program = own.program(&files, "", "");
    let server = Server::spawn(program.env("LIKEWISE__ANSWERS__FINISH_ABANDONED", "true"));
    ended(&server, "job-1").await;
    assert_eq!(own.upstream.calls(), 20);
    server.kill();

    // More lines, of which some are held when the server is killed.
    own.file("more.jsonl", &(0..30).map(|n| chat(&format!("question {n}"))).collect::<Vec<_>>());
    let held = own.upstream.hold().await;
    let server = own.start(&files);
    // No further one is asked for while these are held.
    let asked = 20 + LINES_AT_ONCE;
    until("as many new lines are asked as may be", async || own.upstream.calls() == asked).await;
    let job = server.get("/v1/jobs/job-2").await.body;
    assert_eq!((&job["state"], &job["total"]), (&json!("running"), &json!(40)), "{job}");
    server.kill();
    drop(held);

    let server = own.start(&files);
    let job = ended(&server, "job-2").await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["lines"], json!({ "cached": 30, "made": 10, "failed": 0 }), "{job}");
    assert_eq!(own.upstream.calls(), asked + 10, "only what was not answered is asked again");
    assert_eq!(jobs(&server).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_pauses_before_it_costs_too_much_and_refuses_what_has_no_price() {
    let own = Setup::new().await;
    own.file(
        "warm.jsonl",
        &[chat("uno"), json!({ "text": "botas" }), json!({ "model": "o9", "prompt": "a" })],
    );
    let start = |options: &str| Server::spawn(&mut own.program(&["warm.jsonl"], options, PRICES));
    let server = start("cost_usd_max = 0.5");
    let job = ended(&server, "job-1").await;
    assert_eq!((&job["state"], own.upstream.calls()), (&json!("paused"), 0), "{job}");
    assert!(job["message"].as_str().unwrap().contains("cost_usd_max"), "{job}");
    assert!(server.stop().success());

    // A restart does not go around the limit, and a client may raise it.
    let server = start("cost_usd_max = 0.5");
    assert_eq!(server.get("/v1/jobs/job-1").await.body["state"], "paused");
    let more = json!({ "cost_usd_max": 100 }).to_string();
    assert_eq!(server.ask("POST", "/v1/jobs/job-1/resume", &[], more).await.status, 202);
    let job = ended(&server, "job-1").await;
    assert_eq!((&job["state"], &job["errors_total"]), (&json!("succeeded"), &json!(1)), "{job}");
    assert!(job["errors"][0]["message"].as_str().unwrap().contains("the price of the model o9"), "{job}");
    assert!(job["cost_usd"].as_f64().unwrap() >= 1.0, "{job}");
    assert_eq!((own.upstream.calls(), jobs(&server).await.len()), (1, 1));
    assert_eq!(server.embed(&["botas"]).await.counts(), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_configuration_is_cancelled() {
    let own = Setup::new().await;
    own.file("warm.jsonl", &[chat("uno")]);
    own.file("other.jsonl", &[chat("dos")]);
    let held = own.upstream.hold().await;
    let server = own.start(&["warm.jsonl"]);
    until("it is under way", async || own.upstream.calls() == 1).await;
    let paused = server.ask("POST", "/v1/jobs/job-1/pause", &[], "").await;
    assert_eq!(paused.body["state"], "paused", "{}", paused.body);
    drop(held);
    assert!(server.stop().success());

    let server = own.start(&["other.jsonl"]);
    assert_eq!(ended(&server, "job-2").await["lines"], json!({ "cached": 0, "made": 1, "failed": 0 }));
    assert_eq!(server.get("/v1/jobs/job-1").await.body["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_model_is_waited_for() {
    let own = Setup::new().await;
    own.file("warm.jsonl", &[chat("uno")]);
    let busy =
        || Mode::Reply(429, vec![("retry-after-ms", "20")], "{\"error\":{\"message\":\"busy\"}}".into());
    own.upstream.next(busy());
    own.upstream.next(busy());
    let server = own.start(&["warm.jsonl"]);
    let job = ended(&server, "job-1").await;
    assert_eq!((&job["lines"]["made"], own.upstream.calls()), (&json!(1), 3), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_is_named_at_the_start() {
    let own = Setup::new().await;
    let failed = output(&mut own.program(&["gone.jsonl"], "", ""));
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && said.contains("warm.files") && said.contains("gone.jsonl"), "{said}");
    let failed = output(&mut own.program(&[], "requests_per_minute = 0", ""));
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(said.contains("warm.requests_per_minute must be at least 1"), "{said}");

    // One that vanishes later fails the job, and not the server.
    own.file("warm.jsonl", &[chat("uno")]);
    let server = own.start(&["warm.jsonl"]);
    ended(&server, "job-1").await;
    assert_eq!(server.get("/readyz").await.status, 200);
}
