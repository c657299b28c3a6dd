//! Goal: concurrent equal requests share one call of the upstream. Method: an upstream that holds its replies until all requests have
//! arrived.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{CHAT, accumulated, ask, in_flight, is_hit, open, question, quiet, start, status, with};
use crate::program::{Answer, until};
use crate::upstream::Mode;

#[tokio::test]
async fn a_thousand_equal_requests_cost_one_call() {
    // Of so many one is a stream; none where there is no number.
    let forms = [("json", None), ("events", Some(1)), ("mixed", Some(2))];
    for (name, every) in forms {
        let (_dir, upstream, server) = start(&[]).await;
        let held = upstream.hold().await;
        let asks = (0..1000).map(|n| {
            let body = with(
                question("the same"),
                json!({ "stream": every.is_some_and(|every| n % every == 0), "temperature": 0.25 }),
            );
            let server = &server;
            async move { ask(server, &body).await }
        });
        let let_go = async {
            // Some are still on their way when the answer comes: they find it, or join.
            until("most are in flight", async || in_flight(&server).await >= 900).await;
            drop(held);
        };
        let (answers, ()) = futures_util::future::join(futures_util::future::join_all(asks), let_go).await;
        assert_eq!(upstream.calls(), 1, "{name}");
        let text = |answer: &Answer| {
            let whole = if answer.body.is_string() { accumulated(answer) } else { answer.body.clone() };
            whole["choices"].clone()
        };
        let first = text(&answers[0]);
        assert!(answers.iter().all(|answer| answer.status == 200 && text(answer) == first), "{name}");
        let misses = answers.iter().filter(|answer| status(answer) == "fwd=miss").count();
        assert_eq!(misses, 1, "{name}");
    }
}

#[tokio::test]
async fn followers_of_a_stream_get_its_events_as_they_arrive() {
    let (_dir, upstream, server) = start(&[]).await;
    let held = upstream.hold_tail().await;
    let body = with(question("slowly"), json!({ "stream": true }));
    let mut leader = open(&server, &body).await;
    let first = leader.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("assistant"));
    // The model is still speaking, and a follower that joins now gets it from its first word.
    let mut follower = open(&server, &body).await;
    let joined = follower.next().await.unwrap().unwrap();
    assert!(joined.starts_with(&first) || first.starts_with(&joined));
    drop(held);
    let rest = |stream: Vec<reqwest::Result<Vec<u8>>>| {
        stream.into_iter().map(|bytes| bytes.unwrap()).collect::<Vec<_>>().concat()
    };
    let (one, two) = (rest(leader.collect().await), rest(follower.collect().await));
    assert_eq!([first, one].concat(), [joined, two].concat());
    assert_eq!(upstream.calls(), 1);
}

/// A model that takes its time must not keep out those whose answer is here.
#[tokio::test]
async fn waiting_requests_hold_no_permit() {
    const WAITING: usize = 5;
    let (_dir, upstream, server) = start(&[("LIKEWISE__HTTP__REQUESTS_MAX", "2")]).await;
    ask(&server, &question("known")).await;
    let held = upstream.hold().await;
    let slow: Vec<Value> = (0..WAITING).map(|n| question(&format!("slow {n}"))).collect();
    let mut waiting = FuturesUnordered::new();
    for (n, body) in slow.iter().enumerate() {
        waiting.push(ask(&server, body));
        tokio::select! {
            answer = waiting.next() => panic!("no answer is expected yet: {answer:?}"),
            () = until("it waits", async || upstream.calls() == 2 + n) => {}
        }
    }
    assert!(is_hit(&ask(&server, &question("known")).await));
    drop(held);
    let answers: Vec<Answer> = waiting.collect().await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

/// An operator looks at the numbers when all places are taken.
#[tokio::test]
async fn a_full_server_still_reports_its_state() {
    let (_dir, _upstream, server) = start(&[("LIKEWISE__HTTP__REQUESTS_MAX", "1")]).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{{");
    let address = server.url().strip_prefix("http://").unwrap();
    let mut unfinished = tokio::net::TcpStream::connect(address).await.unwrap();
    unfinished.write_all(head.as_bytes()).await.unwrap();
    until("it is being answered, beside the request for the numbers", async || in_flight(&server).await == 2)
        .await;
    assert_eq!(server.get("/v1/models").await.status, 429, "all places are taken");
    for path in ["/metrics", "/v1/stats", "/healthz"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    drop(unfinished);
    until("no other request is answered", async || in_flight(&server).await == 1).await;
    assert_eq!(server.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_failure_reaches_all_waiters() {
    const ASKING: usize = 20;
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let error = json!({ "error": { "message": "slow down", "type": "rate_limit_error" } }).to_string();
    let mut rounds = 0;
    // That a request has joined shows by its answer only. A round in which one comes too late is repeated.
    until("all requests of a round have joined before the failure", async || {
        rounds += 1;
        let (asked, before) = (question(&format!("all fail {rounds}")), upstream.calls());
        let held = upstream.hold().await;
        upstream.next(Mode::Reply(429, vec![("retry-after", "9")], error.clone()));
        let asks = (0..ASKING).map(|n| {
            let body = with(asked.clone(), json!({ "stream": n % 2 == 0 }));
            let server = &server;
            async move { ask(server, &body).await }
        });
        let let_go = async {
            until("all are in flight", async || in_flight(&server).await > ASKING as u64).await;
            drop(held);
        };
        let (answers, ()) = futures_util::future::join(futures_util::future::join_all(asks), let_go).await;
        let is_failure = |answer: &&Answer| answer.status == 429 && answer.header("retry-after") == "9";
        let failed = answers.iter().filter(is_failure).count();
        let answered = answers.iter().filter(|answer| answer.status == 200).count();
        assert!(failed >= 1 && failed + answered == ASKING, "{answers:?}");
        // Those that come too late to fail ask again, or share the answer of one that does.
        let calls = upstream.calls() - before;
        assert!(calls <= 1 + answered, "{failed} of {ASKING} failed together, {calls} calls");
        answered == 0
    })
    .await;
}

/// A refusal that depends on the caller or on the form of its request does not reach other callers.
#[tokio::test]
async fn a_refusal_reaches_only_the_callers_it_concerns() {
    const ASKING: usize = 20;
    let shared = [
        ("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true"),
        ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true"),
    ];
    let (_dir, upstream, server) = start(&shared).await;
    let refusal = |status| Mode::Reply(status, vec![], json!({ "error": { "message": "no" } }).to_string());
    let asks = |name: &'static str, keys: [&'static str; 2], streams: [bool; 2]| {
        let server = &server;
        (0..ASKING).map(move |n| async move {
            let body = with(question(name), json!({ "stream": streams[n % 2] }));
            let answer = server.ask("POST", CHAT, &[("authorization", keys[n % 2])], body.to_string()).await;
            (n % 2, answer.status)
        })
    };
    let cases = [
        (401, asks("who am I?", ["Bearer a", "Bearer b"], [false; 2])),
        (400, asks("in which form?", ["Bearer a"; 2], [false, true])),
    ];
    for (status, asks) in cases {
        let held = upstream.hold().await;
        upstream.next(refusal(status));
        let let_go = async {
            until("all are in flight", async || in_flight(&server).await > ASKING as u64).await;
            drop(held);
        };
        let (received, ()) = futures_util::future::join(futures_util::future::join_all(asks), let_go).await;
        let refused: Vec<usize> =
            received.iter().filter(|(_, received)| *received == status).map(|(kind, _)| *kind).collect();
        assert!(!refused.is_empty() && refused.iter().all(|kind| *kind == refused[0]), "{received:?}");
        assert!(received.iter().all(|(_, received)| [status, 200].contains(received)), "{received:?}");
    }
}

#[tokio::test]
async fn a_generation_without_waiters_is_aborted_unless_configured() {
    let (_dir, upstream, server) = start(&[]).await;
    let held = upstream.hold_tail().await;
    let body = with(question("leave"), json!({ "stream": true }));
    let mut one = open(&server, &body).await;
    let mut two = open(&server, &body).await;
    assert!(one.next().await.is_some() && two.next().await.is_some());
    drop(one);
    // One still waits, so the model goes on for it.
    drop(held);
    assert!(
        two.map(|bytes| bytes.unwrap()).collect::<Vec<_>>().await.concat().ends_with(b"data: [DONE]\n\n")
    );
    let body = with(question("leave again"), json!({ "stream": true }));
    let held = upstream.hold_tail().await;
    let mut one = open(&server, &body).await;
    assert!(one.next().await.is_some());
    drop(one);
    upstream.cancelled(1).await;
    drop(held);
    quiet(&server).await;
    assert!(!is_hit(&ask(&server, &body).await), "half an answer was kept");

    let (_dir, upstream, server) = start(&[("LIKEWISE__ANSWERS__FINISH_ABANDONED", "true")]).await;
    let held = upstream.hold_tail().await;
    let mut one = open(&server, &body).await;
    assert!(one.next().await.is_some());
    drop(one);
    drop(held);
    quiet(&server).await;
    assert!(is_hit(&ask(&server, &body).await));
    assert_eq!(upstream.calls(), 1);
}
