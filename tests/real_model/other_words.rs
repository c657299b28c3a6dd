//! Goal: with the shipped model, threshold, rules and verifier, a question in other words is answered and a look-alike is not. Method:
//! the routes for applications that ask their model themselves, and the numbers of the verifier's training.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::Server;

/// A burst of equal lookups costs one pass of the verifier: none is refused because it is busy.
#[tokio::test]
async fn a_burst_of_one_question_is_answered_whole() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let [stored, asked] = ["What is your refund policy?", "what's the policy on refunds?"];
    let post = async |path: &str, body: Value| server.ask("POST", path, &[], body.to_string()).await;
    let given = json!({ "prompt": stored, "answer": "30 days", "semantic": true });
    assert_eq!(post("/v1/answers", given).await.status, 201);
    let lookups = (0..100).map(|_| post("/v1/answers/lookup", json!({ "prompt": asked, "semantic": true })));
    for looked_up in futures_util::future::join_all(lookups).await {
        assert_eq!(looked_up.body["answer"], "30 days", "{}", looked_up.body);
    }
}

#[tokio::test]
async fn rewordings_are_answered_and_look_alikes_are_not() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let post = async |path: &str, body: &Value| server.ask("POST", path, &[], body.to_string()).await;
    let body = |prompt: &str, scope: &str| json!({ "prompt": prompt, "scope": scope, "semantic": true });
    let pairs = [
        ("What is your refund policy?", "what's the policy on refunds?", true),
        ("Does the Pro plan include phone support?", "Is phone support included in the Pro plan?", true),
        ("Can I pay with PayPal?", "Is it possible to pay with PayPal?", true),
        (
            "How much does it cost to send a parcel of two kg?",
            "How much does it cost to send a parcel of 2 kg?",
            true,
        ),
        ("Can I track order 4711?", "Can I track order 4712?", false),
        ("Does the warranty cover water damage?", "Does the warranty not cover water damage?", false),
        ("How do I fly from Madrid to Lima?", "How do I fly from Lima to Madrid?", false),
        ("How do I pause my subscription?", "How do I cancel my subscription?", false),
        ("Is a temperature of -5 degrees safe?", "Is a temperature of 5 degrees safe?", false),
    ];
    for (place, (stored, asked, is_same)) in pairs.into_iter().enumerate() {
        let scope = place.to_string();
        let mut answer = body(stored, &scope);
        answer["answer"] = "yes".into();
        assert_eq!(post("/v1/answers", &answer).await.status, 201);
        let looked_up = post("/v1/answers/lookup", &body(asked, &scope)).await;
        assert_eq!(looked_up.body["hit"], Value::Bool(is_same), "{asked}: {}", looked_up.body);
    }
}
