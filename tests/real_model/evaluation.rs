//! Judgements of searches, as `likewise evaluate search` prints them.

use std::process::Command;

use tempfile::TempDir;

use crate::model;
use crate::program::output;

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
