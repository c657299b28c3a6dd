//! Goal: what the upstream answers to the question of a hit is compared by what it says. Method: an upstream whose second answer is the first one in
//! other words, or is about something else.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Server, likewise, until};
use crate::upstream::{Mode, Upstream};

const FIRST: &str = "You can return any item within 30 days and we refund the full price to your card.";

fn reply(text: &str) -> Mode {
    let choice =
        json!({ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } });
    let body = json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5", "choices": [choice] });
    Mode::Reply(200, vec![("content-type", "application/json")], body.to_string())
}

async fn differing_after(second: &str) -> u64 {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut program = likewise("serve", dir.path());
    program.arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours");
    program.env("LIKEWISE__ANSWERS__SEMANTIC__REASK_SHARE", "1");
    let server = Server::spawn(&mut program);
    let ask = async |question: &str| {
        let body = json!({ "model": "gpt-5", "cache": { "semantic": true }, "messages": [{ "role": "user", "content": question }] });
        server.ask("POST", "/v1/chat/completions", &[], body.to_string()).await
    };
    upstream.usually(reply(FIRST));
    ask("What is your refund policy?").await;
    upstream.usually(reply(second));
    let hit = ask("what's the policy on refunds?").await;
    assert_eq!(hit.body["choices"][0]["message"]["content"], Value::from(FIRST));
    until("the answers are compared", async || server.stat("/answers/semantic/reasked").await == 1).await;
    server.stat("/answers/semantic/reasked_differing").await
}

#[tokio::test]
async fn an_answer_in_other_words_agrees_and_one_about_something_else_differs() {
    let reworded = "Returns are possible for 30 days after the purchase; the whole price of the item goes back to your card.";
    assert_eq!(differing_after(reworded).await, 0);
    assert_eq!(
        differing_after("Our shop in Madrid opens at nine in the morning from Monday to Friday.").await,
        1
    );
}
