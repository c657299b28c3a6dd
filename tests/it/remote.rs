//! A model behind an endpoint, through the whole server.

use serde_json::json;
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote, vector};
use crate::program::{Server, output, until};

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
async fn a_failure_reaches_every_waiter_and_is_not_cached() {
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

#[tokio::test]
async fn a_text_that_the_endpoint_refuses_fails_only_its_own_request() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let mut program = remote(dir.path(), &endpoint.url);
    program
        .env("LIKEWISE__EMBED__REMOTE__REQUESTS_MAX", "1")
        .env("LIKEWISE__EMBED__REMOTE__API_KEY_ENV", "THEIR_KEY");
    let server = Server::spawn(program.env("THEIR_KEY", "k3y-of-the-operator"));
    for (status, code) in
        [(400, "invalid_input"), (413, "too_large"), (422, "unprocessable"), (401, "upstream_error")]
    {
        let message = "mal, k3y-of-the-operator at http://127.0.0.1/v1";
        endpoint.refuse("malo", status, message);
        // The first keeps the only place at the endpoint until the others wait together.
        let held = endpoint.hold().await;
        let name = |word: &str| format!("{word} {status}");
        let first = server.post_raw(ask(&[&name("primero")]));
        let others = async {
            until("the first is at the endpoint", async || endpoint.texts_of("primero", status) == 1).await;
            let good: Vec<String> = (0..5).map(|n| name(&format!("bueno {n}"))).collect();
            let release = async {
                until("the others wait", async || server.stat("/model/queued_texts").await == 6).await;
                drop(held);
            };
            let asked =
                good.iter().map(String::as_str).chain(["malo"]).map(|text| server.post_raw(ask(&[text])));
            futures_util::future::join(futures_util::future::join_all(asked), release).await.0
        };
        let (first, mut others) = futures_util::future::join(first, others).await;
        let refused = others.pop().unwrap();
        let is_operators = code == "upstream_error";
        let expected = if is_operators { 502 } else { 200 };
        assert_eq!(first.status, 200);
        let statuses: Vec<u16> = others.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [expected; 5], "{status}");
        assert_eq!((refused.status, refused.error().0), (if is_operators { 502 } else { status }, code));
        let said = refused.body["error"]["message"].as_str().unwrap();
        assert_eq!(
            said.contains("mal, *** at ***") && said.starts_with("input[0]: "),
            !is_operators,
            "{said}"
        );
        assert!(!said.contains("k3y") && !said.contains("127.0.0.1"), "{said}");
    }
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
