//! A model behind an endpoint, through the whole server.

use serde_json::json;
use tempfile::TempDir;

use crate::endpoint::{Endpoint, vector};
use crate::program::{Server, output, remote};

fn start(dir: &TempDir, endpoint: &Endpoint) -> Server {
    Server::spawn(&mut remote(dir.path(), &endpoint.url))
}

fn ask(texts: &[&str]) -> String {
    json!({ "model": "mock", "input": texts }).to_string()
}

#[tokio::test]
async fn vectors_come_to_their_own_places_and_each_text_is_sent_once() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start(&dir, &endpoint);
    let texts = ["uno", "dos", "tres", "dos"];
    let first = server.post_raw(ask(&texts)).await;
    assert_eq!(first.counts(), (0, 3, 1), "{}", first.body);
    for (text, numbers) in texts.iter().zip(first.vectors()) {
        assert_eq!(numbers, vector(text, numbers[0] as u32));
    }
    let again = server.post_raw(ask(&texts)).await;
    assert_eq!(again.counts(), (4, 0, 0));
    assert_eq!(again.vectors(), first.vectors());
    assert_eq!(endpoint.texts(), 3);
}

#[tokio::test]
async fn a_failure_is_told_to_every_waiter_and_cached_by_none() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server =
        Server::spawn(remote(dir.path(), &endpoint.url).env("LIKEWISE__EMBED__REMOTE__RETRIES_MAX", "1"));
    endpoint.fail(2);
    let waiters = futures_util::future::join_all((0..8).map(|_| server.post_raw(ask(&["lámpara"])))).await;
    let refused = waiters.iter().filter(|answer| answer.status != 200).count();
    assert!(refused >= 1, "the attempt and its one repetition fail");
    for answer in waiters.iter().filter(|answer| answer.status != 200) {
        assert_eq!((answer.status, answer.error()), (502, ("upstream_error", None)));
    }
    let healed = server.post_raw(ask(&["lámpara"])).await;
    assert_eq!(healed.status, 200, "{}", healed.body);
    let again = server.post_raw(ask(&["lámpara"])).await;
    assert_eq!(again.counts(), (1, 0, 0));
}

#[tokio::test]
async fn a_failure_that_passes_is_tried_again() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start(&dir, &endpoint);
    endpoint.fail(2);
    let answer = server.post_raw(ask(&["mesa"])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(endpoint.texts(), 3);
}

#[test]
fn a_remote_model_that_is_half_described_is_named() {
    let dir = TempDir::new().unwrap();
    let refusal = |variable: &str, value: &str, word: &str| {
        let mut program = remote(dir.path(), "http://127.0.0.1:9/v1");
        program.env(variable, value);
        let refused = output(&mut program);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(word), "{said}");
    };
    refusal("LIKEWISE__EMBED__REMOTE__DIM", "0", "embed.remote.dim");
    refusal("LIKEWISE__EMBED__REMOTE__MODEL", "", "embed.remote.model");
    refusal("LIKEWISE__EMBED__REMOTE__BASE_URL", "ftp://a", "embed.remote.base_url");
    refusal("LIKEWISE__EMBED__REMOTE__API_KEY_ENV", "LIKEWISE_NO_SUCH_KEY", "LIKEWISE_NO_SUCH_KEY");
    refusal("LIKEWISE__MODEL__DIR", "/tmp", "not both");
}
