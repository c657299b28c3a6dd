//! Goal: several models in one server are each as on a server of their own. Method: the program with a local model, the same one
//! with a prompt that is loaded on first use, and one on another server, whose vectors differ.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{DIM, Endpoint, vector};
use crate::model;
use crate::program::{Answer, Server, likewise, output};

fn remote_model(url: &str) -> String {
    format!(
        "[[models]]\naliases = [\"far\"]\nremote = {{ base_url = \"{url}\", model = \"mock\", dim = {DIM} }}\n"
    )
}

fn local_model(dir: &Path, more: &str) -> String {
    format!("[[models]]\nname = \"prompted\"\ndir = {dir:?}\nload = \"first_use\"\n{more}\n")
}

/// The program with the local model and with those of `models`.
fn program(dir: &TempDir, models: &str) -> Command {
    let file = dir.path().join("config.toml");
    fs_err::write(&file, models).unwrap();
    let mut program = likewise("serve", &dir.path().join("data"));
    program.arg("--config").arg(file);
    program
}

async fn embed(server: &Server, model: &str, texts: &[&str]) -> Answer {
    let body = json!({ "model": model, "input": texts }).to_string();
    server.ask("POST", "/v1/embeddings", &[], body).await
}

#[tokio::test]
async fn one_text_has_the_vector_of_each_model() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let alone = Server::start();
    let expected = alone.embed(&["una camiseta", "p: una camiseta"]).await.vectors();
    let prompted = local_model(&model::dir(), "prompts = { default = \"p: \" }");
    let server = Server::spawn(&mut program(&dir, &format!("{prompted}{}", remote_model(&endpoint.url))));
    for turn in 0..2 {
        let vectors = async |model: &str| {
            let answer = embed(&server, model, &["una camiseta"]).await;
            assert_eq!(answer.counts(), (turn, 1 - turn, 0), "{model}: {}", answer.body);
            answer.vectors().remove(0)
        };
        assert_eq!(vectors(model::NAME).await, expected[0]);
        assert_eq!(vectors("prompted").await, expected[1]);
        assert_eq!(vectors(if turn == 0 { "mock" } else { "far" }).await, vector("una camiseta", 1));
    }
    let models = server.get("/v1/models").await;
    let names: Vec<&str> =
        models.body["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(names, [model::NAME, "prompted", "mock", "far"]);
    assert_eq!(server.get("/readyz?verbose").await.body["models"], json!([model::NAME, "prompted", "mock"]));
    let unknown = embed(&server, "other", &["a"]).await;
    assert_eq!((unknown.status, unknown.error().0), (404, "model_not_found"));

    // A collection has one of them.
    let texts = "/v1/collections/texts";
    let created = server.ask("PUT", texts, &[], r#"{"model": "far"}"#).await;
    assert_eq!((created.status, &created.body["dimensions"]), (201, &json!(DIM)), "{}", created.body);
    let documents = json!({ "documents": [{ "id": "1", "text": "uno" }, { "id": "2", "text": "dos" }] });
    let stored = server.ask("POST", &format!("{texts}/documents"), &[], documents.to_string()).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let sought = json!({ "queries": ["dos"], "k": 1 }).to_string();
    let found = server.ask("POST", &format!("{texts}/search"), &[], sought).await;
    assert_eq!(found.body["results"][0][0]["id"], "2", "{}", found.body);
    assert_eq!(endpoint.texts_of("dos", 0) + endpoint.texts() as usize, 3, "each text is sent once");
}

#[tokio::test]
async fn a_model_whose_directory_vanished_is_unavailable_and_the_others_are_not() {
    let dir = TempDir::new().unwrap();
    let copy = dir.path().join("copied");
    copy_dir(&model::dir(), &copy);
    let server = Server::spawn(&mut program(&dir, &local_model(&copy, "")));
    let moved = dir.path().join("moved");
    fs_err::rename(&copy, &moved).unwrap();
    for _ in 0..2 {
        let answer = embed(&server, "prompted", &["a"]).await;
        assert_eq!((answer.status, answer.error().0), (503, "unavailable"));
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert_eq!(message, "the model `prompted` cannot be loaded");
    }
    assert_eq!(server.embed(&["a"]).await.status, 200);
    // It is tried again with each request.
    fs_err::rename(&moved, &copy).unwrap();
    assert_eq!(embed(&server, "prompted", &["a"]).await.status, 200);
}

fn copy_dir(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_dir(&from, &to) } else { _ = fs_err::copy(from, to).unwrap() }
    }
}

#[test]
fn what_is_wrong_with_one_of_several_is_named() {
    let dir = TempDir::new().unwrap();
    let local = local_model(&model::dir(), "");
    let with = |more: &str| format!("{local}{more}");
    for (models, expected) in [
        (
            "[[models]]\nname = \"none\"\n".to_owned(),
            "a model must have either dir or remote.base_url (model: models[0])",
        ),
        (
            with("[[models]]\nremote = { base_url = \"ftp://a\" }\n"),
            "models[1].remote.base_url must be http or https",
        ),
        (with("tokens_max = 100000"), "models[0].tokens_max must be at most"),
        (with("token_ids = \"model\""), "models[0].token_ids must be \"cl100k\""),
        (with("lod = \"start\""), "unknown field `lod`"),
        (format!("{local}{local}"), "two models are called `prompted` (model: models[1])"),
        (with(&format!("aliases = [{:?}]", model::NAME)), "two models are called `fake-model`"),
        ("[[models]]\ndir = \"/no/such/model\"\n".to_owned(), "(model: models[0])"),
        (with("aliases = [\"\"]"), "the name of a model must not be empty"),
        (
            format!("{}load = \"first_use\"\n", remote_model("http://127.0.0.1:9/v1")),
            "load must not be first_use",
        ),
    ] {
        let refused = output(&mut program(&dir, &models));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test]
async fn models_that_differ_in_their_prompts_are_not_mistaken_for_each_other() {
    let dir = TempDir::new().unwrap();
    let alone = Server::start();
    let expected = alone.embed(&["p: dos"]).await.vectors().remove(0);
    let server = Server::spawn(&mut program(
        &dir,
        &local_model(&model::dir(), "prompts = { default = \"p: \", document = \"p: \" }"),
    ));
    let texts = "/v1/collections/texts";
    assert_eq!(server.ask("PUT", texts, &[], r#"{"model": "prompted"}"#).await.status, 201);
    let documents = json!({ "documents": [{ "id": "1", "text": "dos" }] }).to_string();
    assert_eq!(server.ask("POST", &format!("{texts}/documents"), &[], documents).await.status, 200);
    let sought = json!({ "vectors": [expected], "k": 1 }).to_string();
    let found = server.ask("POST", &format!("{texts}/search"), &[], sought).await;
    let score = found.body["results"][0][0]["score"].as_f64().unwrap();
    assert!((score - 1.0).abs() < 1e-5, "{score}");
}

#[test]
fn options_of_a_default_model_need_one() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("config.toml");
    fs_err::write(&file, format!("{}[embed]\ntokens_max = 8\n", remote_model("http://127.0.0.1:9/v1")))
        .unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(["serve", "--data-dir"]).arg(dir.path().join("data")).arg("--config").arg(file);
    let said = String::from_utf8_lossy(&output(&mut program).stderr).into_owned();
    assert!(said.contains("embed.tokens_max must not be given without a [model]"), "{said}");
}

#[tokio::test]
async fn the_first_of_several_is_the_default_where_there_is_no_other() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let file = dir.path().join("config.toml");
    fs_err::write(&file, remote_model(&endpoint.url)).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(["serve", "--data-dir"]).arg(dir.path().join("data")).arg("--config").arg(file);
    let server = Server::spawn(&mut program);
    assert_eq!(server.get("/v1/stats").await.body["model"]["name"], "mock");
    let created = server.ask("PUT", "/v1/collections/texts", &[], "{}").await;
    assert_eq!(created.body["model"], Value::from("mock"), "{}", created.body);
}
