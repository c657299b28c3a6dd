//! `likewise doctor`: what it finds, and that it changes nothing.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

use crate::model;
use crate::program::{Server, likewise, output};
use crate::upstream::{Mode, Upstream};

/// A report: whether nothing fails, and the verdict, detail and advice of each check.
struct Report {
    ok: bool,
    checks: Vec<(String, String, String, String)>,
}

impl Report {
    fn of(program: &mut Command) -> Report {
        let output = output(program.arg("--json"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let json: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
        let word = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
        let read =
            |check: &Value| ["what", "verdict", "detail", "advice"].map(|name| word(check, name)).into();
        let ok = json["ok"].as_bool().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(!ok)), "{text}");
        Report { ok, checks: json["checks"].as_array().unwrap().iter().map(read).collect() }
    }

    /// Expects a check with this verdict, whose detail and advice contain these words.
    fn has(&self, what: &str, verdict: &str, detail: &str, advice: &str) {
        let found = self.checks.iter().any(|(own, of, text, todo)| {
            own == what && of == verdict && text.contains(detail) && todo.contains(advice)
        });
        assert!(found, "no {what} {verdict} `{detail}` `{advice}`: {:#?}", self.checks);
    }
}

/// The doctor with the model of the tests and `dir` as the data directory.
fn doctor(dir: &Path) -> Command {
    let mut program = likewise("doctor", dir);
    program.env_remove("OPENAI_API_KEY").args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    program
}

/// Every file of a directory with its size and its time.
fn contents(dir: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(dir).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        found.insert(entry.path().display().to_string(), (metadata.len(), metadata.modified().unwrap()));
        if metadata.is_dir() {
            found.extend(contents(&entry.path()));
        }
    }
    found
}

#[test]
fn a_machine_on_which_a_server_would_start_passes_and_nothing_is_made() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("not/yet");
    let report = Report::of(&mut doctor(&data));
    assert!(report.ok, "{:#?}", report.checks);
    report.has("config", "ok", "", "");
    report.has("model", "ok", model::NAME, "");
    report.has("embedding", "ok", "one text in", "");
    report.has("data", "ok", "does not exist yet", "");
    report.has("listen", "ok", "127.0.0.1:", "");
    report.has("keys", "ok", "only this machine", "");
    report.has("upstream", "ok", "none", "");
    report.has("clock", "ok", "GMT", "");
    assert!(!dir.path().join("not").exists());
    let text = output(&mut doctor(&data));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.lines().all(|line| ["ok    ", "warn  "].iter().any(|verdict| line.starts_with(verdict))),
        "{text}"
    );
    assert!(text.lines().count() >= 12, "{text}");
}

#[tokio::test]
async fn a_running_server_is_reported_and_not_disturbed() {
    let dir = TempDir::new().unwrap();
    // Everything is flushed when it is acknowledged, so the server itself changes nothing afterwards.
    let server = Server::start_in(dir.path(), &[("LIKEWISE__CACHE__DISK__DURABILITY", "sync")]);
    server.embed(&["uno"]).await;
    let before = contents(dir.path());
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    let mut program = likewise("doctor", dir.path());
    let report = Report::of(program.args(["--listen", &address]));
    let own = format!("in use by process {}, the server of this configuration", server.pid());
    report.has("data", "warn", &own, "another --data-dir");
    report.has("listen", "warn", &own, "another --listen");
    assert!(report.ok, "{:#?}", report.checks);
    let report = Report::of(&mut doctor(dir.path()));
    report.has("data", "fail", &format!("in use by process {}", server.pid()), "stop that process");
    assert!(!report.ok);
    let other = TempDir::new().unwrap();
    let report = Report::of(likewise("doctor", other.path()).args(["--listen", &address]));
    report.has("listen", "fail", "cannot bind", &format!("kill {}", server.pid()));
    assert!(!report.ok);
    assert_eq!(contents(dir.path()), before);
    assert_eq!(server.embed(&["uno"]).await.counts(), (1, 0, 0));
    assert!(server.stop().success());
    let before = contents(dir.path());
    let report = Report::of(&mut doctor(dir.path()));
    report.has("data", "ok", "of format 1, is free", "");
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn what_would_stop_a_start_fails_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let report = Report::of(doctor(dir.path()).env("LIKEWISE__HTTP__LISTENS", "x"));
    report.has("config", "fail", "did you mean `http.listen`?", "correct the option");
    let report = Report::of(doctor(dir.path()).env("LIKEWISE__HTTP__API_KEYS", "short"));
    report.has("keys", "fail", "at least 8 characters", "openssl rand");
    let report = Report::of(likewise("doctor", dir.path()).args(["--listen", "0.0.0.0:0"]));
    report.has("keys", "fail", "not a loopback address", "LIKEWISE__HTTP__API_KEYS");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let report = Report::of(likewise("doctor", dir.path()).args(["--listen", &address]));
    report.has("listen", "fail", "cannot bind", &format!("kill {}", std::process::id()));
    let report = Report::of(&mut doctor(Path::new("/dev/null")));
    report.has("access", "fail", "no directory", "--data-dir");
    let report = Report::of(&mut doctor(Path::new("/dev/null/data")));
    report.has("access", "fail", "no directory", "--data-dir");
    fs_err::write(dir.path().join("FORMAT"), "likewise 99\n").unwrap();
    Report::of(&mut doctor(dir.path())).has("data", "fail", "newer version", "--data-dir");
    fs_err::write(dir.path().join("FORMAT"), "other").unwrap();
    Report::of(&mut doctor(dir.path())).has("data", "fail", "cannot read the format", "likewise verify");
}

#[test]
fn a_model_that_is_absent_or_broken_is_reported_and_not_fetched() {
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let with_model = |model: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.args(["doctor", "--listen", "127.0.0.1:0", "--model", model, "--data-dir"]).arg(dir.path());
        program.env("LIKEWISE_CACHE_DIR", cache.path()).env("HF_ENDPOINT", "http://127.0.0.1:1");
        Report::of(&mut program)
    };
    let report = with_model("owner/name");
    assert!(report.ok, "{:#?}", report.checks);
    report.has("model", "warn", "not on this machine yet", "`likewise fetch owner/name`");
    with_model("all-MiniLM-L6-v2").has("model", "warn", "not on this machine yet", "`likewise fetch`");
    with_model("/no/model").has("model", "fail", "no such directory", "");
    with_model(dir.path().to_str().unwrap()).has("model", "fail", "config.json", "--model");
    assert_eq!(fs_err::read_dir(cache.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_asked_for_their_models() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let report = |url: &str, key: Option<&str>| {
        let mut program = doctor(dir.path());
        program.args(["--upstream", url]);
        if let Some(key) = key {
            program.env("OPENAI_API_KEY", key);
        }
        tokio::task::block_in_place(|| Report::of(&mut program))
    };
    upstream.usually(Mode::Reply(200, vec![], r#"{"object":"list","data":[{"id":"m"}]}"#.into()));
    report(&upstream.url, Some("sk-ours")).has("upstream", "ok", "lists its models", "");
    for other in ["", "<html>a page of a proxy</html>", r#"{"object":"list"}"#, r#"{"data":{}}"#] {
        upstream.next(Mode::Reply(200, vec![], other.into()));
        let found = report(&upstream.url, Some("sk-ours"));
        found.has("upstream", "warn", "no list of models", "usually ends in /v1");
        assert!(found.ok, "a warning is no failure");
    }
    let without = upstream.url.trim_end_matches("/v1");
    report(without, Some("sk-ours")).has(
        "upstream",
        "warn",
        "probably mistaken",
        &format!("--upstream {}", upstream.url),
    );
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    report(&format!("http://{closed}/v1"), None).has(
        "upstream",
        "fail",
        "cannot reach",
        "start the upstream",
    );
    report("nonsense", None).has("upstream", "fail", "is not an address", "https://api.openai.com/v1");
    let asked: Vec<String> =
        upstream.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    assert!(asked.iter().all(|asked| asked.starts_with("GET ") && asked.ends_with("/models")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_the_key_is_reported() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 8192];
            let _ = stream.read(&mut head).await;
            let reply = "HTTP/1.1 401 X\r\nconnection: close\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    let dir = TempDir::new().unwrap();
    let run = |key: Option<&str>, forwards: &str| {
        let mut program = doctor(dir.path());
        program.args(["--upstream", &url]).env("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", forwards);
        if let Some(key) = key {
            program.env("OPENAI_API_KEY", key);
        }
        tokio::task::block_in_place(|| Report::of(&mut program))
    };
    run(None, "false").has("upstream", "fail", "asks for a key", "export OPENAI_API_KEY");
    let report = run(Some("sk-wrong"), "false");
    report.has("upstream", "fail", "refuses the key", "OPENAI_API_KEY");
    report.has("clock", "warn", "differs by", "set the clock");
    assert!(report.checks.iter().all(|check| !format!("{check:?}").contains("sk-wrong")));
    run(None, "true").has("upstream", "ok", "which clients bring", "");
}
