//! Goal: a question in other words gets the answer to the same question where a request asks for it, and never that of another question,
//! scope, client or tenant. Method: the program with a model whose vectors mean nothing and a threshold that lets all of them pass, so that only
//! the guard and the scopes refuse.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ask, is_hit, question, start, start_in, status, with};
use crate::program::{Answer, Server, until};
use crate::upstream::Upstream;

/// Every vector is near enough.
pub(super) const NEAR: (&str, &str) = ("LIKEWISE__ANSWERS__SEMANTIC__SIMILARITY_MIN", "0");
/// The model has no verifier.
pub(super) const RULES_ALONE: (&str, &str) = ("LIKEWISE__ANSWERS__SEMANTIC__VERIFIER", "off");
pub(super) const ASKED: &str = "How do I return a pair of shoes?";
pub(super) const REWORDED: &str = "What is the way to return a pair of shoes?";

pub(super) fn semantic(text: &str) -> Value {
    with(question(text), json!({ "cache": { "semantic": true } }))
}

/// The outcome of the search, without the similarity.
fn outcome(answer: &Answer) -> String {
    let item = answer.header("x-likewise-semantic");
    item.split("; ").filter(|part| !part.starts_with("similarity=")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_question_in_other_words_is_a_hit_where_both_requests_ask_for_it() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let first = ask(&server, &semantic(ASKED)).await;
    assert_eq!((status(&first), outcome(&first).as_str()), ("fwd=miss", "none"));
    let second = ask(&server, &semantic(REWORDED)).await;
    assert!(is_hit(&second) && status(&second).ends_with("detail=memory-semantic"), "{}", status(&second));
    assert_eq!(outcome(&second), "hit");
    assert!(second.header("x-likewise-semantic").contains("similarity="));
    assert_eq!(second.header("x-likewise-answer-id"), first.header("x-likewise-answer-id"));
    assert_eq!(second.header("x-likewise-tokens-saved"), "30");
    assert_eq!(second.body["choices"], first.body["choices"]);
    let streamed = ask(&server, &with(semantic(REWORDED), json!({ "stream": true }))).await;
    assert!(is_hit(&streamed), "in either form");
    let same = ask(&server, &semantic(ASKED)).await;
    assert_eq!(
        (is_hit(&same), same.header("x-likewise-semantic")),
        (true, ""),
        "the same words need no search"
    );
    assert_eq!(upstream.calls(), 1);
    assert_eq!(server.stat("/answers/semantic/hit").await, 2);

    // Unasked, nothing is found in other words, and nothing is kept to be found.
    let plain = ask(&server, &question(REWORDED)).await;
    assert_eq!((is_hit(&plain), plain.header("x-likewise-semantic")), (false, ""));
    let other = |body: Value| with(body, json!({ "seed": 2 }));
    assert!(!is_hit(&ask(&server, &other(question(ASKED))).await));
    assert!(!is_hit(&ask(&server, &other(semantic(REWORDED))).await));
}

#[tokio::test]
async fn another_question_is_refused_and_the_response_says_why() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    for (stored, asked) in [
        ("What does the error code 4711 mean?", "What does the error code 4712 mean?"),
        ("Does the warranty cover water damage?", "Does the warranty not cover water damage?"),
        ("How much is the shipping to Spain?", "How much is the shipping to Portugal?"),
        ("¿Cuánto cuesta el envío de 2 kg?", "¿Cuánto cuesta el envío de 5 kg?"),
    ] {
        let scope = json!({ "user": stored });
        assert!(!is_hit(&ask(&server, &with(semantic(stored), scope.clone())).await));
        let answer = ask(&server, &with(semantic(asked), scope)).await;
        assert!(!is_hit(&answer), "{asked}: {}", answer.header("x-likewise-semantic"));
        assert!(outcome(&answer).starts_with("refused; because="), "{}", outcome(&answer));
    }
    assert_eq!(upstream.calls(), 8);
}

#[tokio::test]
async fn without_a_verifier_nothing_is_served_in_other_words_unless_the_operator_leaves_it_to_the_rules() {
    let verifier = |rule| ("LIKEWISE__ANSWERS__SEMANTIC__VERIFIER", rule);
    for (settings, expected) in [
        (vec![NEAR], "unavailable; because=verifier"),
        (vec![NEAR, verifier("required")], "unavailable; because=verifier"),
        (vec![NEAR, verifier("where_possible")], "hit"),
    ] {
        let (_dir, _upstream, server) = start(&settings).await;
        ask(&server, &semantic(ASKED)).await;
        assert_eq!(outcome(&ask(&server, &semantic(REWORDED)).await), expected, "{settings:?}");
    }
}

#[tokio::test]
async fn what_depends_on_more_than_the_question_is_answered_in_the_same_words_only() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let image =
        json!([{ "type": "text", "text": ASKED }, { "type": "image_url", "image_url": { "url": "u" } }]);
    let messages = |content: Value| json!({ "messages": [{ "role": "user", "content": content }] });
    let translate = json!({ "messages": [
        { "role": "system", "content": "Translate what the user says." }, { "role": "user", "content": ASKED }] });
    for more in [
        messages(image),
        translate,
        json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] }),
    ] {
        let answer = ask(&server, &with(semantic(ASKED), more.clone())).await;
        assert_eq!(outcome(&answer), "exact_only; because=request", "{more}");
    }
    for text in [
        "And the other one?",
        "Cancel my order, please.",
        "What is the price of gold today?",
        &"x ".repeat(600),
    ] {
        let answer = ask(&server, &semantic(text)).await;
        assert!(outcome(&answer).starts_with("exact_only; because="), "{text}: {}", outcome(&answer));
        assert!(is_hit(&ask(&server, &semantic(text)).await), "in the same words it is a hit");
    }
}

#[tokio::test]
async fn no_answer_of_another_scope_client_or_namespace_is_found() {
    let shared = ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true");
    let never = ("LIKEWISE__ANSWERS__SEMANTIC__ACROSS_KEYS", "never");
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE, shared, never]).await;
    let sent = async |key: &str, body: Value| {
        server.ask("POST", super::CHAT, &[("api-key", key)], body.to_string()).await
    };
    assert!(!is_hit(&sent("one", semantic(ASKED)).await));
    assert!(is_hit(&sent("one", semantic(REWORDED)).await));
    assert!(is_hit(&sent("two", semantic(ASKED)).await), "they share answers in the same words");
    assert!(!is_hit(&sent("two", semantic(REWORDED)).await), "and in other words what they asked themselves");
    let system = json!({ "messages": [{ "role": "system", "content": "be brief" }, { "role": "user", "content": REWORDED }] });
    for more in [
        system,
        json!({ "model": "gpt-4" }),
        json!({ "temperature": 0.5 }),
        json!({ "cache": { "semantic": true, "namespace": "faq" } }),
    ] {
        let answer = sent("one", with(semantic(REWORDED), more.clone())).await;
        assert_eq!(outcome(&answer), "none", "{more}");
    }
}

#[tokio::test]
async fn namespaces_headers_and_conditions_decide_whether_and_what_is_found() {
    let namespaces = ("LIKEWISE__ANSWERS__SEMANTIC__NAMESPACES", "faq");
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE, namespaces]).await;
    let faq = |text: &str| with(question(text), json!({ "cache": { "namespace": "faq" } }));
    let sent = async |headers: &[(&str, &str)], body: &Value| {
        server.ask("POST", super::CHAT, headers, body.to_string()).await
    };
    let first = ask(&server, &faq(ASKED)).await;
    assert_eq!(outcome(&first), "none");
    assert!(is_hit(&ask(&server, &faq(REWORDED)).await));
    let unwanted =
        sent(&[("x-cache-semantic", "false"), ("cache-control", "only-if-cached")], &faq(REWORDED)).await;
    assert_eq!((unwanted.status, unwanted.header("x-likewise-semantic")), (504, ""));
    assert!(is_hit(&sent(&[("cache-control", "only-if-cached")], &faq(REWORDED)).await));
    let tagged = sent(&[("x-cache-tags", "returns")], &faq(REWORDED)).await;
    assert!(!is_hit(&tagged), "an answer without the tag would outlive its invalidation");
    let bad = sent(&[("x-cache-semantic", "yes")], &faq(REWORDED)).await;
    assert_eq!((bad.status, bad.error().1), (400, Some("x-cache-semantic")));
    let renewed =
        sent(&[("cache-control", "no-cache")], &faq("What is the process to return a pair of shoes?")).await;
    assert_eq!((status(&renewed), renewed.header("x-likewise-semantic")), ("fwd=request", ""));
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn what_was_deleted_invalidated_or_has_expired_is_not_found() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let tagged =
        |text: &str| with(question(text), json!({ "cache": { "semantic": true, "tags": ["returns"] } }));
    ask(&server, &tagged(ASKED)).await;
    assert!(is_hit(&ask(&server, &tagged(REWORDED)).await));
    server.ask("POST", "/v1/invalidate", &[], r#"{"tags":["returns"]}"#).await;
    assert!(!is_hit(&ask(&server, &tagged(REWORDED)).await));

    let seeded = |text: &str| with(semantic(text), json!({ "seed": 7 }));
    let id = ask(&server, &seeded(ASKED)).await.header("x-likewise-answer-id").to_owned();
    assert!(is_hit(&ask(&server, &seeded(REWORDED)).await));
    let deleted = server.ask("DELETE", &format!("/v1/answers/{id}"), &[], "").await;
    assert_eq!(deleted.status, 204);
    assert!(!is_hit(&ask(&server, &seeded(REWORDED)).await));
}

#[tokio::test]
async fn a_refreshed_answer_is_found_in_other_words_as_the_one_that_it_replaces() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let tagged = with(question(ASKED), json!({ "cache": { "semantic": true, "tags": ["returns"] } }));
    ask(&server, &tagged).await;
    let softened = server.ask("POST", "/v1/invalidate", &[], r#"{"tags":["returns"],"mode":"soft"}"#).await;
    assert_eq!(softened.status, 200);
    assert!(is_hit(&ask(&server, &tagged).await), "stale, and refreshed behind the response");
    until("it is refreshed", async || upstream.calls() == 2).await;
    let only = [("cache-control", "only-if-cached")];
    until("the new answer is found", async || {
        server.ask("POST", super::CHAT, &only, semantic(REWORDED).to_string()).await.status == 200
    })
    .await;
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_question_is_found_however_often_its_answer_was_invalidated() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let tagged =
        |text: &str| with(question(text), json!({ "cache": { "semantic": true, "tags": ["returns"] } }));
    for round in 0..40 {
        ask(&server, &tagged(ASKED)).await;
        assert!(is_hit(&ask(&server, &tagged(REWORDED)).await), "round {round}");
        server.ask("POST", "/v1/invalidate", &[], r#"{"tags":["returns"]}"#).await;
        let gone = server.ask(
            "POST",
            super::CHAT,
            &[("cache-control", "only-if-cached")],
            tagged(REWORDED).to_string(),
        );
        assert_eq!(gone.await.status, 504);
    }
}

#[tokio::test]
async fn a_question_that_is_not_to_be_stored_leaves_no_vector() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let sent = async |directives: &str| {
        server.ask("POST", super::CHAT, &[("cache-control", directives)], semantic(ASKED).to_string()).await
    };
    assert_eq!(outcome(&sent("no-store").await), "none");
    assert_eq!(sent("no-store, no-cache").await.header("x-likewise-semantic"), "");
    let embedded = json!({ "model": "fake-model", "input": ASKED, "cache": { "only-if-cached": true } });
    let answer = server.ask("POST", "/v1/embeddings", &[], embedded.to_string()).await;
    assert_eq!(answer.status, 504, "{}", answer.body);
}

#[tokio::test]
async fn signs_that_a_model_may_not_tell_apart_are_answered_in_the_same_words_only() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    for (stored, asked) in [
        ("如何退货？", "如何付款？"),
        ("Как вернуть обувь?", "Как оплатить обувь?"),
        ("What does ∑ mean?", "What does ∏ mean?"),
        ("Is the shop open on Sundays 👍", "Is the shop open on Sundays 👎"),
    ] {
        let scope = json!({ "user": stored });
        let first = ask(&server, &with(semantic(stored), scope.clone())).await;
        assert_eq!(outcome(&first), "exact_only; because=unknown_letters");
        assert!(!is_hit(&ask(&server, &with(semantic(asked), scope)).await), "{asked}");
    }
}

#[tokio::test]
async fn stored_questions_are_found_after_a_restart() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(dir.path(), &upstream, &[NEAR, RULES_ALONE]);
    ask(&server, &semantic(ASKED)).await;
    ask(&server, &with(question(ASKED), json!({ "seed": 1 }))).await;
    server.stop();
    let server = start_in(dir.path(), &upstream, &[NEAR, RULES_ALONE]);
    let only = [("cache-control", "only-if-cached")];
    until("the question is found", async || {
        server.ask("POST", super::CHAT, &only, semantic(REWORDED).to_string()).await.status == 200
    })
    .await;
    let unasked = with(semantic(REWORDED), json!({ "seed": 1 }));
    assert_eq!(server.ask("POST", super::CHAT, &only, unasked.to_string()).await.status, 504);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn applications_that_ask_their_model_themselves_look_up_in_other_words() {
    let server = Server::start_in(TempDir::new().unwrap().path(), &[NEAR, RULES_ALONE]);
    let post = async |path: &str, body: Value| server.ask("POST", path, &[], body.to_string()).await.body;
    let given = post("/v1/answers", json!({ "prompt": ASKED, "answer": "By post.", "semantic": true })).await;
    let lookup = async |prompt: &str, more: Value| {
        post("/v1/answers/lookup", with(json!({ "prompt": prompt, "semantic": true }), more)).await
    };
    let found = lookup(REWORDED, json!({})).await;
    assert_eq!(
        (&found["hit"], &found["layer"], &found["answer"], &found["id"]),
        (&json!(true), &json!("semantic"), &json!("By post."), &given["id"])
    );
    assert!(found["similarity"].is_number() && found["probability"].is_null(), "{found}");
    assert_eq!(lookup(REWORDED, json!({ "semantic": false })).await["hit"], false);
    assert_eq!(lookup(REWORDED, json!({ "scope": { "shop": 2 } })).await["hit"], false);
    let refused = lookup("How do I return 3 pairs of shoes?", json!({})).await;
    assert_eq!(refused["hit"], false);
    assert!(refused["reason"].as_str().unwrap().contains("asks something else"), "{refused}");
}

#[tokio::test]
async fn what_is_near_is_explained_and_nothing_of_another_scope_is_shown() {
    let server = Server::start_in(TempDir::new().unwrap().path(), &[NEAR, RULES_ALONE]);
    let post = async |path: &str, body: Value| server.ask("POST", path, &[], body.to_string()).await.body;
    for (prompt, scope) in [(ASKED, 1), ("How do I return 3 pairs of shoes?", 1), (REWORDED, 2)] {
        let given = json!({ "prompt": prompt, "answer": "By post.", "semantic": true, "scope": scope });
        assert!(post("/v1/answers", given).await["id"].is_string());
    }
    let explained = post("/v1/answers/explain", json!({ "prompt": REWORDED, "scope": 1 })).await;
    assert_eq!((&explained["guard"], &explained["verifier"]), (&json!("strict"), &json!("off")));
    let candidates = explained["candidates"].as_array().unwrap();
    let found = |question: &str| {
        let is_it = |candidate: &&Value| candidate["question"] == question;
        candidates.iter().find(is_it).unwrap_or_else(|| panic!("{question}: {explained}"))
    };
    assert_eq!(candidates.len(), 2, "{explained}");
    assert_eq!((&found(ASKED)["served"], &found(ASKED)["because"]), (&json!(true), &Value::Null));
    let other = found("How do I return 3 pairs of shoes?");
    assert_eq!((&other["served"], &other["because"]), (&json!(false), &json!("number")));
    assert_eq!(
        (&other["conflicts"][0]["kind"], &other["conflicts"][0]["stored"]),
        (&json!("number"), &json!("3"))
    );
    let exact =
        post("/v1/answers/explain", json!({ "prompt": "What is the current price of copper?" })).await;
    assert_eq!(
        (&exact["not_searched_because"], &exact["candidates"]),
        (&json!("changes_with_time"), &json!([]))
    );
    let refused = server.ask("POST", "/v1/answers/explain", &[], json!({ "prompt": "" }).to_string()).await;
    assert_eq!((refused.status, refused.error()), (400, ("invalid_input", Some("prompt"))));
    assert_eq!(server.stat("/answers/semantic/hit").await, 0, "nothing is counted");
}

#[tokio::test]
async fn what_a_client_calls_wrong_is_never_served_again_in_either_order_nor_after_a_restart() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(dir.path(), &upstream, &[NEAR, RULES_ALONE]);
    let feedback = async |server: &Server, body: Value| {
        server.ask("POST", "/v1/answers/feedback", &[], body.to_string()).await
    };
    ask(&server, &semantic(ASKED)).await;
    let wrong = ask(&server, &semantic(REWORDED)).await;
    assert!(is_hit(&wrong));
    let id = wrong.header("x-likewise-answer-id");
    let right = feedback(&server, json!({ "prompt": REWORDED, "id": id, "correct": true })).await;
    assert_eq!((right.status, &right.body["quarantined"]), (200, &json!(false)), "{}", right.body);
    assert!(is_hit(&ask(&server, &semantic(REWORDED)).await));
    let given = feedback(&server, json!({ "prompt": REWORDED, "id": id, "correct": false })).await;
    assert_eq!((given.status, &given.body["quarantined"]), (200, &json!(true)), "{}", given.body);
    let refused = ask(&server, &semantic(REWORDED)).await;
    assert_eq!((is_hit(&refused), outcome(&refused).as_str()), (false, "refused; because=feedback"));
    let reversed = async |server: &Server, seed: u32| {
        let seeded = |text: &str| with(semantic(text), json!({ "seed": seed }));
        ask(server, &seeded(REWORDED)).await;
        outcome(&ask(server, &seeded(ASKED)).await)
    };
    assert_eq!(reversed(&server, 1).await, "refused; because=feedback", "in another scope too");
    assert_eq!(server.stat("/answers/semantic/wrong_pairs").await, 1);
    let again = feedback(&server, json!({ "prompt": REWORDED, "question": ASKED, "correct": true })).await;
    assert_eq!(again.body["quarantined"], json!(true), "it stays wrong");
    server.stop();
    let server = start_in(dir.path(), &upstream, &[NEAR, RULES_ALONE]);
    assert_eq!(reversed(&server, 2).await, "refused; because=feedback");
}

#[tokio::test]
async fn feedback_that_names_no_pair_is_refused() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let plain = ask(&server, &question(ASKED)).await;
    let plain = plain.header("x-likewise-answer-id");
    let unknown = format!("ans_{}", "0".repeat(64));
    for (more, status, param) in [
        (json!({}), 400, "id"),
        (json!({ "id": unknown, "question": ASKED }), 400, "question"),
        (json!({ "id": "ans_1" }), 400, "id"),
        (json!({ "id": unknown }), 404, "id"),
        (json!({ "id": plain }), 404, "id"),
        (json!({ "question": "" }), 400, "question"),
        (json!({ "question": format!(" {REWORDED}") }), 400, "prompt"),
        (json!({ "question": "x".repeat(5000) }), 400, "question"),
        (json!({ "question": ASKED, "prompt": " " }), 400, "prompt"),
        (json!({ "question": ASKED, "correct": "no" }), 400, "correct"),
    ] {
        let body = with(json!({ "prompt": REWORDED, "correct": false }), more.clone());
        let refused = server.ask("POST", "/v1/answers/feedback", &[], body.to_string()).await;
        assert_eq!((refused.status, refused.error().1), (status, Some(param)), "{more}: {}", refused.body);
    }
    assert_eq!(server.stat("/answers/semantic/wrong_pairs").await, 0);
}

#[tokio::test]
async fn a_model_without_a_threshold_answers_in_the_same_words_only_and_says_so() {
    let (_dir, _upstream, server) = start(&[]).await;
    assert!(!is_hit(&ask(&server, &semantic(ASKED)).await));
    let answer = ask(&server, &semantic(REWORDED)).await;
    assert_eq!((is_hit(&answer), outcome(&answer).as_str()), (false, "unavailable; because=similarity_min"));
    assert!(is_hit(&ask(&server, &semantic(ASKED)).await));
}
