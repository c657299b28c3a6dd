//! Goal: applications store and look up answers without an upstream. Method: `/v1/answers` of a program without one.

use serde_json::{Value, json};

use crate::program::Server;

#[tokio::test]
async fn answers_can_be_stored_and_looked_up_without_an_upstream() {
    let server = Server::start();
    let post = async |path: &str, body: Value| server.ask("POST", path, &[], body.to_string()).await;
    let scope = json!({ "model": "m", "shop": [1, 2.0] });
    let lookup = async |prompt: &str, scope: &Value| {
        let answer = post("/v1/answers/lookup", json!({ "prompt": prompt, "scope": scope })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let missing = lookup("¿Cuánto cuesta?", &scope).await;
    assert_eq!((&missing["hit"], &missing["answer"]), (&json!(false), &Value::Null));
    assert!(missing["reason"].is_string());
    let given = json!({ "prompt": "¿Cuánto cuesta?", "answer": "19,90 €", "scope": scope, "tags": ["product:42"], "ttl": 60 });
    let given = post("/v1/answers", given).await;
    assert_eq!(given.status, 201, "{}", given.body);
    let exact = lookup("¿Cuánto cuesta?", &json!({ "shop": [1, 2], "model": "m" })).await;
    assert_eq!(
        (&exact["layer"], &exact["answer"], &exact["id"]),
        (&json!("exact"), &json!("19,90 €"), &given.body["id"])
    );
    assert_eq!(lookup(" ¿Cua\u{301}nto cuesta?\n", &scope).await["layer"], "normalized");
    assert_eq!(lookup("cuánto cuesta", &scope).await["hit"], false, "a mark may be what is asked about");
    assert_eq!(lookup("cuanto cuesta", &scope).await["hit"], false, "an accent makes another word");
    assert_eq!(lookup("¿Cuánto cuesta?", &json!({ "model": "n" })).await["hit"], false);
    let invalidated = post("/v1/invalidate", json!({ "tags": ["product:42"] })).await;
    assert_eq!(invalidated.status, 200);
    assert_eq!(lookup("¿Cuánto cuesta?", &scope).await["hit"], false);
    let unstored = [("cache-control", "no-store")];
    let refused = server.ask("POST", "/v1/answers", &unstored, r#"{"prompt":"a","answer":"b"}"#).await;
    assert_eq!((refused.status, refused.error().1), (400, Some("cache-control")));
    for (body, param) in [
        (json!({ "prompt": "", "answer": "a" }), "prompt"),
        (json!({ "prompt": "a" }), "answer"),
        (json!({ "prompt": "a", "answer": "a", "ttl": 0 }), "ttl"),
        (json!({ "prompt": "a", "answer": "a", "tags": ["x y"] }), "tags"),
        (json!({ "prompt": "a", "answer": "a", "scope": { "seed": 1e300 } }), "scope"),
    ] {
        let refused = post("/v1/answers", body.clone()).await;
        assert_eq!((refused.status, refused.error().1), (400, Some(param)), "{body}");
    }
}
