//! Goal: a server without an embedding model serves all that needs none, and says what it lacks. Method: the program with
//! `--model none`.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Server, output, without_model};
use crate::upstream::Upstream;

#[tokio::test]
async fn objects_answers_and_vectors_of_clients_are_served() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut program = without_model(dir.path());
    let server = Server::spawn(program.args(["--upstream", &upstream.url]).env("OPENAI_API_KEY", "sk"));
    let ready = server.get("/readyz?verbose").await;
    assert_eq!((ready.status, &ready.body["models"]), (200, &json!([])));
    assert_eq!(server.ask("PUT", "/v1/cache/products/1", &[], "one").await.status, 204);
    assert_eq!(server.get("/v1/cache/products/1").await.body, json!("one"));

    let points = "/v1/collections/points";
    assert_eq!(server.ask("PUT", points, &[], r#"{"dimensions": 2}"#).await.status, 201);
    let documents =
        json!({ "documents": [{ "id": "1", "vector": [1, 0] }, { "id": "2", "vector": [0, 1] }] });
    let stored = server.ask("POST", &format!("{points}/documents"), &[], documents.to_string()).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let search =
        async |query: Value| server.ask("POST", &format!("{points}/search"), &[], query.to_string()).await;
    let found = search(json!({ "vectors": [[0.1, 1]], "k": 1 })).await;
    assert_eq!(found.body["results"][0][0]["id"], "2", "{}", found.body);
    let by_text = search(json!({ "queries": ["uno"], "k": 1 })).await;
    assert_eq!((by_text.status, by_text.error().0), (409, "conflict"));
    let no_length = server.ask("PUT", "/v1/collections/texts", &[], "{}").await;
    assert_eq!((no_length.status, no_length.error()), (400, ("invalid_input", Some("dimensions"))));
    let message = no_length.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("this server has no embedding model"), "{message}");

    let question = json!({
        "model": "gpt-5-mini", "messages": [{ "role": "user", "content": "¿Qué talla?" }],
        "cache": { "semantic": true }
    });
    for (outcome, semantic) in [("fwd=miss", "unavailable; because=model"), ("hit", "")] {
        let answer = server.ask("POST", "/v1/chat/completions", &[], question.to_string()).await;
        assert_eq!((answer.status, answer.header("x-likewise-semantic")), (200, semantic), "{}", answer.body);
        assert!(answer.header("cache-status").contains(outcome), "{}", answer.header("cache-status"));
    }
    assert_eq!(upstream.calls(), 1);
    let reworded = json!({ "prompt": "¿Qué talla es?", "semantic": true }).to_string();
    let lookup = server.ask("POST", "/v1/answers/lookup", &[], reworded).await;
    let reason = lookup.body["reason"].as_str().unwrap();
    assert!(reason.contains("(model)"), "{reason}");
}

#[tokio::test]
async fn a_request_for_a_model_is_refused_with_what_is_missing() {
    let dir = TempDir::new().unwrap();
    let server = Server::spawn(&mut without_model(dir.path()));
    assert_eq!(server.get("/v1/models").await.body["data"], json!([]));
    assert!(server.get("/v1/stats").await.body.get("model").is_none());
    let body = json!({ "model": "any", "input": "a" }).to_string();
    let answer = server.ask("POST", "/v1/embeddings", &[], body).await;
    assert_eq!((answer.status, answer.error()), (404, ("model_not_found", Some("model"))));
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("this server has no embedding model; start it with --model MODEL"), "{message}");
    let page = server.ask("GET", "/", &[("accept", "text/html")], "").await.body.to_string();
    assert!(page.contains("Embedding model: none."), "{page}");
}

#[test]
fn questions_in_other_words_need_a_model() {
    let dir = TempDir::new().unwrap();
    let mut program = without_model(dir.path());
    let refused = output(program.env("LIKEWISE__ANSWERS__SEMANTIC__NAMESPACES", "default"));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("answers.semantic.namespaces must be empty without an embedding model"), "{said}");
}
