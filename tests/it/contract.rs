//! The OpenAPI document that the repository keeps is the one that the program serves.

use crate::program::Server;

#[test]
fn the_committed_contract_is_the_generated_one() {
    let committed = include_str!("../../docs/openapi.json");
    assert!(
        committed == likewise::http::openapi(),
        "docs/openapi.json has drifted: run `make openapi` and read the difference"
    );
}

#[tokio::test]
async fn every_documented_route_answers() {
    let server = Server::start();
    let contract = server.get("/openapi.json").await;
    assert_eq!(contract.body, serde_json::from_str::<serde_json::Value>(&likewise::http::openapi()).unwrap());
    assert_eq!(server.ask("PUT", "/v1/cache/products/1", &[], "one").await.status, 204);
    assert_eq!(server.ask("PUT", "/v1/collections/points", &[], r#"{"dimensions": 1}"#).await.status, 201);
    let point = r#"{"documents": [{"id": "fake-model", "vector": [1]}]}"#;
    assert_eq!(server.ask("POST", "/v1/collections/points/documents", &[], point).await.status, 200);
    for (path, methods) in contract.body["paths"].as_object().expect("paths") {
        if methods.get("get").is_some() {
            // No job was begun.
            let expected = if path == "/v1/jobs/{id}" { 404 } else { 200 };
            let path = path.replace("{id}", "fake-model");
            let path = path.replace("{namespace}", "products").replace("{key}", "1");
            let path = path.replace("{name}", "points");
            assert_eq!(server.get(&path).await.status, expected, "{path}");
        }
    }
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let server = Server::start();
    server.embed(&["hola", "hola", "adiós"]).await;
    server.embed(&["hola"]).await;
    let answer = server.get("/metrics").await;
    let text = answer.body.as_str().expect("text");
    for line in [
        "likewise_texts_total{outcome=\"hit\"} 1",
        "likewise_texts_total{outcome=\"miss\"} 2",
        "likewise_texts_total{outcome=\"coalesced\"} 1",
        "likewise_embedded_texts_total 2",
        "likewise_tier_entries{tier=\"memory\"} 2",
        "likewise_tier_entries{tier=\"disk\"} 2",
        "likewise_http_requests_total{route=\"/v1/embeddings\",status=\"200\"} 2",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
}
