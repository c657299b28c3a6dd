//! The commands of the pages, run as a reader would run them. Each page has a server of its own, in front of an upstream of the test,
//! and a working directory with `examples` and with a data directory that a server has left.
//!
//! `tests/python/test_docs.py` runs the blocks in Python.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{CodeBlock, RUN, SEVERAL_NODES, in_english, read, root, split};
use crate::model;
use crate::program::{Server, likewise};
use crate::upstream::Upstream;

/// The model that the pages ask for, and the address at which they find the server.
const MODEL: &str = "all-MiniLM-L6-v2";
const ADDRESS: &str = "http://127.0.0.1:8420";
/// The program, as the pages call it.
pub(super) const PROGRAM: &str = "target/release/likewise";

/// A line without the numbers that differ from run to run: those behind `=`, such as lifetimes and durations.
pub(super) fn masked(line: &str) -> String {
    let mut parts = line.trim_end().split('=');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = if rest.len() < part.len() { "N" } else { "" };
        format!("{line}={number}{rest}")
    })
}

/// Where the commands of a page run, and the server that they ask.
struct Reader {
    dir: TempDir,
    server: Server,
    _upstream: Upstream,
}

impl Reader {
    async fn new() -> Reader {
        let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        symlink(root().join("examples"), dir.path().join("examples")).unwrap();
        assert!(Server::start_in(&dir.path().join("data"), &[]).stop().success());
        let mut program = likewise("serve", &dir.path().join("served"));
        program.env("LIKEWISE__MODEL__NAME", MODEL).env("OPENAI_API_KEY", "sk-ours");
        let server = Server::spawn(program.arg("--upstream").arg(&upstream.url));
        Reader { dir, server, _upstream: upstream }
    }

    /// Runs a block, which must succeed, and returns the lines of its output.
    async fn run(&self, block: &str) -> Vec<String> {
        assert!(block.contains(ADDRESS) || block.contains(PROGRAM), "runs nothing of ours: {block}");
        let script =
            block.replace(ADDRESS, self.server.url()).replace(PROGRAM, env!("CARGO_BIN_EXE_likewise"));
        let mut shell = shell(script, self.dir.path(), self.server.url());
        let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{block}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(masked).collect()
    }
}

pub(super) fn shell(script: String, dir: &Path, url: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-euc", &script]).stdin(Stdio::null()).current_dir(dir);
    shell.env("LIKEWISE_URL", url).env("no_proxy", "127.0.0.1");
    // In place of the default model, which would be fetched.
    shell.env("LIKEWISE__MODEL__DIR", model::dir());
    shell
}

/// The output that a page shows of a block: the block behind it.
fn shown(page: &str, block: &CodeBlock, next: Option<&CodeBlock>) -> String {
    let shown = next.filter(|next| next.language == "text").map(|next| next.text.clone()).unwrap_or_default();
    let fails_by_status = ["curl -sf ", "curl -sfo "].iter().any(|curl| block.text.contains(curl));
    if block.text.contains("curl ") && !fails_by_status {
        assert!(shown.starts_with("HTTP/1.1 "), "{page}: no response of {}: `{shown}`", block.text);
    }
    shown
}

/// Runs the commands of a page on a new server, and returns how many there are.
async fn follow(page: &str) -> usize {
    let text = read(page);
    let (blocks, _) = split(&text);
    if !blocks.iter().any(|block| block.language == RUN) {
        return 0;
    }
    let reader = Reader::new().await;
    let mut commands = 0;
    for (n, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == RUN) {
        let shown = shown(page, block, blocks.get(n + 1));
        let lines = reader.run(&block.text).await;
        let mut rest = lines.iter();
        for line in shown.lines().map(masked) {
            assert!(rest.any(|said| *said == line), "{page}: no `{line}` in {lines:#?}\nof {}", block.text);
        }
        commands += 1;
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_give_what_the_pages_show() {
    let mut commands = 0;
    for page in in_english().filter(|page| page != SEVERAL_NODES) {
        commands += follow(&page).await;
    }
    assert!(commands > 25, "only {commands} commands were run");
}

#[test]
fn only_numbers_that_vary_are_masked() {
    assert_eq!(
        masked("cache-status: likewise; hit; ttl=1794; detail=memory\r"),
        "cache-status: likewise; hit; ttl=N; detail=memory"
    );
    assert_ne!(masked("HTTP/1.1 200 OK"), masked("HTTP/1.1 404 OK"));
    assert_ne!(masked("cache-status: likewise; fwd=miss"), masked("cache-status: likewise; fwd=stale"));
}
