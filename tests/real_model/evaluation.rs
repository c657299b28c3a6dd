//! What `likewise evaluate` and `likewise calibrate` print of judged data.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::model;
use crate::program::{SEMANTIC_WAITS, Server, output};

/// What a command prints about a file, with the real model.
fn said(command: &[&str], file: &Path, more: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(command).arg(file).arg("--model").arg(model::dir()).args(more).envs(SEMANTIC_WAITS);
    let done = output(&mut program);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

const THINGS: [&str; 6] = ["kettle", "tent", "printer", "suitcase", "guitar", "toaster"];

#[test]
fn questions_that_repeat_in_other_words_are_hits_and_none_is_wrong() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("questions.jsonl");
    let mut lines = String::new();
    for thing in THINGS {
        for text in
            [format!("How much does the {thing} weigh?"), format!("What is the weight of the {thing}?")]
        {
            let _ = writeln!(lines, "{}", json!({ "text": text, "answer": thing }));
        }
    }
    fs_err::write(&file, lines).unwrap();
    let more = ["--mode", "semantic", "--requests", "200", "--upstream-ms", "1", "--concurrency", "1"];
    let said = said(&["evaluate", "answers"], &file, &more);
    assert!(said.contains("over 6 questions in 12 wordings"), "{said}");
    assert!(said.contains("wrong answers 0.0 %") && said.contains("upstream calls 6\n"), "{said}");
}

#[tokio::test]
async fn a_threshold_follows_from_judged_pairs_and_a_budget() {
    let dir = TempDir::new().unwrap();
    let (file, out) = (dir.path().join("pairs.jsonl"), dir.path().join("calibration.json"));
    let mut lines = String::new();
    for number in 0..300 {
        let (thing, is_same) = (THINGS[number % 6], number % 2 == 0);
        let other = if is_same { number } else { number + 1 };
        let stored = format!("How much does the {thing} number {number} weigh?");
        let asked = format!("What is the weight of the {thing} number {other}?");
        let _ = writeln!(lines, "{}", json!({ "a": stored, "b": asked, "label": u8::from(is_same) }));
    }
    fs_err::write(&file, lines).unwrap();
    let said = said(&["calibrate"], &file, &["--out", out.to_str().unwrap()]);
    assert!(said.starts_with("300 searches; 150 have a candidate"), "{said}");
    assert!(said.contains("| 0.5 % | too few searches"), "{said}");
    let setting = |name: &'static str, value| (name, value);
    let budget = setting("LIKEWISE__ANSWERS__SEMANTIC__WRONG_SHARE_MAX", "0.02");
    let calibration = setting("LIKEWISE__ANSWERS__SEMANTIC__CALIBRATION_FILE", out.to_str().unwrap());
    let server = Server::start_in(&dir.path().join("data"), &[budget, calibration]);
    let explained =
        server.ask("POST", "/v1/answers/explain", &[], json!({ "prompt": "Is it heavy?" }).to_string());
    let explained = explained.await.body;
    assert_eq!(explained["similarity_min"], json!(0.75), "{explained}");
    assert_eq!(server.stat("/answers/semantic/wrong").await, 0);
    let given = json!({ "prompt": "How much does the tent weigh?", "answer": "2 kg", "semantic": true });
    assert_eq!(server.ask("POST", "/v1/answers", &[], given.to_string()).await.status, 201);
    let asked = json!({ "prompt": "What is the weight of the tent?", "semantic": true });
    let found: Value = server.ask("POST", "/v1/answers/lookup", &[], asked.to_string()).await.body;
    assert_eq!(found["answer"], "2 kg", "{found}");
    let id = found["id"].clone();
    let feedback = json!({ "prompt": "What is the weight of the tent?", "id": id, "correct": false });
    assert_eq!(server.ask("POST", "/v1/answers/feedback", &[], feedback.to_string()).await.status, 200);
    assert_eq!(server.stat("/answers/semantic/wrong").await, 1);
}

#[test]
fn searches_are_judged_on_data_in_the_layout_of_beir() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs_err::write(dir.path().join(name), text).unwrap();
    let corpus = [("a", "coffee machine"), ("b", "winter scarf"), ("c", "running shoes")];
    let corpus =
        corpus.map(|(id, text)| format!("{{\"_id\": \"{id}\", \"title\": \"\", \"text\": \"{text}\"}}\n"));
    write("corpus.jsonl", &corpus.concat());
    write(
        "queries.jsonl",
        "{\"_id\": \"1\", \"text\": \"espresso\"}\n{\"_id\": \"2\", \"text\": \"cold neck\"}\n",
    );
    write("qrels.tsv", "query-id\tcorpus-id\tscore\n1\ta\t1\n2\tb\t2\n");
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(["evaluate", "search"]).arg(dir.path()).arg("--model").arg(model::dir());
    let judged = output(program.arg("--data-dir").arg(dir.path().join("data")));
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    assert!(said.contains("3 documents, 2 judged queries") && said.contains("nDCG@10 1.0000"), "{said}");
}
