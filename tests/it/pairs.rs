//! `likewise guard` and `likewise evaluate pairs`: what they say of pairs of questions, and of files that are none.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::model;
use crate::program::output;

/// Runs a command that needs no server; what it prints, or its error.
fn run(arguments: &[&OsStr]) -> Result<String, String> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    let done = output(program.args(arguments).env("LIKEWISE_LOG", "error"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
}

#[test]
fn the_rules_say_what_they_find_in_pairs() {
    let dir = TempDir::new().unwrap();
    let (pairs, words) = (dir.path().join("pairs.jsonl"), dir.path().join("words"));
    let guard = |more: &[&Path]| {
        let arguments = [Path::new("guard"), &pairs].into_iter().chain(more.iter().copied());
        run(&arguments.map(Path::as_os_str).collect::<Vec<_>>())
    };
    let line =
        r#"{"a": "How do I sharpen the wimble?", "b": "How do I sharpen the drill?", "id": 7, "allowed": 1}"#;
    fs_err::write(&pairs, format!("{line}\n\n{line}\n")).unwrap();
    let checked = guard(&[]).unwrap();
    assert_eq!(checked.lines().count(), 2);
    let first: Value = serde_json::from_str(checked.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["id"], &first["allowed"]["strict"], &first["exact_only_a"]),
        (&json!(7), &json!(false), &Value::Null)
    );
    assert_eq!(first["canonical_b"], "how do i sharpen the drill");
    assert_eq!(first["conflicts"][0]["kind"], "substitution");
    // What it has written can be checked again.
    fs_err::write(&pairs, &checked).unwrap();
    assert_eq!(guard(&[]).unwrap(), checked);
    fs_err::create_dir_all(words.join("en")).unwrap();
    fs_err::write(words.join("en/synonyms.txt"), "wimble = drill\n").unwrap();
    assert!(guard(&[Path::new("--words-dir"), &words]).unwrap().contains(r#""strict":true"#));
    fs_err::write(words.join("en/synonyms.txt"), "wimble <> drill\n").unwrap();
    let error = guard(&[Path::new("--words-dir"), &words]).unwrap_err();
    assert!(error.contains("synonyms.txt") && error.contains("wimble <> drill"), "{error}");
    for (bytes, named) in [
        (&b"{\"a\": \"x\", \"b\": \"y\"}\n{\"a\": 1, \"b\": \"y\"}\n"[..], "line: 2"),
        (b"\n{\"a\": \"x\"}\n", "line: 2"),
        (b"\xff\xfe\n", "line: 1"),
    ] {
        fs_err::write(&pairs, bytes).unwrap();
        let error = guard(&[]).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_stream_of_questions_is_evaluated() {
    let dir = TempDir::new().unwrap();
    let (questions, chart) = (dir.path().join("questions.jsonl"), dir.path().join("chart.svg"));
    let model = model::dir();
    let run_on = |command: &[&str], more: &[&OsStr]| {
        let mut arguments: Vec<&OsStr> = command.iter().map(|word| OsStr::new(*word)).collect();
        arguments.extend([questions.as_os_str(), "--model".as_ref(), model.as_os_str()]);
        arguments.extend(more);
        run(&arguments)
    };
    let lines = [
        r#"{"text": "Can I pay in cash?", "answer": "cash"}"#,
        r#"{"text": "can I pay in cash", "answer": "cash"}"#,
        r#"{"text": "Can I pay in cash?", "answer": "cash"}"#,
        r#"{"text": "Can I pay in cash?", "answer": "other"}"#,
        r#"{"text": "Where is my order?"}"#,
    ];
    fs_err::write(&questions, lines.join("\n")).unwrap();
    let in_order = [OsStr::new("--in-order"), "--chart".as_ref(), chart.as_os_str()];
    let said = run_on(&["evaluate", "questions"], &in_order).unwrap();
    assert!(said.starts_with("5 questions, 3 different; the right answer of 4 is known"), "{said}");
    // Of the two hits one has another right answer than the first time; of the two that had been stored one got it.
    assert!(
        said.contains(
            "| exact | - | on a miss | 40.0 % (11.8-76.9) | 0.0 % (0.0-43.4) | 50.0 % (9.5-90.5) | 20.0 %"
        ),
        "{said}"
    );
    assert!(said.contains("| normalized | - | on a miss | 60.0 %"), "{said}");
    assert!(fs_err::read_to_string(&chart).unwrap().contains("strict, verifier"));
    let error =
        run_on(&["evaluate", "questions"], &["--similarity-min".as_ref(), "0.5".as_ref()]).unwrap_err();
    assert!(error.contains("--similarity-min must be from 0.7 to 1"), "{error}");
    let error = run_on(&["calibrate"], &[]).unwrap_err();
    assert!(error.contains("each question must have its answer"), "{error}");
    fs_err::write(&questions, lines[..4].join("\n")).unwrap();
    let error = run_on(&["calibrate"], &[]).unwrap_err();
    assert!(error.contains("there is no verifier"), "{error}");
}

#[test]
fn judged_pairs_are_evaluated() {
    let dir = TempDir::new().unwrap();
    let pairs = dir.path().join("pairs.jsonl");
    let model = model::dir();
    let evaluate = |more: &[&str]| {
        let mut arguments = vec!["evaluate".as_ref(), "pairs".as_ref(), pairs.as_os_str()];
        arguments.extend(["--model".as_ref(), model.as_os_str()]);
        arguments.extend(more.iter().map(|argument| OsStr::new(*argument)));
        run(&arguments)
    };
    let lines = [
        r#"{"a": "Can I pay in cash?", "b": "Can I pay in cash?", "label": 1, "kind": "equal", "lang": "en"}"#,
        r#"{"a": "Can I pay 5 euros?", "b": "Can I pay 6 euros?", "label": 0, "kind": "number", "lang": "en"}"#,
        r#"{"a": "Cancel my order", "b": "Cancel my order", "label": 1, "kind": "act", "lang": "en"}"#,
    ];
    fs_err::write(&pairs, lines.join("\n")).unwrap();
    let said = evaluate(&["--similarity-min", "0"]).unwrap();
    assert!(said.starts_with("3 pairs: 2 the same, 1 others; 1 with a question"), "{said}");
    // The model of the tests has no verifier, which therefore agrees to nothing.
    for row in [
        "| same | equal | en | 1 | 100.0 % | 100.0 % | 100.0 % | 0.0 % | 0.0 % |",
        "| same | act | en | 1 | 100.0 % | 0.0 % | 0.0 % | 0.0 % | 0.0 % |",
        "| other | number | en | 1 | 100.0 % | 0.0 % | 0.0 % | 0.0 % | 0.0 % |",
    ] {
        assert!(said.contains(row), "{row}\n{said}");
    }
    for min in ["7", "NaN"] {
        assert!(evaluate(&["--similarity-min", min]).unwrap_err().contains("from 0 to 1"));
    }
    for (text, named) in [
        ("\n{\"a\": \"x\", \"b\": \"y\", \"label\": 2}", "line: 2"),
        ("", "there are no questions"),
        ("{\"text\": \"x\"}", "there are no pairs"),
    ] {
        fs_err::write(&pairs, text).unwrap();
        let error = evaluate(&[]).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}
