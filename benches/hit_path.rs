//! How much does a hit cost on top of the HTTP request that carries it?
//!
//! The server, and a bare axum handler that reads the same body and returns the same prepared bytes. One cached text,
//! base64.

use std::process::Command;

use likewise_benches::beside::{Server, compare, serve_if_bare};
use likewise_benches::load::{Connection, post};
use likewise_benches::print_circumstances;

const BODY: &str =
    r#"{"model":"all-MiniLM-L6-v2","input":"una camiseta azul de algodón","encoding_format":"base64"}"#;
const PATH: &str = "/v1/embeddings";

#[tokio::main]
async fn main() {
    serve_if_bare().await;
    print_circumstances("hit_path");
    let binary = std::env::var("LIKEWISE_BINARY").expect("run this by `make bench NAME=hit_path`");
    let model = std::env::var("LIKEWISE_TEST_MODEL").expect("run this by `make bench NAME=hit_path`");
    let data = tempfile::tempdir().expect("a temporary directory");
    let own = Server::start(
        Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--model", &model, "--data-dir"])
            .arg(data.path())
            .env("LIKEWISE__MODEL__NAME", "all-MiniLM-L6-v2")
            .env("LIKEWISE_LOG", "warn"),
    );
    let request = |address| post(address, PATH, BODY);
    let (status, prepared) = Connection::open(own.address).await.ask(&request(own.address)).await;
    assert_eq!(status, 200);
    compare("likewise hit", &own, &Server::bare(prepared), request).await;
}
