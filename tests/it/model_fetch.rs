//! Models fetched by the program, from hosts that the test plays.

mod host;
mod hub;
mod package;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use crate::model;

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
