//! `likewise embed`: the batch job.

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Server, likewise, output};

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_batch_job_fills_the_cache_that_the_server_serves_from() {
    let dir = TempDir::new().unwrap();
    let (data, texts) = (dir.path().join("data"), dir.path().join("texts.txt"));
    fs_err::write(&texts, "zumo de naranja\n\npan integral\nzumo de naranja\n").unwrap();
    let first = output(likewise("embed", &data).arg(&texts));
    let said = String::from_utf8(first.stderr).unwrap();
    assert!(first.status.success(), "{said}");
    assert!(said.contains("3 texts: 0 from the cache, 2 by the model, 1 repeated"), "{said}");
    let rows = lines(&first.stdout);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1]["text"], "pan integral");
    assert_eq!(rows[0]["embedding"], rows[2]["embedding"]);

    let server = Server::start_in(&data, &[]);
    let answer = server.embed(&["pan integral"]).await;
    assert_eq!(answer.counts(), (1, 0, 0));
    let served: Vec<f64> = answer.vectors()[0].iter().map(|&x| f64::from(x)).collect();
    let written: Vec<f64> = rows[1]["embedding"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| f64::from(x.as_f64().unwrap() as f32))
        .collect();
    assert_eq!(served, written);
}

#[test]
fn json_lines_keep_their_ids_and_a_bad_line_is_named() {
    let dir = TempDir::new().unwrap();
    let (data, texts) = (dir.path().join("data"), dir.path().join("texts.jsonl"));
    fs_err::write(&texts, "{\"id\":\"p-1\",\"text\":\"queso\"}\n{\"text\":\"vino\",\"price\":3}\n").unwrap();
    let job = output(likewise("embed", &data).arg(&texts));
    let rows = lines(&job.stdout);
    assert_eq!((&rows[0]["id"], &rows[1]["id"]), (&Value::from("p-1"), &Value::from(1)));

    fs_err::write(&texts, "{\"text\":\"queso\"}\n{\"txt\":\"vino\"}\n").unwrap();
    let job = output(likewise("embed", &data).arg(&texts));
    let said = String::from_utf8(job.stderr).unwrap();
    assert!(!job.status.success() && said.contains("line: 2") && said.contains("text"), "{said}");
    assert!(job.stdout.is_empty());
}
