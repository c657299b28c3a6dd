//! `likewise get`, `put` and `invalidate`, as scripts use them.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::endpoint::Endpoint;
use crate::program::{Server, remote};

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
