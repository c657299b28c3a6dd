//! Models that answer every request at once and remember nothing, for long runs.

use std::convert::Infallible;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Starts it, and returns its address. It ends with the runtime of its test.
pub(super) async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // A server that is stopped breaks its connections.
            tokio::spawn(async move { _ = connection.await });
        }
    });
    url
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = axum::body::to_bytes(Body::new(request.into_body()), 1 << 26).await.unwrap_or_default();
    // As a model does with what its parser refuses, such as values that are nested too deep for it.
    let Ok(asked) = serde_json::from_slice::<Value>(&body) else {
        let refusal = json!({ "error": { "message": "no JSON", "type": "invalid_request_error" } });
        return Ok(response(400, "application/json", refusal.to_string()));
    };
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let choice = |name: &str| {
        let message = json!({ "role": "assistant", "content": "an answer of a few words" });
        json!({ "index": 0, name: message, "finish_reason": "stop" })
    };
    let (kind, text) = if let Some(inputs) = asked["input"].as_array() {
        let object = |(index, input): (usize, &Value)| json!({ "index": index, "embedding": [input.to_string().len(), 1] });
        let data: Vec<Value> = inputs.iter().enumerate().map(object).collect();
        ("application/json", json!({ "object": "list", "data": data, "usage": usage }).to_string())
    } else if asked["stream"] == true {
        let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice("delta")] });
        ("text/event-stream", format!("data: {chunk}\n\ndata: [DONE]\n\n"))
    } else {
        let whole = json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice("message")], "usage": usage });
        ("application/json", whole.to_string())
    };
    Ok(response(200, kind, text))
}

fn response(status: u16, kind: &str, text: String) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", kind);
    response.body(Body::from(text)).expect("a response")
}
