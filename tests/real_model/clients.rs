//! Programs of others against the real server: the official `openai` clients for Python and Node, unmodified, FAISS, and the tools that
//! read the OpenAPI document.

use std::process::Command;

use crate::model;

/// Runs the tests of one client; what they print.
fn run(client: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/client_tests.sh");
    let output = Command::new(script)
        .arg(env!("CARGO_BIN_EXE_likewise"))
        .arg(model::dir())
        .arg(client)
        .output()
        .expect("the script starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.into_owned()
}

#[test]
fn programs_in_python_are_served() {
    let out = run("python");
    assert!(out.contains(" passed"), "no Python test ran:\n{out}");
}

#[test]
fn the_official_node_client_is_served() {
    let out = run("node");
    assert!(out.contains("# fail 0") && !out.contains("# pass 0"), "no Node test ran:\n{out}");
}
