//! `likewise get`, `put`, `invalidate`, `list`, `import`, `export` and `evaluate`, as scripts use them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::model;
use crate::program::{Server, output};

fn run(server: &Server, arguments: &[&str], input: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(arguments).env("LIKEWISE_URL", server.url()).env("LIKEWISE_LOG", "warn");
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("stdin is open");
    child.wait_with_output().expect("the program ends")
}

#[tokio::test]
async fn objects_are_put_got_and_invalidated_from_scripts() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let file = dir.path().join("object");
    let put =
        ["put", "productos", "a/ñ", "-", "--tags", "x,y", "--ttl", "60", "--content-type", "text/plain"];
    let put = run(&server, &put, "camiseta azul");
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    let got = run(&server, &["get", "products", "a/ñ"], "");
    assert_eq!((got.status.code(), &*got.stdout), (Some(0), "camiseta azul".as_bytes()));
    let got = run(&server, &["get", "products", "a/ñ", "--output", file.to_str().unwrap()], "");
    assert!(got.status.success() && fs_err::read(&file).unwrap() == "camiseta azul".as_bytes());
    let counted = run(&server, &["invalidate", "--tag", "y", "--dry-run"], "");
    assert!(String::from_utf8_lossy(&counted.stdout).contains("\"memory\":1"));
    assert!(run(&server, &["invalidate", "--namespace", "products", "--key", "b"], "").status.success());
    assert!(run(&server, &["get", "products", "a/ñ"], "").status.success());
    assert!(run(&server, &["invalidate", "--entity", "x:1"], "").status.success());
    assert!(run(&server, &["invalidate", "--tag", "x", "--tag", "z"], "").status.success());
    let missing = run(&server, &["get", "products", "a/ñ"], "");
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("not cached"));
    let refused = run(&server, &["put", "products", "k", "-", "--tags", "a b"], "x");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(run(&server, &["invalidate", "--tag", "x", "--all"], "").status.code(), Some(2));
    assert_eq!(run(&server, &["invalidate"], "").status.code(), Some(2));
}

#[tokio::test]
async fn the_health_of_a_server_is_an_exit_code() {
    let server = Server::start();
    let healthy = run(&server, &["health"], "");
    assert_eq!((healthy.status.code(), &*healthy.stdout), (Some(0), &b"ready\n"[..]));
    let mut behind_a_proxy = Command::new(env!("CARGO_BIN_EXE_likewise"));
    behind_a_proxy.args(["health", "--url", server.url()]).env_remove("NO_PROXY").env_remove("no_proxy");
    let nothing = "http://127.0.0.1:9";
    assert!(output(behind_a_proxy.env("HTTP_PROXY", nothing).env("http_proxy", nothing)).status.success());
    let url = server.url().to_owned();
    assert!(server.stop().success());
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    let gone = output(program.args(["health", "--url", &url]));
    let said = String::from_utf8_lossy(&gone.stderr);
    assert!(gone.status.code() == Some(1) && said.contains("cannot reach the server"), "{said}");
}

#[tokio::test]
async fn namespaces_and_entries_are_listed_from_scripts() {
    let server = Server::start();
    for n in 0..3 {
        let put = ["put", "products", &format!("tea/{n}"), "-", "--tags", "x,y", "--ttl", "60"];
        assert!(run(&server, &put, "green").status.success());
    }
    assert!(run(&server, &["put", "products", "a\u{1}b", "-"], "x").status.success());
    let listed = |arguments: &[&str]| {
        let done = run(&server, arguments, "");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        let mut lines: Vec<String> =
            String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let first = |line: &String| line.split('\t').next().unwrap().to_owned();
    let keys: Vec<String> = listed(&["list", "productos"]).iter().map(first).collect();
    assert_eq!(keys, ["\"a\\u{1}b\"", "tea/0", "tea/1", "tea/2"]);
    let tea = listed(&["list", "products", "--prefix", "tea/"]);
    assert!(tea.len() == 3 && tea[0].starts_with("tea/0\t5\t") && tea[0].ends_with("\tx,y"), "{tea:?}");
    let tagged = listed(&["list", "--tag", "y", "--json"]);
    let entry: serde_json::Value = serde_json::from_str(&tagged[0]).unwrap();
    assert_eq!((tagged.len(), &entry["namespace"]), (3, &"products".into()));
    let namespaces = listed(&["list"]);
    assert!(namespaces.iter().any(|line| line.starts_with("products\t4\t")), "{namespaces:?}");
    assert!(listed(&["list", "--json"]).iter().all(|line| line.starts_with('{')));
    let nothing = |arguments: &[&str]| {
        let done = run(&server, arguments, "");
        assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    let said = nothing(&["list", "unheard-of"]);
    assert!(said.contains("namespace `unheard-of`: it is empty, or unknown; `likewise list`"), "{said}");
    assert!(nothing(&["list", "products", "--prefix", "coffee"]).contains("begins with `coffee`"));
    assert!(nothing(&["list", "--tag", "none", "--json"]).contains("carries the tag `none`"));
    assert!(run(&server, &["list", "products"], "").stderr.is_empty());
    let refused = run(&server, &["list", "a b"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("namespace"));
    assert_eq!(run(&server, &["list", "products", "--tag", "x"], "").status.code(), Some(2));
}

#[tokio::test]
async fn documents_are_imported_and_exported_as_lines_and_as_an_array() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let lines = |name: &str| fs_err::read_to_string(dir.path().join(name)).unwrap();
    let succeeds = |arguments: &[&str]| {
        let done = run(&server, arguments, "");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        done
    };
    let document = |n: usize| {
        format!(
            "{{\"id\":\"{n}\",\"metadata\":{{\"n\":{n}}},\"tags\":[\"t:{n}\"],\"vector\":[{n}.5,-1.0]}}\n"
        )
    };
    let all: String = (0..700).map(document).collect();
    fs_err::write(dir.path().join("points.jsonl"), &all).unwrap();
    succeeds(&["import", "points", &path("points.jsonl"), "--metric", "l2"]);
    let exported = succeeds(&["export", "points", "-", "--vectors"]);
    assert_eq!(String::from_utf8_lossy(&exported.stdout), all);
    succeeds(&["export", "points", &path("points.npy")]);
    let array = fs_err::read(dir.path().join("points.npy")).unwrap();
    assert_eq!(array.len(), 128 + 700 * 2 * 4);
    assert!(lines("ids.jsonl").starts_with("{\"id\":\"0\",\"metadata\":{\"n\":0},\"tags\":[\"t:0\"]}\n"));
    succeeds(&["import", "copy", &path("points.npy"), "--metric", "l2"]);
    succeeds(&["export", "copy", &path("copy.jsonl"), "--vectors"]);
    assert_eq!(lines("copy.jsonl"), all);

    // Another array beside it has other rows.
    let refused = run(&server, &["export", "copy", &path("copy.npy")], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--ids"));
    succeeds(&["export", "copy", &path("copy.npy"), "--ids", &path("copy-ids.jsonl")]);
    let refused = run(&server, &["import", "copy", &path("copy.npy"), "--metric", "cosine"], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("exists with l2"));
    let mut longer = fs_err::read(path("copy.npy")).unwrap();
    longer.push(0);
    fs_err::write(path("longer.npy"), longer).unwrap();
    let refused = run(&server, &["import", "copy", &path("longer.npy")], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bytes of numbers"));
    let marked = format!("\u{feff}{}\n\n", lines("copy.jsonl").lines().next().unwrap());
    fs_err::write(path("marked.jsonl"), marked).unwrap();
    let stored = succeeds(&["import", "copy", &path("marked.jsonl")]);
    assert!(String::from_utf8_lossy(&stored.stderr).contains("stored 1 documents"));

    fs_err::write(dir.path().join("bad.jsonl"), "{\"id\":\"1\",\"vector\":[1,0]}\nnot json\n").unwrap();
    let refused = run(&server, &["import", "points", &path("bad.jsonl")], "");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("line 2: "), "{said}");
    fs_err::write(dir.path().join("ids.jsonl"), "\"0\"\n").unwrap();
    let refused = run(&server, &["import", "points", &path("points.npy")], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("700 vectors, and 1 lines"));
    assert_eq!(run(&server, &["export", "absent", "-"], "").status.code(), Some(3));
    assert!(server.stop().success());
    let verified = output(Command::new(env!("CARGO_BIN_EXE_likewise")).arg("verify").arg(dir.path()));
    let table = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && table.contains("points.manifest"), "{table}");
}

#[test]
fn an_import_waits_for_a_server_that_is_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let busy = std::thread::spawn(move || {
        let answers =
            [("200 OK", r#"{"metric":"cosine"}"#), ("429 Too Many Requests", "{}"), ("200 OK", "{}")];
        for (status, body) in answers {
            let (connection, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(connection);
            let head: Vec<String> =
                reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let length = head
                .iter()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            reader.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("one.jsonl");
    fs_err::write(&file, "{\"id\": \"1\", \"text\": \"uno\"}\n").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    let imported = output(program.args(["import", "points"]).arg(&file).env("LIKEWISE_URL", url));
    let said = String::from_utf8_lossy(&imported.stderr).into_owned();
    assert!(imported.status.success() && said.contains("stored 1 documents"), "{said}");
    busy.join().unwrap();
}

#[test]
fn the_cost_of_repeated_questions_is_reported() {
    let dir = TempDir::new().unwrap();
    let questions = dir.path().join("questions.txt");
    fs_err::write(&questions, "What is it?\nwhat is it\nWhere is it?\n\nWho is it?\n").unwrap();
    let evaluate = |mode: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.args(["evaluate", "answers"]).arg(&questions).args(["--mode", mode, "--requests", "300"]);
        program.args(["--upstream-ms", "0", "--model"]).arg(model::dir()).env("LIKEWISE_LOG", "warn");
        let done = output(&mut program);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let exact = evaluate("exact");
    assert!(exact.starts_with("300 requests, Zipf 0.9, over 4 questions in 4 wordings"), "{exact}");
    assert!(exact.contains("wrong answers not known"), "{exact}");
    assert!(exact.contains("hit rate 98.7 %") && exact.contains("upstream calls 4\n"), "{exact}");
    assert!(evaluate("normalized").contains("upstream calls 3\n"), "two spellings are one question");
}

#[test]
fn a_local_model_is_measured() {
    let bench = |model: &str, seconds: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.args(["bench", "embed", "--model", model, "--seconds", seconds]).env("LIKEWISE_LOG", "warn");
        let output = output(&mut program);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let dir = model::dir();
    let dir = dir.to_str().unwrap();
    let (code, report, said) = bench(dir, "0.01");
    assert_eq!(code, Some(0), "{said}");
    let rows: Vec<Vec<&str>> = report
        .lines()
        .filter(|line| line.starts_with("| f32"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[2]).collect();
    assert_eq!(names, ["short", "mixed", "long"], "{report}");
    for row in &rows {
        let [tokens, texts_a_second, tokens_a_second] =
            [3, 4, 6].map(|cell| row[cell].parse::<f64>().unwrap());
        assert!(tokens >= 1.0 && row[7].trim_end_matches(" %").parse::<f64>().is_ok(), "{report}");
        // Both are rounded.
        let product = texts_a_second * tokens;
        assert!((tokens_a_second - product).abs() <= 0.5 * (texts_a_second + tokens) + 1.0, "{report}");
    }
    assert!(report.ends_with("ms (95 %)\n"), "{report}");
    for (model, seconds, named) in
        [("none", "1", "--model"), (dir, "0", "--seconds"), (dir, "nan", "--seconds")]
    {
        let (code, _, said) = bench(model, seconds);
        assert!(code == Some(1) && said.contains(named), "{code:?}: {said}");
    }
}
