//! Goal: no answer in other words crosses a credential, a system prompt, a history or a model, however often it is tried, and no client can
//! put a wrong answer before the users of another credential. Method: each scope has a question of its own, and each is asked in other words in
//! all other scopes. `LIKEWISE_SCOPE_PROBES` says how many probes; 1,000,000 is all pairs of scopes.

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::semantic::{ASKED, NEAR, REWORDED, RULES_ALONE, semantic};
use super::{CHAT, is_hit, start, with};
use crate::kill::number_from;
use crate::program::{Answer, Server, until};
use crate::random_load::Random;

const SETTINGS: [(&str, &str); 3] = [
    ("LIKEWISE__ANSWERS__SEMANTIC__SIMILARITY_MIN", "0"),
    ("LIKEWISE__ANSWERS__SEMANTIC__VERIFIER", "off"),
    ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true"),
];
/// Ten of each: credentials, system prompts, histories.
const SCOPES: usize = 1000;
/// Requests under way at the same time.
const CONCURRENT: usize = 32;

/// The credential of a scope.
fn credential(scope: usize) -> String {
    format!("key-{}", scope % 10)
}

/// A request of a scope.
fn asked(scope: usize, question: &str) -> Value {
    let (system, history) = (scope / 10 % 10, scope / 100);
    json!({ "model": "gpt-5", "cache": { "semantic": true }, "messages": [
        { "role": "system", "content": format!("You are assistant {system}.") },
        { "role": "user", "content": format!("My name is user {history}.") },
        { "role": "assistant", "content": "Hello." },
        { "role": "user", "content": question },
    ] })
}

async fn sent(server: &Server, scope: usize, question: &str, only_cached: bool) -> bool {
    let key = credential(scope);
    let mut headers = vec![("api-key", key.as_str())];
    headers.extend(only_cached.then_some(("cache-control", "only-if-cached")));
    let answer = server.ask("POST", CHAT, &headers, asked(scope, question).to_string()).await;
    assert!(matches!(answer.status, 200 | 504), "{}", answer.body);
    answer.status == 200 && is_hit(&answer)
}

/// A word of its own for each scope, with a syllable for each digit: none is a slip of another.
fn word(scope: usize) -> String {
    const SYLLABLES: [&str; 10] = ["bar", "cel", "dim", "fog", "gul", "kat", "lev", "min", "nop", "rus"];
    [scope / 100, scope / 10, scope].map(|digits| SYLLABLES[digits % 10]).concat()
}

#[tokio::test]
async fn no_probe_crosses_a_scope() {
    let probes = number_from("LIKEWISE_SCOPE_PROBES", 2000) as usize;
    let (_dir, upstream, server) = start(&SETTINGS).await;
    let server = &server;
    let store = |scope| async move {
        sent(server, scope, &format!("How do I return the {}?", word(scope)), false).await
    };
    let stored: Vec<bool> = stream::iter(0..SCOPES).map(store).buffer_unordered(CONCURRENT).collect().await;
    assert!(stored.iter().all(|is_hit| !is_hit));
    let probe = |from: usize, to: usize| async move {
        let question = format!("What is the way to return the {}?", word(from));
        (from == to, sent(server, to, &question, true).await)
    };
    let own: Vec<(bool, bool)> = stream::iter((0..SCOPES).step_by(50))
        .map(|scope| probe(scope, scope))
        .buffer_unordered(CONCURRENT)
        .collect()
        .await;
    assert!(own.iter().all(|(_, is_hit)| *is_hit), "each scope finds its own");
    let mut random = Random::new(11);
    let pairs = (0..probes).map(|number| match probes {
        // All pairs, if there are so many probes.
        1_000_000.. => (number / SCOPES % SCOPES, number % SCOPES),
        _ => (random.below(SCOPES), random.below(SCOPES)),
    });
    let mut found = stream::iter(pairs).map(|(from, to)| probe(from, to)).buffer_unordered(CONCURRENT);
    while let Some((is_own, is_hit)) = found.next().await {
        assert_eq!(is_own, is_hit);
    }
    assert_eq!(upstream.calls(), SCOPES);
}

#[tokio::test]
async fn crafted_questions_of_another_credential_are_never_served() {
    let crafted = number_from("LIKEWISE_CRAFTED_ATTEMPTS", 200) as usize;
    let (_dir, upstream, server) = start(&SETTINGS).await;
    let popular = |number: usize| format!("How do I return the {}?", word(number));
    let forms = [
        |thing: String| format!("How can I return the {thing}?"),
        |thing: String| format!("how do i return the {thing}"),
        |thing: String| format!("How do I return the  {thing}?"),
        |thing: String| format!("Please, how do I return the {thing}?"),
    ];
    // The attacker stores near duplicates, by the proxy and by the route for applications.
    let attacks = (0..crafted).map(|number| {
        let question = forms[number % forms.len()](word(number));
        let server = &server;
        async move {
            sent(server, 0, &question, false).await;
            let given = json!({ "prompt": question, "answer": "Send it to me.", "semantic": true });
            let key = credential(0);
            server.ask("POST", "/v1/answers", &[("api-key", &key)], given.to_string()).await.status
        }
    });
    assert!(join_all(attacks).await.into_iter().all(|status| status == 201));
    let before = upstream.calls();
    for number in 0..crafted {
        assert!(!sent(&server, 1, &popular(number), false).await, "{number}");
        let lookup = with(json!({ "prompt": popular(number) }), json!({ "semantic": true }));
        let key = credential(1);
        let found = server.ask("POST", "/v1/answers/lookup", &[("api-key", &key)], lookup.to_string()).await;
        assert_eq!(found.body["hit"], false, "{number}");
    }
    assert_eq!(upstream.calls(), before + crafted);
}

const SHARED: (&str, &str) = ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true");
const KEYS: (&str, &str) = ("LIKEWISE__HTTP__API_KEYS", "secret-one,secret-two,secret-three");
/// Another wording than `REWORDED`.
const REWORDED_AGAIN: &str = "How can a pair of shoes be returned?";

/// A request with an API key. A cookie makes another credential of it.
async fn post(server: &Server, key: &str, cookie: &str, path: &str, body: Value) -> Answer {
    let bearer = format!("Bearer secret-{key}");
    let headers = [("authorization", bearer.as_str()), ("cookie", cookie)];
    server.ask("POST", path, &headers, body.to_string()).await
}

/// Whether a question of a client is answered from the cache. A miss stores nothing.
async fn is_found(server: &Server, key: &str, question: &str) -> bool {
    let body = with(semantic(question), json!({ "cache": { "semantic": true, "only-if-cached": true } }));
    let answer = post(server, key, "", CHAT, body).await;
    assert!(matches!(answer.status, 200 | 504), "{}", answer.body);
    answer.status == 200
}

#[tokio::test]
async fn a_question_is_found_by_other_keys_once_one_of_them_has_asked_it_too() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE, SHARED, KEYS]).await;
    let asked = async |key: &str, cookie: &str, body: Value| post(&server, key, cookie, CHAT, body).await;
    let unstored = json!({ "cache": { "semantic": true, "no-store": true } });
    asked("one", "", semantic(ASKED)).await;
    assert!(is_found(&server, "one", REWORDED).await && !is_found(&server, "two", REWORDED).await);
    // None of these confirms it: the key that has stored it, with another credential too; a request that wants no other words; one that must
    // leave nothing behind.
    for (key, cookie, body) in [
        ("one", "", semantic(ASKED)),
        ("one", "a=2", semantic(ASKED)),
        ("two", "", super::question(ASKED)),
        ("two", "", with(semantic(ASKED), unstored)),
    ] {
        assert!(is_hit(&asked(key, cookie, body).await));
        // More often than a confirmation that was begun would take.
        for _ in 0..50 {
            assert!(!is_found(&server, "three", REWORDED).await);
        }
    }
    assert!(is_hit(&asked("two", "", semantic(ASKED)).await));
    until("the question is confirmed", async || is_found(&server, "three", REWORDED).await).await;
    assert!(is_found(&server, "two", REWORDED_AGAIN).await && is_found(&server, "one", REWORDED).await);
    assert_eq!(upstream.calls(), 1);
    // What is gone is found by none of them.
    let id = asked("two", "", semantic(ASKED)).await.header("x-likewise-answer-id").to_owned();
    let bearer = [("authorization", "Bearer secret-one")];
    assert_eq!(server.ask("DELETE", &format!("/v1/answers/{id}"), &bearer, String::new()).await.status, 204);
    for key in ["one", "two", "three"] {
        assert!(!is_found(&server, key, REWORDED).await);
    }
}

#[tokio::test]
async fn without_keys_another_credential_confirms_nothing() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE, SHARED]).await;
    post(&server, "one", "", CHAT, semantic(ASKED)).await;
    assert!(is_hit(&post(&server, "two", "", CHAT, semantic(ASKED)).await));
    for _ in 0..100 {
        assert!(!is_found(&server, "three", REWORDED).await);
    }
}

#[tokio::test]
async fn what_an_application_stores_itself_is_not_confirmed_by_being_asked() {
    let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE, SHARED, KEYS]).await;
    let given = json!({ "prompt": ASKED, "answer": "Send them to me.", "semantic": true });
    assert_eq!(post(&server, "one", "", "/v1/answers", given).await.status, 201);
    let lookup = async |key: &str, prompt: &str| {
        let body = json!({ "prompt": prompt, "semantic": true });
        post(&server, key, "", "/v1/answers/lookup", body).await.body["hit"] == true
    };
    for _ in 0..50 {
        assert!(lookup("two", ASKED).await && lookup("one", REWORDED).await);
        assert!(!lookup("two", REWORDED).await && !lookup("three", REWORDED).await);
    }
}

#[tokio::test]
async fn an_operator_may_let_credentials_share_at_once() {
    let at_once = ("LIKEWISE__ANSWERS__SEMANTIC__ACROSS_KEYS", "at_once");
    for (shared, is_shared) in [("true", true), ("false", false)] {
        let shared = ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", shared);
        let (_dir, _upstream, server) = start(&[NEAR, RULES_ALONE, at_once, shared]).await;
        post(&server, "one", "", CHAT, semantic(ASKED)).await;
        assert!(is_found(&server, "one", REWORDED).await);
        assert_eq!(is_found(&server, "two", REWORDED).await, is_shared);
    }
}
