//! Goal: a response that its upstream has deleted is not served again, since its id would break the next turn of its client; nothing else is
//! hidden, and a replacement does not collect the ids of what it replaces. Method: clients of `/v1/responses` before an upstream that says what it has
//! deleted.

use serde_json::{Value, json};

use super::{is_hit, quiet, start, start_in, status, with};
use crate::program::{Answer, Server};
use crate::upstream::{Mode, Upstream};

const PATH: &str = "/v1/responses";
const JSON: (&str, &str) = ("content-type", "application/json");

fn input(text: &str) -> Value {
    json!({ "model": "gpt-5", "input": text })
}

async fn ask(server: &Server, body: &Value) -> Answer {
    server.ask("POST", PATH, &[], body.to_string()).await
}

/// Deletes a response, which the upstream answers with `code`.
async fn delete(server: &Server, upstream: &Upstream, id: &str, code: u16) -> Answer {
    let deleted = json!({ "id": id, "object": "response.deleted", "deleted": true });
    upstream.next(Mode::Reply(code, vec![JSON], deleted.to_string()));
    let answer = server.ask("DELETE", &format!("{PATH}/{id}"), &[], "").await;
    assert_eq!((answer.status, status(&answer)), (code, "fwd=bypass"));
    answer
}

fn id_of(answer: &Answer) -> String {
    answer.body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_deleted_response_is_served_no_more_in_either_form_also_after_a_restart() {
    let (dir, upstream, server) = start(&[]).await;
    let (one, other) = (input("one"), input("other"));
    let id = id_of(&ask(&server, &one).await);
    ask(&server, &other).await;
    quiet(&server).await;
    assert!(is_hit(&ask(&server, &one).await));
    assert_eq!(delete(&server, &upstream, &id, 200).await.body["deleted"], true, "their answer is passed on");
    drop(server);
    let server = start_in(dir.path(), &upstream, &[]);
    assert!(is_hit(&ask(&server, &other).await), "another response stays");
    let streamed = with(one.clone(), json!({ "stream": true }));
    assert_eq!(status(&ask(&server, &streamed).await), "fwd=miss");
    let again = ask(&server, &one).await;
    assert!(is_hit(&again), "the new one is cached");
    assert_ne!(id_of(&again), id);
}

#[tokio::test]
async fn a_deletion_that_the_upstream_refuses_hides_nothing() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let body = input("one");
    let id = id_of(&ask(&server, &body).await);
    for code in [400, 409, 422] {
        delete(&server, &upstream, &id, code).await;
        assert!(is_hit(&ask(&server, &body).await), "{code}");
    }
    // Another method, or another route below the response, deletes nothing.
    for (method, path) in [("POST", format!("{PATH}/{id}/cancel")), ("GET", format!("{PATH}/{id}"))] {
        upstream.next(Mode::Reply(200, vec![JSON], "{}".into()));
        assert_eq!(server.ask(method, &path, &[], "").await.status, 200);
        assert!(is_hit(&ask(&server, &body).await), "{method} {path}");
    }
}

/// The upstream may have deleted it: its reply was lost, or this is the second attempt.
#[tokio::test]
async fn a_deletion_whose_outcome_is_not_known_hides_the_response() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let body = input("one");
    for code in [404, 410, 500, 502] {
        let id = id_of(&ask(&server, &body).await);
        quiet(&server).await;
        delete(&server, &upstream, &id, code).await;
        assert!(!is_hit(&ask(&server, &body).await), "{code}");
        quiet(&server).await;
    }
}

/// Written in another way, it is the same id to the upstream.
#[tokio::test]
async fn an_id_may_be_encoded() {
    let (_dir, upstream, server) = start(&[]).await;
    let id = id_of(&ask(&server, &input("one")).await);
    delete(&server, &upstream, &id.replace('_', "%5F"), 204).await;
    assert!(!is_hit(&ask(&server, &input("one")).await));
}

/// The answer that replaces a response has another id: the deletion of the old one does not hide it.
#[tokio::test]
async fn a_replacement_does_not_inherit_the_id_of_what_it_replaces() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(input("one"), json!({ "cache": { "tags": ["product:42"] } }));
    let first = id_of(&ask(&server, &body).await);
    quiet(&server).await;
    let mut last = first.clone();
    for _ in 0..3 {
        let forced = with(body.clone(), json!({ "cache": { "no-cache": true } }));
        last = id_of(&ask(&server, &forced).await);
        quiet(&server).await;
    }
    assert_ne!(first, last);
    delete(&server, &upstream, &first, 200).await;
    assert!(is_hit(&ask(&server, &body).await), "it is of the last response");
    let invalidated = json!({ "tags": ["product:42"] }).to_string();
    assert_eq!(server.ask("POST", "/v1/invalidate", &[], invalidated).await.status, 200);
    assert!(!is_hit(&ask(&server, &body).await), "other tags are inherited");
    quiet(&server).await;
    let id = id_of(&ask(&server, &body).await);
    delete(&server, &upstream, &id, 200).await;
    assert!(!is_hit(&ask(&server, &body).await));
}

/// As many tags as a request may have leave room for the id.
#[tokio::test]
async fn a_response_with_many_tags_can_be_deleted() {
    let (_dir, upstream, server) = start(&[]).await;
    let tags: Vec<String> = (0..64).map(|n| format!("t:{n}")).collect();
    let body = with(input("one"), json!({ "cache": { "tags": tags } }));
    let id = id_of(&ask(&server, &body).await);
    assert!(is_hit(&ask(&server, &body).await));
    delete(&server, &upstream, &id, 200).await;
    assert!(!is_hit(&ask(&server, &body).await));
}

/// A response that its upstream does not store has no id there.
#[tokio::test]
async fn a_response_that_is_not_stored_upstream_stays() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(input("one"), json!({ "store": false }));
    let id = id_of(&ask(&server, &body).await);
    delete(&server, &upstream, &id, 200).await;
    assert!(is_hit(&ask(&server, &body).await));
}
