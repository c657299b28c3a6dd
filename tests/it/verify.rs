//! `likewise verify`, as an operator meets it.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::endpoint::Endpoint;
use crate::program::{Server, output, remote};

fn verify(dir: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        output(Command::new(env!("CARGO_BIN_EXE_likewise")).arg("verify").arg(dir).args(flags));
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[tokio::test]
async fn the_exit_code_says_how_a_directory_was_found() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    server.post_raw(r#"{"model":"mock","input":["uno","dos"]}"#).await;
    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(2), "a server uses it: {said}");
    assert!(said.contains("another process"), "{said}");
    assert!(server.stop().success());

    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 entries") && said.contains("0 damaged"), "{said}");

    let segment = dir.path().join("vectors/0000000001.seg");
    let mut bytes = fs_err::read(&segment).unwrap();
    bytes[0] ^= 1;
    fs_err::write(&segment, &bytes).unwrap();
    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("DAMAGED"), "{said}");

    let (code, said) = verify(dir.path(), &["--repair"]);
    assert_eq!(code, Some(0), "{said}");
    let aside =
        fs_err::read_dir(dir.path()).unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert!(aside.into_iter().any(|name| name.starts_with("damaged-")), "{said}");
    assert_eq!(verify(dir.path(), &[]).0, Some(0));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let (code, said) = verify(Path::new("no-such-directory"), &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no-such-directory"), "{said}");
}
