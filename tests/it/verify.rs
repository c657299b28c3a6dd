//! `likewise verify`, as an operator meets it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::program::{Server, output};
use serde_json::{Value, json};

fn verify(dir: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        output(Command::new(env!("CARGO_BIN_EXE_likewise")).arg("verify").arg(dir).args(flags));
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[tokio::test]
async fn the_exit_code_says_how_a_directory_was_found() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    server.post_raw(r#"{"model":"mock","input":["uno","dos"]}"#).await;
    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(2), "a server uses it: {said}");
    assert!(said.contains("another process"), "{said}");
    assert!(server.stop().success());

    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 entries") && said.contains("0 damaged"), "{said}");

    let segment = dir.path().join("vectors/0000000001.seg");
    let mut bytes = fs_err::read(&segment).unwrap();
    bytes[0] ^= 1;
    fs_err::write(&segment, &bytes).unwrap();
    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("DAMAGED"), "{said}");

    let (code, said) = verify(dir.path(), &["--repair"]);
    assert_eq!(code, Some(0), "{said}");
    let aside =
        fs_err::read_dir(dir.path()).unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert!(aside.into_iter().any(|name| name.starts_with("damaged-")), "{said}");
    assert_eq!(verify(dir.path(), &[]).0, Some(0));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let (code, said) = verify(Path::new("no-such-directory"), &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no-such-directory"), "{said}");
}

/// What is damaged of a collection is found, and what is left of it comes back.
#[tokio::test]
async fn a_damaged_collection_is_found_and_what_it_still_holds_comes_back() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    // Each request is in a segment of its own, or in the log.
    let start = || {
        let mut program = remote(dir.path(), &endpoint.url);
        Server::spawn(program.env("LIKEWISE__SEARCH__COMPACTION__SEGMENT_BYTES", "4000"))
    };
    let server = start();
    let made = server.ask("PUT", "/v1/collections/k", &[], r#"{"dimensions":4,"metric":"l2"}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let upsert = async |server: &Server, from: usize, to: usize| {
        let documents: Vec<Value> = (from..to)
            .map(|n| json!({ "id": n.to_string(), "vector": [n, 1, 2, 3], "text": "x".repeat(20) }))
            .collect();
        let body = json!({ "documents": documents }).to_string();
        let stored = server.ask("POST", "/v1/collections/k/documents", &[], body).await;
        assert_eq!(stored.status, 200, "{}", stored.body);
    };
    upsert(&server, 0, 200).await;
    upsert(&server, 200, 210).await;
    upsert(&server, 210, 220).await;
    let gone = server.ask("POST", "/v1/collections/k/documents/delete", &[], r#"{"ids":["7"]}"#).await;
    assert_eq!(gone.body["documents"], 1);
    assert!(server.stop().success());
    let collections = dir.path().join("collections");
    let named = |end: &str| {
        let files = fs_err::read_dir(&collections).unwrap().map(|file| file.unwrap().path());
        files.into_iter().filter(|path| path.to_string_lossy().ends_with(end)).max().unwrap()
    };
    let whole: Vec<_> =
        [".manifest", ".rows", ".log"].map(|end| (named(end), fs_err::read(named(end)).unwrap())).into();
    let header = 4096;
    for (place, at, lost) in
        [(0, 40, 0), (1, 8, 0), (1, header + 5, 1), (1, header + 200 * 16 + 2, 1), (2, 0, 10)]
    {
        let (path, bytes) = &whole[place];
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs_err::write(path, damaged).unwrap();
        let (code, said) = verify(dir.path(), &[]);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            code == Some(3) && said.contains(&name) && said.contains("DAMAGED"),
            "{name}, byte {at}: {said}"
        );
        let (code, said) = verify(dir.path(), &["--repair"]);
        assert_eq!(code, Some(0), "{name}, byte {at}: {said}");
        assert_eq!(verify(dir.path(), &[]).0, Some(0), "{name}, byte {at}");
        let server = start();
        let described = server.get("/v1/collections/k").await.body;
        assert_eq!(described["documents"], 219 - lost, "{name}, byte {at}: {described}");
        assert_eq!(described["metric"], "l2");
        assert_eq!(server.get("/v1/collections/k/documents/7").await.status, 404, "it was deleted");
        upsert(&server, 0, 1).await;
        server.kill();
        // As it was, for the next damage.
        for file in fs_err::read_dir(&collections).unwrap() {
            fs_err::remove_file(file.unwrap().path()).unwrap();
        }
        restore(&collections, &whole);
    }
}

fn restore(collections: &Path, whole: &[(std::path::PathBuf, Vec<u8>)]) {
    for (path, bytes) in whole {
        fs_err::write(path, bytes).unwrap();
    }
    let (manifest, bytes) = &whole[0];
    assert!(manifest.starts_with(collections));
    fs_err::write(manifest.with_extension("manifest-copy"), bytes).unwrap();
}

#[tokio::test]
async fn what_damaged_records_still_hold_is_brought_back_and_nothing_that_was_hidden() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let value = |n: usize| format!("value {n} ").repeat(400);
    for n in 0..60 {
        let tags = if n % 6 == 0 { "hidden" } else { "kept" };
        let headers = [("content-type", "application/x-bits"), ("x-cache-tags", tags)];
        let path = format!("/v1/cache/products/{n}");
        assert_eq!(server.ask("PUT", &path, &headers, value(n)).await.status, 204);
    }
    assert_eq!(server.ask("POST", "/v1/invalidate", &[], r#"{"tags":["hidden"]}"#).await.status, 200);
    assert_eq!(server.ask("DELETE", "/v1/cache/products/1", &[], "").await.status, 204);
    assert!(server.stop().success());
    assert_eq!(verify(dir.path(), &[]).0, Some(0));

    let records = dir.path().join("records/records.redb");
    let mut bytes = fs_err::read(&records).unwrap();
    let damaged = value(31);
    let places: Vec<usize> = bytes
        .windows(damaged.len())
        .enumerate()
        .filter_map(|(at, window)| (window == damaged.as_bytes()).then_some(at))
        .collect();
    assert!(!places.is_empty(), "the value lies in the file as it is");
    places.iter().for_each(|&at| bytes[at + 100] ^= 1);
    fs_err::write(&records, &bytes).unwrap();

    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(fs_err::read(&records).unwrap() == bytes, "checking changes nothing");
    let (code, said) = verify(dir.path(), &["--repair"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("brought back 58 objects"), "{said}");

    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    for n in 0..60 {
        let found = server.get(&format!("/v1/cache/products/{n}")).await;
        let is_gone = n % 6 == 0 || n == 1 || n == 31;
        assert_eq!(found.status, if is_gone { 404 } else { 200 }, "{n}");
        assert!(is_gone || found.body == value(n), "{n}");
    }
}

#[tokio::test]
async fn records_that_end_within_a_page_are_damaged_and_come_back_whole() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    for n in 0..20 {
        assert_eq!(server.ask("PUT", &format!("/v1/cache/products/{n}"), &[], "value").await.status, 204);
    }
    assert!(server.stop().success());
    let records = dir.path().join("records/records.redb");
    let mut bytes = fs_err::read(&records).unwrap();
    bytes.extend([7; 100]);
    fs_err::write(&records, &bytes).unwrap();
    assert_eq!(verify(dir.path(), &[]).0, Some(3));
    let (code, said) = verify(dir.path(), &["--repair"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(verify(dir.path(), &[]).0, Some(0));
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    for n in 0..20 {
        assert_eq!(server.get(&format!("/v1/cache/products/{n}")).await.body, "value", "{n}: {said}");
    }
}

#[tokio::test]
async fn a_data_directory_is_private_and_a_wider_one_is_warned_about() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let data = dir.path().join("new/data");
    let server = Server::spawn(&mut remote(&data, &endpoint.url));
    server.post_raw(r#"{"model":"mock","input":["uno","dos"]}"#).await;
    assert_eq!(server.ask("PUT", "/v1/cache/products/1", &[], "one").await.status, 204);
    assert_eq!(server.ask("PUT", "/v1/collections/k", &[], r#"{"dimensions":2}"#).await.status, 201);
    let documents = r#"{"documents":[{"id":"1","vector":[1,2]}]}"#;
    assert_eq!(server.ask("POST", "/v1/collections/k/documents", &[], documents).await.status, 200);
    assert!(server.stop().success());
    let mut places = vec![data.clone()];
    let mut files = 0;
    while let Some(place) = places.pop() {
        let metadata = fs_err::metadata(&place).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode, if metadata.is_dir() { 0o700 } else { 0o600 }, "{}", place.display());
        files += usize::from(metadata.is_file());
        if metadata.is_dir() {
            places.extend(fs_err::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(files >= 6, "{files} files");

    fs_err::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::spawn(&mut remote(&data, &endpoint.url));
    assert_eq!(server.get("/v1/cache/products/1").await.body, "one", "it works all the same");
    let second = output(remote(&data, &endpoint.url).args(["--listen", "127.0.0.1:0"]));
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains("other users of this machine") && said.contains("process: "), "{said}");
}

/// Whatever has become of the manifest or of its copy: the server starts, the collection is not forgotten, and it is
/// repaired or dropped.
#[tokio::test]
async fn a_manifest_that_is_missing_or_a_directory_ends_no_server_and_is_repaired() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let start = || Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let server = start();
    let settings = r#"{"dimensions":2}"#;
    assert_eq!(server.ask("PUT", "/v1/collections/k", &[], settings).await.status, 201);
    let documents = r#"{"documents":[{"id":"1","vector":[1,2]}]}"#;
    assert_eq!(server.ask("POST", "/v1/collections/k/documents", &[], documents).await.status, 200);
    assert!(server.stop().success());
    let manifest = dir.path().join("collections/k.manifest");
    let copy = dir.path().join("collections/k.manifest-copy");
    let damages: [(&str, &dyn Fn(), u16); 3] = [
        ("missing", &|| fs_err::remove_file(&manifest).unwrap(), 503),
        ("a directory", &|| replace_by_directory(&manifest), 503),
        ("its copy a directory", &|| replace_by_directory(&copy), 200),
    ];
    for (name, damage, status) in damages {
        damage();
        let server = start();
        assert_eq!(server.get("/v1/collections/k").await.status, status, "{name}");
        let made = server.ask("PUT", "/v1/collections/k", &[], settings).await;
        assert_eq!(made.status, status, "{name}: its place is taken");
        server.kill();
        if status == 503 {
            assert_eq!(verify(dir.path(), &[]).0, Some(3), "{name}");
        }
        let (code, said) = verify(dir.path(), &["--repair"]);
        assert_eq!(code, Some(0), "{name}: {said}");
        let server = start();
        assert_eq!(server.get("/v1/collections/k").await.body["documents"], 1, "{name}");
        assert_eq!(server.ask("POST", "/v1/collections/k/documents", &[], documents).await.status, 200);
        server.kill();
        assert_eq!(verify(dir.path(), &[]).0, Some(0), "{name}");
    }
    for damage in [&|| fs_err::remove_file(&manifest).unwrap(), &|| replace_by_directory(&manifest) as ()]
        as [&dyn Fn(); 2]
    {
        damage();
        let server = start();
        assert_eq!(server.ask("DELETE", "/v1/collections/k", &[], "").await.status, 204);
        assert_eq!(server.get("/v1/collections/k").await.status, 404);
        assert_eq!(server.ask("PUT", "/v1/collections/k", &[], settings).await.status, 201);
        assert_eq!(server.get("/v1/collections/k").await.body["documents"], 0);
        server.kill();
        assert_eq!(verify(dir.path(), &[]).0, Some(0));
    }
}

fn replace_by_directory(path: &Path) {
    fs_err::remove_file(path).unwrap();
    fs_err::create_dir(path).unwrap();
}

/// Damage of what was acknowledged last, after a clean end and after none.
#[tokio::test]
async fn a_damaged_last_change_of_a_collection_is_found() {
    for is_killed in [true, false] {
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
        assert_eq!(server.ask("PUT", "/v1/collections/k", &[], r#"{"dimensions":2}"#).await.status, 201);
        for n in 0..3 {
            let body = json!({"documents": [{"id": n.to_string(), "vector": [n, 1]}]}).to_string();
            assert_eq!(server.ask("POST", "/v1/collections/k/documents", &[], body).await.status, 200);
        }
        if is_killed {
            server.kill();
        } else {
            assert!(server.stop().success());
        }
        let log = dir.path().join("collections/k.0000000001.log");
        let mut bytes = fs_err::read(&log).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        bytes[end] ^= 1;
        fs_err::write(&log, &bytes).unwrap();
        let (code, said) = verify(dir.path(), &[]);
        assert!(code == Some(3) && said.contains("k.0000000001.log"), "{said}");
        let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
        assert_eq!(server.get("/v1/collections/k").await.body["documents"], 2);
        assert!(server.stop().success());
        assert_eq!(verify(dir.path(), &[]).0, Some(3), "a start does not make it whole");
        assert_eq!(verify(dir.path(), &["--repair"]).0, Some(0));
    }
}

/// Whatever becomes of the records: what was embedded is in files of its own, and is found again after a repair. Objects are
/// found again where it was only the beginning of the file that was damaged; and what was hidden stays hidden.
#[tokio::test]
async fn embeddings_outlive_the_records_and_objects_a_damaged_header() {
    for is_killed in [true, false] {
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        let start = || Server::spawn(&mut remote(dir.path(), &endpoint.url));
        let server = start();
        let embed = async |server: &Server| {
            server.post_raw(r#"{"model":"mock","input":["uno","dos"]}"#).await.counts()
        };
        assert_eq!(embed(&server).await, (0, 2, 0));
        for (key, tags) in [("shown", "a"), ("hidden", "t"), ("deleted", "a")] {
            let path = format!("/v1/cache/products/{key}");
            assert_eq!(server.ask("PUT", &path, &[("x-cache-tags", tags)], "value").await.status, 204);
        }
        assert!(server.stop().success());
        let server = start();
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], r#"{"tags":["t"]}"#).await.status, 200);
        assert_eq!(server.ask("DELETE", "/v1/cache/products/deleted", &[], "").await.status, 204);
        if is_killed {
            server.kill();
        } else {
            assert!(server.stop().success());
        }
        let folder = dir.path().join("records");
        let records = folder.join("records.redb");
        let whole: Vec<_> = fs_err::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs_err::read(path).unwrap()))
            .collect();
        for (name, damage, status) in DAMAGES {
            fs_err::remove_dir_all(&folder).unwrap();
            fs_err::create_dir(&folder).unwrap();
            whole.iter().for_each(|(path, bytes)| fs_err::write(path, bytes).unwrap());
            let mut damaged = fs_err::read(&records).unwrap();
            damage(&mut damaged);
            fs_err::write(&records, damaged).unwrap();
            let (found, said) = verify(dir.path(), &[]);
            assert_eq!(found, Some(3), "{name}: {said}");
            let (code, said) = verify(dir.path(), &["--repair"]);
            assert_eq!(code, Some(0), "{name}: {said}");
            let server = start();
            let name = format!("{name}, killed: {is_killed}: {said}");
            assert_eq!(embed(&server).await, (2, 0, 0), "{name}");
            assert_eq!(server.get("/v1/cache/products/shown").await.status, status, "{name}");
            for gone in ["hidden", "deleted"] {
                let gone = server.get(&format!("/v1/cache/products/{gone}")).await;
                assert_eq!(gone.status, 404, "{name}");
            }
            server.kill();
        }
        fs_err::remove_file(&records).unwrap();
        assert_eq!(verify(dir.path(), &[]).0, Some(3));
        let server = start();
        assert_eq!(embed(&server).await, (2, 0, 0), "also without a repair");
        server.kill();
    }
}

/// Damage of the records, and what an object that was there answers after the repair.
type Damage = (&'static str, fn(&mut Vec<u8>), u16);
const DAMAGES: [Damage; 8] = [
    ("byte 0", |bytes| bytes[0] ^= 1, 200),
    ("first slot", |bytes| bytes[64..192].fill(0), 200),
    ("second slot", |bytes| bytes[192..320].fill(0), 200),
    ("a bit of each commit", |bytes| [100, 230].into_iter().for_each(|at| bytes[at] ^= 4), 200),
    ("header", |bytes| bytes[..320].fill(0xff), 200),
    ("first page", |bytes| bytes[..4096].fill(0), 200),
    ("everything", |bytes| bytes.fill(7), 404),
    ("empty", Vec::clear, 404),
];
