//! `likewise batch` and `likewise warm`: files of requests through a running server, before an upstream of the test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Server, likewise, output, until};
use crate::upstream::{Mode, Upstream};

struct LineFiles {
    dir: TempDir,
    upstream: Upstream,
    server: Server,
}

/// What a command left behind.
struct Done {
    code: Option<i32>,
    stdout: String,
    said: String,
}

impl LineFiles {
    /// A server with a model of its own, before an upstream. An answer is finished when its client is gone.
    async fn start() -> LineFiles {
        let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        let mut program = likewise("serve", &dir.path().join("data"));
        program.arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours");
        program
            .env("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")
            .env("LIKEWISE__ANSWERS__FINISH_ABANDONED", "true");
        LineFiles { dir, upstream, server: Server::spawn(&mut program) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, lines: &[Value]) -> PathBuf {
        let path = self.path(name);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs_err::write(&path, text).unwrap();
        path
    }

    fn program(&self, command: &str, file: &Path) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.arg(command).arg(file).env("LIKEWISE_URL", self.server.url()).env("LIKEWISE_LOG", "warn");
        program.env_remove("LIKEWISE_CONFIG");
        program
    }

    fn run(&self, command: &str, file: &Path, arguments: &[&str]) -> Done {
        let done = output(self.program(command, file).args(arguments));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: done.status.code(), stdout: text(done.stdout), said: text(done.stderr) }
    }
}

fn chat(id: &str, question: &str) -> Value {
    let body = json!({ "model": "gpt-5", "messages": [{ "role": "user", "content": question }] });
    json!({ "custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body })
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(path: &Path) -> Vec<Value> {
    json_lines(&fs_err::read_to_string(path).unwrap())
}

fn ids(lines: &[Value]) -> Vec<&str> {
    let mut ids: Vec<&str> = lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_and_wrong_lines_are_named() {
    let own = LineFiles::start().await;
    let mut lines = vec![
        chat("a", "uno"),
        chat("b", "dos"),
        chat("c", "uno"),
        json!({ "custom_id": "e", "method": "POST", "url": "/v1/embeddings",
            "body": { "model": "text-embedding-3-small", "input": ["x", "y"] } }),
        json!({ "custom_id": "p", "url": "/v1/completions", "body": { "model": "gpt-5", "prompt": "tres" } }),
    ];
    lines.push(chat("a", "cuatro"));
    lines.push(json!({ "url": "/v1/embeddings", "body": {} }));
    lines.push(json!({ "custom_id": "f", "url": "/v1/files", "body": {} }));
    let mut streamed = chat("s", "cinco");
    streamed["body"]["stream"] = true.into();
    lines.push(streamed);
    lines.push("no object".into());
    // The server refuses what is no conversation, before any upstream is asked.
    lines.push(json!({ "custom_id": "r", "url": "/v1/chat/completions", "body": { "model": "gpt-5", "messages": 7 } }));
    let file = own.file("batch.jsonl", &lines);
    let (answers, errors) = (own.path("answers.jsonl"), own.path("errors.jsonl"));
    let arguments = ["--output", answers.to_str().unwrap(), "--errors", errors.to_str().unwrap()];
    let planned = own.run("batch", &file, &["--dry-run"]);
    assert_eq!((planned.code, own.upstream.calls()), (Some(3), 0), "{}", planned.said);
    assert!(
        planned.stdout.contains("/v1/chat/completions, gpt-5: 4 lines, 3 distinct, about "),
        "{}",
        planned.stdout
    );

    let done = own.run("batch", &file, &arguments);
    assert_eq!(done.code, Some(3), "{}", done.said);
    for fault in [
        "line 6: the custom_id \"a\" is that of line 1 already",
        "line 7: custom_id is missing",
        "line 8: url must be one of",
        "line 9: body.stream must be false",
        "line 10: cannot read a line",
        "line 11: 400 ",
        "11 lines: ",
        "6 failed",
    ] {
        assert!(done.said.contains(fault), "{fault}: {}", done.said);
    }
    // The two equal questions are one call.
    assert_eq!(own.upstream.calls(), 4);
    let answered = read(&answers);
    assert_eq!(ids(&answered), ["a", "b", "c", "e", "p"]);
    let of = |id: &str| answered.iter().find(|line| line["custom_id"] == id).unwrap();
    assert_eq!(of("a")["response"]["body"]["choices"], of("c")["response"]["body"]["choices"]);
    assert_eq!(of("e")["response"]["body"]["data"].as_array().unwrap().len(), 2);
    assert!(of("a")["id"].as_str().unwrap().starts_with("batch_req_"));
    assert_eq!((&of("a")["response"]["status_code"], &of("a")["error"]), (&200.into(), &Value::Null));
    assert!(of("a")["response"]["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    let refused = read(&errors);
    assert_eq!(refused.len(), 6);
    let of = |id: &str| refused.iter().find(|line| line["custom_id"] == id).unwrap();
    assert_eq!((&of("f")["response"], &of("f")["error"]["line"]), (&Value::Null, &8.into()));
    assert_eq!(of("r")["response"]["status_code"], 400);
    assert!(of("r")["response"]["body"]["error"]["message"].is_string());

    // What the output has is not asked again; what the caches have is not paid again.
    let again = own.run("batch", &file, &arguments);
    assert!(again.said.contains("5 were in the output already"), "{}", again.said);
    let known = own.file("known.jsonl", &lines[..5]);
    let elsewhere = own.run("batch", &known, &[]);
    assert_eq!(elsewhere.code, Some(0), "{}", elsewhere.said);
    assert!(
        elsewhere.said.contains("5 lines: 5 from the cache, 0 by the model, 0 repeated, 0 failed"),
        "{}",
        elsewhere.said
    );
    assert_eq!(ids(&json_lines(&elsewhere.stdout)), ["a", "b", "c", "e", "p"]);
    assert_eq!((own.upstream.calls(), read(&answers).len()), (4, 5));
}

fn response(id: &str, input: &str) -> Value {
    json!({ "custom_id": id, "method": "POST", "url": "/v1/responses", "body": { "model": "gpt-5", "input": input } })
}

fn message(id: &str, question: &str) -> Value {
    let messages = json!([{ "role": "user", "content": question }]);
    let body = json!({ "model": "claude-x", "max_tokens": 100, "messages": messages });
    json!({ "custom_id": id, "url": "/v1/messages", "body": body })
}

/// With a key, clients of messages present it in a header of their own, and their version is part of what they ask.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_responses_and_messages_are_what_their_clients_ask() {
    let own = LineFiles::start().await;
    let mut streamed = message("s", "cinco");
    streamed["body"]["stream"] = true.into();
    let lines = [
        response("a", "uno"),
        response("b", "uno"),
        message("c", "dos"),
        message("d", "dos"),
        response("e", "tres"),
        // The server refuses what is no conversation, in the words of its API.
        json!({ "custom_id": "f", "url": "/v1/messages", "body": { "model": "m", "max_tokens": 9, "messages": 7 } }),
        streamed,
    ];
    let file = own.file("batch.jsonl", &lines);
    let planned = own.run("batch", &file, &["--dry-run"]);
    for kind in
        ["/v1/responses, gpt-5: 3 lines, 2 distinct, about ", "/v1/messages, claude-x: 2 lines, 1 distinct"]
    {
        assert!(planned.stdout.contains(kind), "{}", planned.stdout);
    }
    let arguments = ["--api-key", "sk-client"];
    let done = own.run("batch", &file, &arguments);
    assert_eq!(done.code, Some(3), "{}", done.said);
    assert!(done.said.contains("line 6: 400 ") && done.said.contains("line 7: body.stream"), "{}", done.said);
    let answered = json_lines(&done.stdout);
    assert_eq!(ids(&answered), ["a", "b", "c", "d", "e"]);
    let of = |id: &str| answered.iter().find(|line| line["custom_id"] == id).unwrap();
    assert_eq!(of("a")["response"]["body"]["id"], of("b")["response"]["body"]["id"], "one response");
    assert_eq!(of("a")["response"]["body"]["status"], "completed");
    assert_eq!(of("c")["response"]["body"]["content"], of("d")["response"]["body"]["content"]);
    assert_eq!(own.upstream.calls(), 3);
    let seen = own.upstream.seen();
    let versions = seen.iter().filter(|seen| seen.header("anthropic-version") == Some("2023-06-01"));
    assert_eq!(versions.map(|seen| seen.path.as_str()).collect::<Vec<_>>(), ["/v1/messages"]);

    // Clients with the key, in the header of their API, are served from it; a file warms in the same way.
    let hit = async |line: &Value, headers: &[(&str, &str)]| {
        let (path, body) = (line["url"].as_str().unwrap(), line["body"].to_string());
        let answer = own.server.ask("POST", path, headers, body).await;
        answer.header("cache-status").starts_with("likewise; hit")
    };
    let of_anthropic = [("x-api-key", "sk-client"), ("anthropic-version", "2023-06-01")];
    assert!(hit(&lines[0], &[("authorization", "Bearer sk-client")]).await);
    assert!(hit(&lines[2], &of_anthropic).await);
    let warm = own.file(
        "warm.jsonl",
        &[lines[0].clone(), lines[2].clone(), message("w", "seis"), response("x", "siete")],
    );
    let done = own.run("warm", &warm, &arguments);
    assert!(done.said.contains("4 lines: 2 from the cache, 2 new, 0 repeated, 0 failed"), "{}", done.said);
    assert!(hit(&message("w", "seis"), &of_anthropic).await);
    assert!(hit(&response("x", "siete"), &[("authorization", "Bearer sk-client")]).await);
    assert_eq!(own.upstream.calls(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_killed_goes_on() {
    let own = LineFiles::start().await;
    let lines: Vec<Value> = (0..8).map(|n| chat(&format!("id-{n}"), &format!("question {n}"))).collect();
    let file = own.file("batch.jsonl", &lines);
    let answers = own.path("answers.jsonl");
    let mut program = own.program("batch", Path::new("-"));
    program
        .args(["--concurrency", "2", "--output"])
        .arg(&answers)
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut running = program.spawn().unwrap();
    let mut pipe = running.stdin.take().unwrap();
    let mut feed = |lines: &[Value]| lines.iter().for_each(|line| writeln!(pipe, "{line}").unwrap());
    feed(&lines[..3]);
    let count = || fs_err::read_to_string(&answers).map_or(0, |text| text.lines().count());
    until("three lines are answered", async || count() == 3).await;
    let held = own.upstream.hold().await;
    feed(&lines[3..5]);
    until("two more are asked", async || own.upstream.calls() == 5).await;
    running.kill().unwrap();
    running.wait().unwrap();
    drop(held);
    // As a kill within a write leaves it.
    let torn = format!("{}{}", fs_err::read_to_string(&answers).unwrap(), "{\"id\":\"batch_req_0123\",\"cus");
    fs_err::write(&answers, torn).unwrap();

    let done = own.run("batch", &file, &["--output", answers.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{}", done.said);
    assert!(
        done.said.contains("5 lines: ") && done.said.contains("; 3 were in the output already"),
        "{}",
        done.said
    );
    let expected: Vec<String> = (0..8).map(|n| format!("id-{n}")).collect();
    assert_eq!(ids(&read(&answers)), expected);
    assert_eq!(own.upstream.calls(), 8, "no question is asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_busy_is_waited_for() {
    let own = LineFiles::start().await;
    let busy = |status| {
        Mode::Reply(status, vec![("retry-after-ms", "20")], "{\"error\":{\"message\":\"busy\"}}".into())
    };
    own.upstream.next(busy(429));
    own.upstream.next(busy(503));
    let file = own.file("batch.jsonl", &[chat("a", "uno"), chat("b", "dos")]);
    let done = own.run("batch", &file, &["--concurrency", "1", "--requests-per-minute", "6000"]);
    assert_eq!((done.code, own.upstream.calls()), (Some(0), 4), "{}", done.said);
    assert_eq!(ids(&json_lines(&done.stdout)), ["a", "b"]);

    // What cannot be reached at all is said at once.
    let mut program = own.program("batch", &file);
    let gone = output(program.env("LIKEWISE_URL", "http://127.0.0.1:9"));
    let said = String::from_utf8_lossy(&gone.stderr);
    assert!(gone.status.code() == Some(1) && said.contains("cannot reach the server"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_would_be_overwritten_are_refused() {
    let own = LineFiles::start().await;
    let file = own.file("batch.jsonl", &[chat("a", "uno")]);
    let before = fs_err::read_to_string(&file).unwrap();
    let name = file.to_str().unwrap();
    for arguments in [["--output", name, "--concurrency", "1"], ["--errors", name, "--concurrency", "1"]] {
        let done = own.run("batch", &file, &arguments);
        assert!(done.code == Some(1) && done.said.contains("different files"), "{}", done.said);
    }
    let notes = own.path("notes.txt");
    fs_err::write(&notes, "dear diary\n").unwrap();
    let done = own.run("batch", &file, &["--output", notes.to_str().unwrap()]);
    assert!(done.code == Some(1) && done.said.contains("lines of something else"), "{}", done.said);
    assert_eq!(fs_err::read_to_string(&notes).unwrap(), "dear diary\n");
    assert_eq!((fs_err::read_to_string(&file).unwrap(), own.upstream.calls()), (before, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_warms_every_cache() {
    let own = LineFiles::start().await;
    let documents = json!({ "documents": [{ "id": "1", "text": "camiseta azul" }] }).to_string();
    assert_eq!(own.server.ask("PUT", "/v1/collections/shop", &[], "{}").await.status, 200 + 1);
    let stored = own.server.ask("POST", "/v1/collections/shop/documents", &[], documents).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let mut streamed = chat("x", "uno")["body"].clone();
    streamed["stream"] = true.into();
    let search = json!({ "collection": "shop", "queries": ["blue t-shirt"], "k": 1 });
    let lines = [
        json!({ "text": "botas de agua", "id": "sku-7" }),
        streamed.clone(),
        chat("y", "dos"),
        search.clone(),
        json!({ "namespace": "products", "key": "42", "value": { "price": 19.9 }, "tags": ["brand:7"], "ttl": 600 }),
        json!({ "txt": "no text" }),
        json!({ "namespace": "products", "key": "43", "value": "v", "ttl": "soon" }),
    ];
    let file = own.file("warm.jsonl", &lines);
    let config = own.path("prices.toml");
    let prices = "[[upstream.prices]]\nmodels = [\"gpt-5*\"]\nprompt_usd_per_million = 1000.0\ncompletion_usd_per_million = 0.0\n";
    fs_err::write(&config, prices).unwrap();
    let planned = own.run("warm", &file, &["--dry-run", "--config", config.to_str().unwrap()]);
    assert_eq!((planned.code, own.upstream.calls()), (Some(3), 0), "{}", planned.said);
    let plan: Vec<&str> = planned.stdout.lines().collect();
    assert_eq!(plan.len(), 4, "{plan:?}");
    assert!(plan[0].starts_with("chats, gpt-5: 2 lines, 2 distinct, about ") && plan[0].contains(", $0.0"));
    assert_eq!(plan[1], "objects: 2 lines, 2 distinct, about 0 tokens, price unknown");
    assert!(plan[2].starts_with("searches: 1 lines") && plan[3].starts_with("texts: 1 lines"), "{plan:?}");

    let done = own.run("warm", &file, &["--concurrency", "1"]);
    assert_eq!((done.code, own.upstream.calls()), (Some(3), 2), "{}", done.said);
    assert!(
        done.said.contains("line 6: a line has text, input, ") && done.said.contains("line 7: 400 "),
        "{}",
        done.said
    );
    assert!(done.said.contains("7 lines: 0 from the cache, 5 new, 0 repeated, 2 failed"), "{}", done.said);

    assert_eq!(own.server.embed(&["botas de agua"]).await.counts(), (1, 0, 0));
    let is_hit = |answer: &crate::program::Answer| answer.header("cache-status").starts_with("likewise; hit");
    for body in [streamed, chat("y", "dos")["body"].clone()] {
        assert!(is_hit(&own.server.ask("POST", "/v1/chat/completions", &[], body.to_string()).await));
    }
    let mut body = search;
    body.as_object_mut().unwrap().remove("collection");
    assert!(is_hit(&own.server.ask("POST", "/v1/collections/shop/search", &[], body.to_string()).await));
    let object = own.server.get("/v1/cache/products/42").await;
    assert_eq!((object.header("content-type"), &object.body["price"]), ("application/json", &19.9.into()));
    assert_eq!(own.upstream.calls(), 2);

    let texts = own.path("texts.txt");
    fs_err::write(&texts, "botas de agua\n\nsombrero\nbotas de agua\n").unwrap();
    let done = own.run("warm", &texts, &["--concurrency", "1"]);
    assert!(done.said.contains("3 lines: 2 from the cache, 1 new, 0 repeated, 0 failed"), "{}", done.said);
    assert_eq!(own.server.embed(&["sombrero"]).await.counts(), (1, 0, 0));
}
