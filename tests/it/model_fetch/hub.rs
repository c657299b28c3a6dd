//! Models of the hub.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::host::{Host, Seen, Sent};
use super::{fails, fetch, git_blob, model_files, printed_dir, run, sha256, stderr};
use crate::program::{Server, until};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// The list of a repository that has `files`, and some that no server reads.
fn listing(files: &BTreeMap<String, Vec<u8>>) -> String {
    let sibling = |(name, bytes): (&String, &Vec<u8>)| match name.ends_with("safetensors") {
        true => json!({ "rfilename": name, "size": bytes.len(), "blobId": "1".repeat(40),
            "lfs": { "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134 } }),
        false => json!({ "rfilename": name, "size": bytes.len(), "blobId": git_blob(bytes) }),
    };
    let unread = ["README.md", "pytorch_model.bin", "onnx/config.json", "../../escape.json"];
    let unread = unread.map(|name| json!({ "rfilename": name, "size": 1_u64 << 40 }));
    let siblings: Vec<_> = files.iter().map(sibling).chain(unread).collect();
    json!({ "id": "owner/name", "sha": COMMIT, "siblings": siblings }).to_string()
}

fn file_of(path: &str) -> Option<&str> {
    path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, file)| file)
}

/// A hub that has the tests' model. `change` may answer a request for a file differently.
async fn hub(change: impl Fn(&str, &Seen, usize) -> Option<Sent> + Send + Sync + 'static) -> Host {
    let files = model_files();
    let list = listing(&files);
    Host::start(move |seen, earlier| match file_of(&seen.path) {
        Some(file) => match (change(file, seen, earlier), files.get(file)) {
            (Some(sent), _) => sent,
            (None, Some(bytes)) => Sent::range(seen, bytes),
            (None, None) => Sent::new(404, "Entry not found"),
        },
        None if seen.path.starts_with("/api/models/owner/name/revision/main") => {
            Sent::new(200, list.as_str())
        }
        None => Sent::new(404, "no such page"),
    })
    .await
}

#[tokio::test]
async fn a_model_comes_by_a_redirect_without_the_token_and_is_asked_for_once() {
    let files = model_files();
    let weights = files["model.safetensors"].clone();
    let cdn = Host::start(move |seen, _| Sent::range(seen, &weights)).await;
    let signed = format!("{}/blob?signature=secret", cdn.url);
    let hub =
        hub(move |file, _, _| (file == "model.safetensors").then(|| Sent::redirect(signed.clone()))).await;
    let cache = TempDir::new().unwrap();
    let with_token = |arguments: &[&str]| {
        let mut program = fetch(cache.path(), &hub.url, arguments);
        program.env("HF_TOKEN", TOKEN);
        program
    };
    let first = run(with_token(&["owner/name"])).await;
    let dir = printed_dir(&first);
    assert_eq!(dir, fs_err::canonicalize(cache.path().join("models/owner/name")).unwrap());
    for (name, bytes) in &files {
        assert!(&fs_err::read(dir.join(name)).unwrap() == bytes, "{name}");
    }
    assert!(stderr(&first).contains("fetching owner/name"), "{}", stderr(&first));
    let hub_saw = hub.seen();
    assert_eq!(
        hub_saw.len(),
        files.len() + 1,
        "no file is fetched that the server does not read: {hub_saw:?}"
    );
    assert!(
        hub_saw.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")),
        "{hub_saw:?}"
    );
    assert!(matches!(&cdn.seen()[..], [seen] if seen.authorization.is_none()), "{:?}", cdn.seen());

    let second = run(with_token(&["owner/name"])).await;
    assert_eq!(printed_dir(&second), dir);
    assert!(second.stderr.is_empty(), "{}", stderr(&second));
    assert_eq!((hub.seen().len(), cdn.seen().len()), (hub_saw.len(), 1), "the second run asked again");
    assert_eq!(run(with_token(&[dir.to_str().unwrap()])).await.stdout, second.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_fetches_its_model_and_knows_it_by_its_name_in_the_hub() {
    let hub = hub(|_, _, _| None).await;
    let (cache, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(["serve", "--model", "owner/name", "--data-dir"]).arg(data.path());
    program.env("LIKEWISE_CACHE_DIR", cache.path()).env("HF_ENDPOINT", &hub.url).env("LIKEWISE_LOG", "warn");
    let server = tokio::task::block_in_place(|| Server::spawn(&mut program));
    for name in ["name", "owner/name"] {
        let body = json!({ "model": name, "input": "uno" });
        let answer = server.post_raw(body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn a_download_that_breaks_is_continued_in_one_run_and_in_the_next() {
    let third = model_files()["model.safetensors"].len() / 3;
    let breaks = move |from_request: usize| {
        move |file: &str, seen: &Seen, earlier: usize| {
            let bytes = model_files().remove(file).filter(|_| file == "model.safetensors")?;
            (earlier < from_request).then(|| Sent { breaks_at: Some(third), ..Sent::range(seen, &bytes) })
        }
    };
    let (cache, hub_once) = (TempDir::new().unwrap(), hub(breaks(1)).await);
    let output = run(fetch(cache.path(), &hub_once.url, &["owner/name"])).await;
    printed_dir(&output);
    assert!(stderr(&output).contains("trying again"), "{}", stderr(&output));
    let asked: Vec<u64> = hub_once.requests_of("safetensors").iter().map(|seen| seen.from).collect();
    assert_eq!(asked, [0, third as u64]);

    // No byte comes after the first third, so the run gives up. The next one begins there.
    let stuck = hub(move |file, seen, earlier| {
        let bytes = model_files().remove(file).filter(|_| file == "model.safetensors")?;
        let breaks_at = if earlier == 0 { third } else { 0 };
        Some(Sent { breaks_at: Some(breaks_at), ..Sent::range(seen, &bytes) })
    })
    .await;
    let cache = TempDir::new().unwrap();
    fails(fetch(cache.path(), &stuck.url, &["owner/name"]), cache.path(), 1, &["cannot fetch owner/name"])
        .await;
    let whole = hub(|_, _, _| None).await;
    let dir = printed_dir(&run(fetch(cache.path(), &whole.url, &["owner/name"])).await);
    assert!(fs_err::read(dir.join("model.safetensors")).unwrap() == model_files()["model.safetensors"]);
    let asked: Vec<String> = whole.seen().iter().map(|seen| format!("{} {}", seen.path, seen.from)).collect();
    assert!(
        matches!(&asked[..], [list, file] if list.contains("/api/")
        && *file == format!("/owner/name/resolve/{COMMIT}/model.safetensors {third}")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_source_that_ignores_ranges_or_left_other_bytes_costs_a_whole_download() {
    let third = model_files()["model.safetensors"].len() / 3;
    let hub = hub(move |file, _, earlier| {
        let bytes = model_files().remove(file).filter(|_| file == "model.safetensors")?;
        Some(Sent { breaks_at: (earlier == 0).then_some(third), ..Sent::new(200, bytes) })
    })
    .await;
    let cache = TempDir::new().unwrap();
    printed_dir(&run(fetch(cache.path(), &hub.url, &["owner/name"])).await);

    let cache = TempDir::new().unwrap();
    let work = cache.path().join(format!("models/.fetch-owner--name@{COMMIT}"));
    fs_err::create_dir_all(&work).unwrap();
    fs_err::write(work.join("model.safetensors.part"), b"not of this model").unwrap();
    let honest = self::hub(|_, _, _| None).await;
    printed_dir(&run(fetch(cache.path(), &honest.url, &["owner/name"])).await);
    let asked: Vec<u64> = honest.requests_of("safetensors").iter().map(|seen| seen.from).collect();
    assert_eq!(asked, [17, 0]);
    assert!(!work.exists());
}

#[tokio::test]
async fn other_bytes_than_announced_are_not_installed() {
    for name in ["model.safetensors", "config.json"] {
        let hub = hub(move |file, _, _| {
            let mut bytes = model_files().remove(file).filter(|_| file == name)?;
            *bytes.last_mut().unwrap() ^= 1;
            Some(Sent::new(200, bytes))
        })
        .await;
        let cache = TempDir::new().unwrap();
        let words = [name, "another hash than announced", "nothing was installed", "(expected: ", ", got: "];
        fails(fetch(cache.path(), &hub.url, &["owner/name"]), cache.path(), 1, &words).await;
    }
    let longer = hub(|file, _, _| {
        let bytes = model_files().remove(file).filter(|_| file == "model.safetensors")?;
        Some(Sent::new(200, [bytes, vec![0; 9]].concat()))
    })
    .await;
    let cache = TempDir::new().unwrap();
    fails(fetch(cache.path(), &longer.url, &["owner/name"]), cache.path(), 1, &["longer than announced"])
        .await;
}

#[tokio::test]
async fn a_source_that_falls_silent_is_given_up() {
    let weights = model_files().remove("model.safetensors").unwrap();
    let hub = hub(move |file, _, _| {
        (file == "model.safetensors").then(|| Sent { stalls: true, ..Sent::new(200, weights.as_slice()) })
    })
    .await;
    let cache = TempDir::new().unwrap();
    let mut program = fetch(cache.path(), &hub.url, &["owner/name"]);
    // In this time all other answers come, also on a busy machine.
    program.env("HF_HUB_DOWNLOAD_TIMEOUT", "2");
    fails(program, cache.path(), 1, &["cannot fetch owner/name", "HTTPS_PROXY"]).await;
    let attempts = || hub.requests_of("safetensors").len();
    until("the hub has seen the last attempt", async || attempts() >= 4).await;
    assert_eq!(attempts(), 4);
}

#[tokio::test]
async fn what_the_hub_refuses_says_what_to_do() {
    let cases: [(u16, &str, &[&str]); 5] = [
        (401, "GatedRepo", &["is gated", "accept its terms at", "HF_TOKEN"]),
        (403, "GatedRepo", &["is gated"]),
        (401, "RepoNotFound", &["there is no model owner/name", "check the name", "HF_TOKEN"]),
        (404, "RepoNotFound", &["there is no model owner/name"]),
        (503, "", &["cannot fetch owner/name", "try again later"]),
    ];
    for (status, code, words) in cases {
        let hub = Host::start(move |_, _| Sent::new(status, "{}").with("x-error-code", code)).await;
        let cache = TempDir::new().unwrap();
        let exit = if status == 503 { 1 } else { 2 };
        fails(fetch(cache.path(), &hub.url, &["owner/name"]), cache.path(), exit, words).await;
        if code == "RepoNotFound" {
            let mut program = fetch(cache.path(), &hub.url, &["owner/name"]);
            program.env("HF_TOKEN", TOKEN);
            let said = run(program).await;
            assert!(!stderr(&said).contains(TOKEN), "{}", stderr(&said));
        }
    }
    let web_page = Host::start(|_, _| Sent::new(200, "<html>sign in</html>")).await;
    let circle = Host::start(|seen, _| Sent::redirect(seen.path.clone())).await;
    let cache = TempDir::new().unwrap();
    fails(fetch(cache.path(), &web_page.url, &["owner/name"]), cache.path(), 1, &["correct HF_ENDPOINT"])
        .await;
    fails(fetch(cache.path(), &circle.url, &["owner/name"]), cache.path(), 1, &["redirects without end"])
        .await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    fails(
        fetch(cache.path(), &closed, &["owner/name"]),
        cache.path(),
        1,
        &["--model DIRECTORY", "HF_ENDPOINT"],
    )
    .await;
    fails(fetch(cache.path(), "mirror", &["owner/name"]), cache.path(), 2, &["HF_ENDPOINT must be"]).await;
    fails(fetch(cache.path(), &closed, &["e5"]), cache.path(), 2, &["no such directory", "OWNER/NAME"]).await;
    let no_place = fetch(Path::new("/dev/null/cache"), &circle.url, &["owner/name"]);
    fails(no_place, cache.path(), 1, &["set LIKEWISE_CACHE_DIR"]).await;
}

#[tokio::test]
async fn a_model_that_cannot_be_used_is_refused_before_its_weights_come() {
    let mut files = model_files();
    let other = String::from_utf8(files["config.json"].clone()).unwrap().replace("\"bert\"", "\"qwen3\"");
    files.insert("config.json".into(), other.into_bytes());
    let mut without = files.clone();
    without.remove("model.safetensors");
    let serve = |files: BTreeMap<String, Vec<u8>>| {
        let list = listing(&files);
        Host::start(move |seen, _| match file_of(&seen.path).and_then(|file| files.get(file)) {
            Some(bytes) => Sent::range(seen, bytes),
            None => Sent::new(200, list.as_str()),
        })
    };
    let (cache, hub) = (TempDir::new().unwrap(), serve(files).await);
    let program = fetch(cache.path(), &hub.url, &["owner/name"]);
    fails(program, cache.path(), 2, &["model_type `qwen3` is not supported"]).await;
    assert!(hub.requests_of("safetensors").is_empty());
    let mut no_tokenizer = model_files();
    no_tokenizer.remove("tokenizer.json");
    let (cache, hub) = (TempDir::new().unwrap(), serve(no_tokenizer).await);
    let program = fetch(cache.path(), &hub.url, &["owner/name"]);
    fails(program, cache.path(), 2, &["tokenizer.json"]).await;
    assert!(hub.requests_of("safetensors").is_empty());
    let hub = serve(without).await;
    let program = fetch(cache.path(), &hub.url, &["owner/name"]);
    fails(program, cache.path(), 2, &["in PyTorch's format only", "--model sentence-transformers/"]).await;
    assert_eq!(hub.seen().len(), 1);
}

#[tokio::test]
async fn processes_at_the_same_time_download_once() {
    let hub = hub(|_, _, _| None).await;
    let cache = TempDir::new().unwrap();
    let runs = (0..4).map(|_| run(fetch(cache.path(), &hub.url, &["owner/name"])));
    let outputs = futures_util::future::join_all(runs).await;
    for output in &outputs {
        printed_dir(output);
    }
    assert_eq!(hub.requests_of("safetensors").len(), 1);
}

#[tokio::test]
async fn a_proxy_is_used() {
    let files = model_files();
    let list = listing(&files);
    let proxy = Host::start(move |seen, _| match file_of(&seen.path).and_then(|file| files.get(file)) {
        Some(bytes) => Sent::range(seen, bytes),
        None => Sent::new(200, list.as_str()),
    })
    .await;
    let cache = TempDir::new().unwrap();
    let mut program = fetch(cache.path(), "http://hub.invalid", &["owner/name"]);
    program.env("HTTP_PROXY", &proxy.url);
    printed_dir(&run(program).await);
    assert!(
        proxy.seen().iter().all(|seen| seen.path.starts_with("http://hub.invalid/")),
        "{:?}",
        proxy.seen()
    );
}
