//! Programs in Python: the official `openai` client, unmodified, against the real server; and FAISS, with its files.

use std::process::Command;

use crate::program::model_dir;

#[test]
fn programs_in_python_are_served() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/python_tests.sh");
    let output = Command::new(script)
        .arg(env!("CARGO_BIN_EXE_likewise"))
        .arg(model_dir())
        .output()
        .expect("the script starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains(" passed"), "no Python test ran:\n{out}\n{err}");
}
