//! `likewise embed`: the batch job, from lines and tables to lines and arrays.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::model;
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
fn json_lines_keep_their_ids_and_a_bad_line_is_left_out() {
    let dir = TempDir::new().unwrap();
    let (data, texts) = (dir.path().join("data"), dir.path().join("texts.jsonl"));
    fs_err::write(&texts, "{\"id\":\"p-1\",\"text\":\"queso\"}\n{\"text\":\"vino\",\"price\":3}\n").unwrap();
    let job = output(likewise("embed", &data).arg(&texts));
    let rows = lines(&job.stdout);
    assert_eq!((&rows[0]["id"], &rows[1]["id"]), (&Value::from("p-1"), &Value::from(1)));

    fs_err::write(&texts, "{\"text\":\"queso\"}\n{\"txt\":\"vino\"}\n{\"text\":\"pan\"}\n").unwrap();
    let job = output(likewise("embed", &data).arg(&texts));
    let said = String::from_utf8(job.stderr).unwrap();
    assert_eq!(job.status.code(), Some(3), "{said}");
    assert!(said.contains("line 2: text is missing"), "{said}");
    assert!(
        said.contains("embedded 2 texts: 1 from the cache, 1 by the model, 0 repeated, left out 1"),
        "{said}"
    );
    let rows = lines(&job.stdout);
    assert_eq!(rows.iter().map(|row| &row["id"]).collect::<Vec<_>>(), [0, 2]);
}

/// Of a table, and of texts that the model does not take, each wrong one is named; array and documents have the others.
#[tokio::test]
async fn a_table_becomes_an_array_that_is_imported() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let data = path("data");
    let long = "x".repeat(2000);
    let table =
        format!("sku,title\n7,\"zumo\nde \"\"naranja\"\"\"\n8\n9,{long}\n10,pan integral\n11,pan integral\n");
    fs_err::write(path("products.csv"), table).unwrap();
    let embed = |more: &[&str]| {
        let mut program = likewise("embed", &data);
        program.arg(path("products.csv")).args(["--text-column", "title", "--id-column", "sku"]).args(more);
        let done = output(program.env("LIKEWISE__EMBEDDINGS__TEXT_BYTES_MAX", "1000"));
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    let array = path("products.npy");
    let (code, said) = embed(&["--output", array.to_str().unwrap(), "--dry-run"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("4 texts, 3 distinct: 0 in the cache, 3 to embed with "), "{said}");
    assert!(!array.exists());
    let (code, said) = embed(&["--output", array.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("line 4: the record has too few fields"), "{said}");
    assert!(said.contains("line 5: ") && said.contains("at most 1000 bytes"), "{said}");
    assert!(
        said.contains("embedded 3 texts: 0 from the cache, 2 by the model, 1 repeated, left out 2"),
        "{said}"
    );
    let ids = lines(&fs_err::read(path("ids.jsonl")).unwrap());
    assert_eq!(ids.iter().map(|row| &row["id"]).collect::<Vec<_>>(), ["7", "10", "11"]);
    assert_eq!(ids[0]["text"], "zumo\nde \"naranja\"");
    let bytes = fs_err::read(&array).unwrap();
    let row = (bytes.len() - 128) / 3;
    assert_eq!(bytes[128 + row..128 + 2 * row], bytes[128 + 2 * row..]);
    let (_, said) = embed(&["--dry-run"]);
    assert!(said.contains("2 in the cache, 1 to embed"), "{said}");
    let partial = fs_err::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    assert!(!partial.into_iter().any(|path| path.extension().is_some_and(|ending| ending == "partial")));

    let server = Server::start_in(&data, &[]);
    let mut import = Command::new(env!("CARGO_BIN_EXE_likewise"));
    import.args(["import", "products"]).arg(&array).env("LIKEWISE_URL", server.url());
    let done = output(&mut import);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let document = server.get("/v1/collections/products/documents/10").await;
    assert_eq!(document.body["text"], "pan integral", "{}", document.body);
}

/// A Parquet file that was written is one that is read, and its texts are cached by then.
#[test]
fn a_parquet_file_is_written_and_read() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs_err::write(path("texts.jsonl"), "{\"id\":\"p-1\",\"text\":\"queso\"}\n{\"text\":\"vino\"}\n").unwrap();
    let embed = |from: &str, to: &str| {
        let mut program = likewise("embed", &path("data"));
        let done = output(program.arg(path(from)).arg("--output").arg(path(to)));
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{said}");
        said
    };
    embed("texts.jsonl", "vectors.parquet");
    let said = embed("vectors.parquet", "again.jsonl");
    assert!(said.contains("embedded 2 texts: 2 from the cache, 0 by the model, 0 repeated"), "{said}");
    let again = lines(&fs_err::read(path("again.jsonl")).unwrap());
    assert_eq!(
        (&again[0]["id"], &again[1]["id"], &again[1]["text"]),
        (&"p-1".into(), &"1".into(), &"vino".into())
    );
}

#[test]
fn the_configured_model_is_chosen_by_its_name() {
    let dir = TempDir::new().unwrap();
    let texts = dir.path().join("texts.txt");
    fs_err::write(&texts, "uno\n").unwrap();
    let embed = |name: &str| {
        let mut program = likewise("embed", &dir.path().join("data"));
        let done = output(program.arg(&texts).args(["--model-name", name]));
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert_eq!(embed(model::NAME).0, Some(0));
    let (code, said) = embed("another");
    assert!(code == Some(1) && said.contains("the model `another` is not served"), "{said}");
}
