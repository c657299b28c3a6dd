//! Goal: no answer in other words crosses a credential, a system prompt, a history or a model, however often it is tried, and no client can
//! put a wrong answer before the users of another credential. Method: each scope has a question of its own, and each is asked in other words in
//! all other scopes. `LIKEWISE_SCOPE_PROBES` says how many probes; 1,000,000 is all pairs of scopes.

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{CHAT, is_hit, start, with};
use crate::kill::number_from;
use crate::program::Server;
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
