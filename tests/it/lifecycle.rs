//! Starting, stopping, and what stands in the way of either.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::model;
use crate::program::{Server, likewise, output, until};
use crate::raw::Raw;

const PROBE: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// How long the rest of a head is waited for once the server stops.
const LAST_HEAD: Duration = Duration::from_secs(2);

fn refused(program: &mut Command) -> String {
    let output = output(program);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[tokio::test]
async fn requests_under_way_finish_before_the_server_stops() {
    let server = Server::start();
    let texts: Vec<String> = (0..60).map(|n| format!("texto {n} {}", "y sigue ".repeat(30))).collect();
    let asking = tokio::spawn({
        let request = server
            .client()
            .post(format!("{}/v1/embeddings", server.url()))
            .body(json!({ "model": "fake-model", "input": texts }).to_string());
        async move { request.send().await.unwrap().bytes().await.unwrap() }
    });
    // The request is under way once its texts are queued or being embedded.
    let begun =
        async || server.stat("/model/queued_texts").await + server.stat("/model/embedded_texts").await > 0;
    until("the request is under way", begun).await;
    server.signal("TERM");
    let body: serde_json::Value = serde_json::from_slice(&asking.await.unwrap()).unwrap();
    assert_eq!(body["data"].as_array().unwrap().len(), 60);
    assert!(server.wait().success());
}

#[tokio::test]
async fn silent_connections_end_at_once_when_the_server_stops() {
    // The rest of a head is waited for some time. A round in which it is sent too late shows nothing, and is repeated.
    until("silent connections have ended before one whose head has begun", async || {
        let server = Server::start();
        let mut begun = Raw::connect(&server);
        begun.send("GET /healthz HTTP/1.1\r\nhost: loc");
        let mut silent: Vec<Raw> = (0..20).map(|_| Raw::connect(&server)).collect();
        let mut idle = Raw::connect(&server);
        assert_eq!(idle.send(PROBE).reply().unwrap().status, 200);
        server.signal("TERM");
        assert!(silent.iter_mut().all(Raw::is_ended) && idle.is_ended());
        let last = begun.send("alhost\r\n\r\n").reply();
        assert!(server.wait().success());
        last.is_some_and(|reply| reply.status == 200)
    })
    .await;
}

#[tokio::test]
async fn requests_that_came_before_a_stop_are_answered() {
    for _ in 0..5 {
        let server = Server::start();
        let mut begun = Raw::connect(&server);
        begun.send("GET /healthz HTTP/1.1\r\nhost: loc");
        let mut idle: Vec<Raw> = (0..10).map(|_| Raw::connect(&server)).collect();
        for connection in &mut idle {
            assert_eq!(connection.send(PROBE).reply().unwrap().status, 200);
        }
        let mut new: Vec<Raw> = (0..40).map(|_| Raw::connect(&server)).collect();
        for connection in new.iter_mut().chain(&mut idle) {
            connection.send(PROBE);
        }
        let stopped = Instant::now();
        server.signal("TERM");
        // Its connection ends because the server stops.
        let mut first = idle.remove(0);
        assert!(first.reply().is_some() && first.is_ended());
        begun.send("alhost\r\n\r\n");
        new.extend(idle);
        for connection in &mut new {
            assert_eq!(connection.reply().map(|reply| reply.status), Some(200));
            assert!(connection.is_ended());
        }
        let last = begun.reply().map(|reply| (reply.status, reply.closes()));
        // On a busy machine the rest of its head may have come too late.
        assert!(last == Some((200, true)) || stopped.elapsed() >= LAST_HEAD, "{last:?}");
        assert!(server.wait().success());
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let said = refused(likewise("serve", dir.path()).args(["--listen", "127.0.0.1:0"]));
    assert!(said.contains(&*dir.path().to_string_lossy()), "{said}");
    let texts = dir.path().join("texts.txt");
    fs_err::write(&texts, "uno\n").unwrap();
    refused(likewise("embed", dir.path()).arg(&texts));
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[test]
fn an_index_that_cannot_be_built_is_named_before_there_is_a_collection() {
    let dir = TempDir::new().unwrap();
    let serve = |factory: &str| {
        let mut program = likewise("serve", dir.path());
        program.args(["--listen", "127.0.0.1:0"]).env("LIKEWISE__SEARCH__INDEX__FACTORY", factory);
        refused(&mut program)
    };
    for factory in ["HNSV32", "", "IVF99999999999"] {
        let said = serve(factory);
        assert!(said.contains("search.index.factory"), "{factory}: {said}");
    }
}

#[test]
fn a_model_that_cannot_be_used_is_named() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let serve = |model: &Path| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.arg("serve").arg("--data-dir").arg(&data).arg("--model").arg(model);
        program.args(["--listen", "127.0.0.1:0"]);
        refused(&mut program)
    };
    let said = serve(&dir.path().join("nowhere"));
    assert!(said.contains("nowhere"), "{said}");
    let broken = |file: &str, change: &dyn Fn(&Path)| {
        let model = dir.path().join(file.replace('/', "-"));
        copy(&model::dir(), &model);
        change(&model.join(file));
        let said = serve(&model);
        assert!(said.contains(file), "{file}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("likewise: ")).count(), 1, "{said}");
    };
    broken("config.json", &|path| fs_err::write(path, "{").unwrap());
    broken("tokenizer.json", &|path| fs_err::remove_file(path).unwrap());
    broken("model.safetensors", &|path| {
        let bytes = fs_err::read(path).unwrap();
        fs_err::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    broken("modules.json", &|path| {
        let text = fs_err::read_to_string(path).unwrap();
        fs_err::write(path, text.replace("models.Normalize", "models.Dense")).unwrap();
    });
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs_err::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn an_address_that_others_can_reach_needs_keys() {
    let dir = TempDir::new().unwrap();
    let said = refused(likewise("serve", dir.path()).args(["--listen", "0.0.0.0:0"]));
    assert!(said.contains("http.api_keys"), "{said}");
}

#[test]
fn an_unwritable_data_directory_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a-file");
    fs_err::write(&file, "").unwrap();
    let output = output(likewise("serve", &file.join("data")).args(["--listen", "127.0.0.1:0"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("a-file"), "{said}");
}

#[tokio::test]
async fn a_full_disk_turns_the_disk_tier_off_and_the_server_goes_on() {
    let dir = TempDir::new().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("SKIPPED: a small file system cannot be mounted here; run as root to test a full disk");
        return;
    }
    let server = Server::start_in(dir.path(), &[("LIKEWISE__CACHE__DISK__SEGMENT_BYTES", "262144")]);
    let texts: Vec<String> = (0..700).map(|n| format!("lleno {n}")).collect();
    for chunk in texts.chunks(350) {
        server.embed(&chunk.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let stats = server.get("/v1/stats").await.body;
    let metrics = server.get("/metrics").await.body;
    let again = server.embed(&["lleno 699", "nuevo"]).await;
    server.kill();
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
    assert_eq!(stats["tiers"][1]["is_enabled"], false, "{stats}");
    assert!(metrics.as_str().unwrap().contains("likewise_tier_is_enabled{tier=\"disk\"} 0"));
    assert_eq!(again.counts(), (1, 1, 0));
}
