//! `likewise import` and `likewise embed` on files as they come: with faults, repeated ids, marks, and of other kinds.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::model;
use crate::program::{Server, output};

struct Imports {
    server: Server,
    dir: TempDir,
    _endpoint: Endpoint,
}

impl Imports {
    async fn start() -> Imports {
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        let mut program = remote(&dir.path().join("data"), &endpoint.url);
        program.env("LIKEWISE__EMBEDDINGS__TEXT_BYTES_MAX", "20000");
        Imports { server: Server::spawn(&mut program), dir, _endpoint: endpoint }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs_err::write(&path, content).unwrap();
        path
    }

    /// The exit code, and what was said.
    fn import(&self, collection: &str, file: &PathBuf, more: &[&str]) -> (Option<i32>, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.args(["import", collection]).arg(file).args(more).env("LIKEWISE_URL", self.server.url());
        let done = output(&mut program);
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    }

    /// Documents of a collection; none if there is none.
    async fn documents(&self, collection: &str) -> Option<u64> {
        self.server.get(&format!("/v1/collections/{collection}")).await.body["documents"].as_u64()
    }
}

/// A file as FAISS writes it: ids over flat rows, by the inner product (0) or the squared distance (1).
fn faiss(metric: u32, rows: &[(i64, [f32; 2])]) -> Vec<u8> {
    let count = rows.len() as u64;
    let unused = (1_u64 << 20).to_le_bytes();
    let head =
        [&2_u32.to_le_bytes()[..], &count.to_le_bytes(), &unused, &unused, &[1], &metric.to_le_bytes()]
            .concat();
    let tag: &[u8] = if metric == 1 { b"IxF2" } else { b"IxFI" };
    let mut file = [b"IxM2", &head[..], tag, &head, &(count * 2).to_le_bytes()].concat();
    rows.iter().flat_map(|(_, row)| row).for_each(|number| file.extend(number.to_le_bytes()));
    file.extend(count.to_le_bytes());
    rows.iter().for_each(|(id, _)| file.extend(id.to_le_bytes()));
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faiss_file_keeps_its_metric_and_conflicts_are_refused() {
    let own = Imports::start().await;
    let rows = [(100, [1.0, 0.0]), (101, [10.0, 1.0]), (102, [0.0, 1.0]), (103, [3.0, 3.0])];
    let l2 = own.file("l2.faiss", faiss(1, &rows));
    let product = own.file("product.faiss", faiss(0, &rows));
    let units = own.file("units", faiss(0, &[(1, [0.6, 0.8]), (2, [1.0, 0.0])]));
    let metric =
        async |name: &str| own.server.get(&format!("/v1/collections/{name}")).await.body["metric"].clone();
    let succeeds = |done: (Option<i32>, String)| assert_eq!(done.0, Some(0), "{}", done.1);
    let refused = |done: (Option<i32>, String), what: &str| {
        assert!(done.0 == Some(1) && done.1.contains(what), "{}", done.1);
    };
    succeeds(own.import("l2", &l2, &[]));
    assert_eq!(metric("l2").await, "l2");
    let body = r#"{"vector":[0.9,0.1],"k":4}"#;
    let found = own.server.ask("POST", "/v1/collections/l2/search", &[], body).await.body;
    let ids: Vec<&str> =
        found["results"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["100", "102", "103", "101"]);
    succeeds(own.import("product", &product, &[]));
    assert_eq!(metric("product").await, "inner_product");
    succeeds(own.import("units", &units, &["--metric", "cosine"]));
    assert_eq!(metric("units").await, "cosine");
    refused(own.import("none", &l2, &["--metric", "cosine"]), "compares by l2");
    refused(own.import("none", &product, &["--metric", "cosine"]), "compares by inner_product");
    refused(own.import("none", &l2, &["--metric", "manhattan"]), "cosine, inner_product or l2");
    refused(own.import("product", &l2, &[]), "compares by l2, the collection by inner_product");
    refused(own.import("units", &product, &[]), "compares by inner_product");
    succeeds(own.import("units", &units, &[]));
    assert_eq!((own.documents("none").await, own.documents("units").await), (None, Some(2)));
    let twice = own.file("twice.faiss", faiss(1, &[(7, [1.0, 0.0]), (7, [0.0, 1.0])]));
    refused(own.import("none", &twice, &[]), "row 2: the id \"7\" is that of number 1 already");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_reported_and_nothing_is_left_half_made() {
    let own = Imports::start().await;
    let line = |n: usize| format!("{{\"id\":\"{n}\",\"vector\":[{n},1]}}\n");
    let many: String = (0..600).map(line).collect();
    let bad = "{\"id\":\"5\",\"vector\":[1,2]}\nnot json\n{\"id\":\"x\",\"vector\":[1,2,3]}\n{\"id\":\"y\",\"vector\":[0,0]}\n";
    let file = own.file("bad.jsonl", format!("{many}{bad}"));
    let (code, said) = own.import("new", &file, &[]);
    assert_eq!(code, Some(1), "{said}");
    for expected in [
        "4 of 604 documents",
        "line 601: the id \"5\" is that of number 6 already",
        "line 602: cannot read a line",
        "line 603: the vector has 3 numbers, the others have 2",
        "line 604: the vector is zero",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(own.documents("new").await, None, "not even made");
    let (code, said) = own.import("new", &file, &["--continue"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stored 600 documents in new, left out 4") && said.contains("line 604"), "{said}");
    assert_eq!(own.documents("new").await, Some(600));
    let none = own.file("none.jsonl", "not json\n");
    assert_eq!(own.import("other", &none, &["--continue"]).0, Some(1));
    assert_eq!(own.documents("other").await, None);
    // An existing collection says what fits.
    let wide = own.file("wide.jsonl", "{\"id\":\"w\",\"vector\":[1,2,3]}\n{\"id\":\"t\",\"text\":\"uno\"}\n");
    let (code, said) = own.import("new", &wide, &[]);
    assert!(code == Some(1) && said.contains("the others have 2") && said.contains("no model"), "{said}");
    assert_eq!(own.documents("new").await, Some(600));
}

/// What only the server can know is asked before anything is stored, and what is made for an import that fails is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_leaves_nothing_half_made() {
    let own = Imports::start().await;
    let line = |id: &str, text: &str| format!("{{\"id\":\"{id}\",\"text\":\"{text}\"}}\n");
    let short: String = (0..300).map(|n| line(&n.to_string(), "uno")).collect();
    let file = own.file("long.jsonl", format!("{short}{}", line("long", &"x".repeat(30_000))));
    let (code, said) = own.import("texts", &file, &[]);
    assert!(code == Some(1) && said.contains("number: 301"), "{said}");
    assert_eq!(own.documents("texts").await, None);
    let (code, said) = own.import("texts", &file, &["--continue"]);
    assert!(code == Some(0) && said.contains("stored 300 documents in texts, left out 1"), "{said}");
    assert_eq!(own.documents("texts").await, Some(300));
    let mixed = own.file("mixed.jsonl", format!("{}{{\"id\":\"v\",\"vector\":[1,2]}}\n", line("t", "uno")));
    let (code, said) = own.import("mixed", &mixed, &[]);
    assert!(code == Some(1) && said.contains("384"), "{said}");
    assert_eq!(own.documents("mixed").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_kinds_are_named_and_marks_are_no_part_of_a_text() {
    let own = Imports::start().await;
    let zip = [&b"PK\x03\x04"[..], &[0; 26], b"a.npy\x93NUMPY"].concat();
    let cases: [(&str, &[u8], &str); 8] = [
        ("a.jsonl", b"\x1f\x8b\x08\0\0", "gzip"),
        ("b.npy", b"{\"id\":\"1\"}\n", "not an array of NumPy"),
        ("c.faiss", b"{\"id\":\"1\"}\n", "not an index of FAISS"),
        ("d.npz", &zip, ".npz"),
        ("e.parquet", b"PAR1\0\0PAR1", "Parquet"),
        ("f.h5", b"\x89HDF\r\n\x1a\n\0", "HDF5"),
        ("g.jsonl", b"\xff\xfe{\0\"\0", "UTF-16"),
        ("h.jsonl", b"\x00\x01\x02", "00 01 02"),
    ];
    for (name, content, what) in cases {
        let (code, said) = own.import("k", &own.file(name, content), &[]);
        assert!(code == Some(1) && said.contains(what), "{name}: {said}");
    }
    assert_eq!(own.documents("k").await, None);
    let marked = own.file("m.jsonl", "\u{feff}{\"id\":\"1\",\"vector\":[1,2]}\r\n\u{feff}\r\n");
    let (code, said) = own.import("k", &marked, &[]);
    assert!(code == Some(0) && said.contains("stored 1 documents"), "{said}");
}

#[test]
fn texts_are_embedded_without_their_byte_order_marks() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("texts.txt");
    fs_err::write(&file, "\u{feff}uno\r\n\u{feff}\r\n\u{feff}dos\n").unwrap();
    let embed = |file: &PathBuf| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.arg("embed").arg(file).arg("--model").arg(model::dir());
        output(program.arg("--data-dir").arg(dir.path().join("data")).env("LIKEWISE_LOG", "warn"))
    };
    let done = embed(&file);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let lines: Vec<Value> = done
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let texts: Vec<(&Value, &Value)> = lines.iter().map(|line| (&line["id"], &line["text"])).collect();
    assert_eq!(texts, [(&Value::from(0), &Value::from("uno")), (&Value::from(2), &Value::from("dos"))]);
    fs_err::write(&file, b"\xff\xfeu\0n\0").unwrap();
    let refused = embed(&file);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("UTF-16"), "{said}");
}
