//! Goal: each request reaches the upstream of its model, and unknown routes are forwarded uncached. Method: several upstreams that record
//! their requests.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CHAT, ask, counted, question, start, status, with};
use crate::inflight::metric;
use crate::program::{Server, likewise};
use crate::upstream::{Mode, Upstream};

#[tokio::test]
async fn other_routes_are_forwarded_uncached_if_there_is_an_upstream() {
    let (_dir, upstream, server) = start(&[]).await;
    upstream.usually(Mode::Reply(
        201,
        vec![("request-id", "1"), ("content-type", "text/plain")],
        "made".into(),
    ));
    for _ in 0..2 {
        let body = json!({ "model": "m", "input": "a" }).to_string();
        let answer = server.ask("POST", "/v1/moderations?a=b", &[("x-custom", "c")], body).await;
        assert_eq!(
            (answer.status, answer.body.as_str(), answer.header("request-id")),
            (201, Some("made"), "1")
        );
        assert_eq!((answer.header("content-type"), status(&answer)), ("text/plain", "fwd=bypass"));
        assert_eq!(answer.header("x-likewise-reason"), "route");
    }
    assert_eq!(counted(&server, "route").await, 2);
    let seen = upstream.seen().remove(1);
    assert_eq!((seen.path.as_str(), seen.header("x-custom")), ("/v1/moderations?a=b", Some("c")));
    assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
    assert_eq!(server.get("/v1/responses/r-1").await.status, 201);
    assert_eq!(server.get("/v1/models/own").await.status, 201);
    assert_eq!(server.ask("PUT", "/v1/invalidate", &[], "").await.status, 405);
    for path in ["a/%2e%2E/%2e%2e/admin", "..;/admin", "/answers", "%61nswers", "embeddings//"] {
        let answer = server.ask("POST", &format!("/v1/{path}"), &[], "ours").await;
        assert_eq!(answer.status, 404, "{path}: no path climbs out, and what is ours stays here");
    }
    let answer = server.ask("POST", "/v1/embeddings/", &[], "ours").await;
    assert_eq!(answer.status, 400, "a slash at its end is no other route");
    for method in ["TRACE", "OPTIONS", "BREW"] {
        let refused = server.ask(method, "/v1/files", &[], "").await;
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, "GET, HEAD, POST, PUT, PATCH, DELETE"),
            "{method}"
        );
        assert_eq!(server.ask(method, CHAT, &[], "").await.status, 405, "{method}");
    }
    let kept_only = server.ask("GET", "/v1/responses/r-1", &[("cache-control", "only-if-cached")], "").await;
    assert_eq!(kept_only.status, 504, "nothing of it is kept, and the upstream is not called");
    let unclear = server.ask("POST", "/v1/moderations", &[], r#"{"model":"a","model":"b"}"#).await;
    assert_eq!((unclear.status, unclear.error()), (400, ("invalid_input", Some("model"))));
    assert_eq!(server.get("/nothing").await.status, 404);
    for slip in ["cache/products", "collections/a/document", "invalidate/all", "answers/a/b"] {
        let answer = server.ask("PUT", &format!("/v1/{slip}"), &[], "ours").await;
        assert!([404, 405].contains(&answer.status), "{slip}: {}", answer.body);
    }
    assert_eq!(upstream.calls(), 4);
    let alone = Server::start();
    for path in [CHAT, "/v1/completions"] {
        let answer = alone.ask("POST", path, &[], question("x").to_string()).await;
        assert_eq!((answer.status, answer.error().0), (404, "not_found"));
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains("--upstream"), "{message}");
    }
    let message = alone.get("/nothing").await.body["error"]["message"].to_string();
    assert!(!message.contains("upstream"), "{message}");
}

#[tokio::test]
async fn a_request_reaches_the_upstream_of_its_model() {
    let (dir, one, two) = (TempDir::new().unwrap(), Upstream::start().await, Upstream::start().await);
    let config = format!(
        "[[upstream.routes]]\nmodels = [\"small\"]\nbase_urls = [\"{}\"]\n\
         [[upstream.routes]]\nmodels = [\"big-*\"]\nbase_urls = [\"http://127.0.0.1:9/v1\", \"{}\"]\n\
         [[upstream.prices]]\nmodels = [\"big-*\"]\nprompt_usd_per_million = 100\ncompletion_usd_per_million = 1000\n",
        one.url, two.url
    );
    fs_err::write(dir.path().join("config.toml"), config).unwrap();
    let mut program = likewise("serve", &dir.path().join("data"));
    program.arg("--config").arg(dir.path().join("config.toml")).env_remove("OPENAI_API_KEY");
    let server = Server::spawn(&mut program);
    let model = |name: &str| with(question("route me"), json!({ "model": name }));
    assert_eq!(ask(&server, &model("small")).await.status, 200);
    assert_eq!(
        ask(&server, &model("big-1")).await.status,
        200,
        "the second address answers where the first does not"
    );
    assert_eq!((one.calls(), two.calls()), (1, 1));
    assert_eq!(one.seen()[0].header("authorization"), None);
    let hit = ask(&server, &model("big-1")).await;
    assert_eq!(hit.header("x-likewise-cost-saved-usd"), "0.012000");
    let unknown = ask(&server, &model("other")).await;
    assert_eq!((unknown.status, unknown.error()), (404, ("model_not_found", Some("model"))));
    // What is listed can be asked for; an upstream that does not tell is known by what the configuration says of it.
    let described = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|id| json!({ "id": id, "owned_by": "them" })).collect();
        Mode::Reply(200, vec![("content-type", "application/json")], json!({ "data": all }).to_string())
    };
    let listed = async || {
        let list = server.get("/v1/models").await.body;
        list["data"].as_array().unwrap().iter().map(|model| model["id"].to_string()).collect::<Vec<_>>()
    };
    one.usually(Mode::Reply(500, vec![], "no".into()));
    two.usually(described(&["big-1", "small", "big-2"]));
    let failed_lists = async || metric(&server, "likewise_upstream_failed_model_lists_total").await;
    assert_eq!(failed_lists().await, 0);
    assert_eq!(listed().await, [r#""fake-model""#, r#""small""#, r#""big-1""#, r#""big-2""#]);
    assert_eq!(failed_lists().await, 1);
    one.usually(described(&["small", "other"]));
    two.usually(Mode::Reply(200, vec![], "[]".into()));
    assert_eq!(listed().await, [r#""fake-model""#, r#""small""#]);
    assert_eq!(failed_lists().await, 2, "a body that is no list is none");
    two.usually(Mode::Reply(200, vec![], "a big one".into()));
    assert_eq!(server.get("/v1/models/big-2").await.body, "a big one");
    assert_eq!(server.get("/v1/models/big-2/of/many").await.body, "a big one");
    let form = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nbig-2\r\n--x--\r\n";
    let is_form = [("content-type", "multipart/form-data; boundary=x")];
    let heard = server.ask("POST", "/v1/audio/transcriptions", &is_form, form).await;
    assert_eq!((heard.status, heard.body.as_str()), (200, Some("a big one")));
    assert_eq!(server.get("/v1/models/other").await.error(), ("model_not_found", Some("model")));
    assert_eq!(server.get("/v1/models/fake-model").await.body["owned_by"], "likewise");
}
