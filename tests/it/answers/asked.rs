//! What belongs to a question: the words of it as they are, the order of a schema, and who asks.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CHAT, ask, is_hit, question, start};
use crate::program::{Answer, likewise, output};
use crate::upstream::{Mode, Upstream};

fn asks(system: &str, text: &str) -> Value {
    json!({ "model": "gpt-5", "messages": [{ "role": "system", "content": system }, { "role": "user", "content": text }] })
}

/// System prompts about the form of what the user writes, in words and languages that no list holds.
#[tokio::test]
async fn spellings_of_a_question_are_questions_of_their_own() {
    let (_dir, upstream, server) = start(&[]).await;
    let prompts = [
        "Answer YES if the line ends with a question mark, otherwise NO.",
        "Check the orthography of the user.",
        "Point out any typo.",
        "Is the first word in lower case or upper case?",
        "Antworte JA, wenn die Frage mit einem Fragezeichen endet.",
        "Wiederhole die Frage.",
        "翻译成英文",
        "Ripeti ciò che dice l'utente.",
        "Traduis en anglais.",
        "ユーザーの文をそのまま返してください。",
        "Say it back to me.",
        "be kind",
    ];
    for prompt in prompts {
        let calls = upstream.calls();
        for text in ["What is it?", "what is it?", "What is it", "what is it", "What is it.", "What is  it?"]
        {
            assert!(!is_hit(&ask(&server, &asks(prompt, text)).await), "{prompt}: {text}");
        }
        assert_eq!(upstream.calls(), calls + 6);
        assert!(is_hit(&ask(&server, &asks(prompt, "What is it?")).await));
    }
    for (one, two) in [
        ("Does this end with a question mark?", "Does this end with a question mark"),
        ("Does my question start with a capital?", "does my question start with a capital?"),
    ] {
        assert!(!is_hit(&ask(&server, &question(one)).await));
        assert!(!is_hit(&ask(&server, &question(two)).await), "{two}");
    }
}

#[tokio::test]
async fn composed_letters_and_space_around_a_question_join_by_default() {
    let (_dir, upstream, server) = start(&[]).await;
    assert!(!is_hit(&ask(&server, &question("¿Cómo es?")).await));
    for text in ["¿Co\u{301}mo es?", "  ¿Cómo es?", "¿Cómo es?\n", "\t¿Co\u{301}mo es?\u{a0}"] {
        let answer = ask(&server, &question(text)).await;
        assert!(is_hit(&answer) && answer.header("cache-status").ends_with("-normalized"), "{text:?}");
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn closed_lists_join_only_where_they_are_switched_on() {
    let (_dir, _upstream, server) = start(&[("LIKEWISE__ANSWERS__NORMALIZE_QUESTIONS", "true")]).await;
    assert!(!is_hit(&ask(&server, &question("What is it?")).await));
    let joined = ask(&server, &question("what is it")).await;
    assert!(is_hit(&joined) && joined.header("cache-status").ends_with("detail=memory-normalized"));
    assert!(!is_hit(&ask(&server, &asks("Correct what the user writes.", "What is it?")).await));
    assert!(!is_hit(&ask(&server, &asks("Correct what the user writes.", "what is it")).await));
    // What was joined by the lists is not found without them.
    let (dir, upstream, first) = start(&[("LIKEWISE__ANSWERS__NORMALIZE_QUESTIONS", "true")]).await;
    assert!(!is_hit(&ask(&first, &question("what is it")).await));
    super::quiet(&first).await;
    first.kill();
    let server = super::start_in(dir.path(), &upstream, &[]);
    assert!(!is_hit(&ask(&server, &question("What is it?")).await));
}

/// Models write the properties of a schema in its order.
#[tokio::test]
async fn the_order_of_a_schema_is_part_of_the_question() {
    let (_dir, upstream, server) = start(&[]).await;
    let places = [
        r#""response_format":{"type":"json_schema","json_schema":{"name":"x","schema":SCHEMA}}"#,
        r#""tools":[{"type":"function","function":{"name":"x","parameters":SCHEMA}}]"#,
        r#""functions":[{"name":"x","parameters":SCHEMA}]"#,
        r#""guided_json":SCHEMA"#,
        r#""x_unheard_of":{"deep":[SCHEMA]}"#,
    ];
    let asked = async |place: &str, [one, two]: [&str; 2]| {
        let schema = format!(r#"{{"type":"object","properties":{{"{one}":{{}},"{two}":{{}}}}}}"#);
        let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
        let body = format!(r#"{{"model":"m",{messages},{}}}"#, place.replace("SCHEMA", &schema));
        server.ask("POST", CHAT, &[], body).await
    };
    for place in places {
        let calls = upstream.calls();
        assert!(!is_hit(&asked(place, ["reasoning", "answer"]).await), "{place}");
        assert!(!is_hit(&asked(place, ["answer", "reasoning"]).await), "{place}");
        assert!(is_hit(&asked(place, ["reasoning", "answer"]).await), "{place}");
        assert_eq!(upstream.calls(), calls + 2);
    }
}

/// Services put keys into headers of their own.
#[tokio::test]
async fn every_header_that_holds_a_credential_tells_clients_apart() {
    let (_dir, upstream, server) = start(&[]).await;
    let asked = async |headers: &[(&str, &str)]| {
        server.ask("POST", CHAT, headers, question("mine").to_string()).await
    };
    let clients: [&[(&str, &str)]; 16] = [
        &[],
        &[("api-key", "one")],
        &[("api-key", "two")],
        &[("x-api-key", "one")],
        &[("x-goog-api-key", "one")],
        &[("ocp-apim-subscription-key", "one")],
        &[("x-auth-token", "one")],
        &[("x-unheard-of-token", "one")],
        &[("cookie", "session=one")],
        &[("proxy-authorization", "Basic b25l")],
        &[("authorization", "Bearer one")],
        &[("authorization", "Bearer one"), ("api-key", "one")],
        &[("authorization", "Bearer one"), ("api-key", "two")],
        &[("authorization", "Bearer one"), ("authorization", "Bearer two")],
        &[("authorization", "Bearer two"), ("authorization", "Bearer one")],
        &[("authorization", "")],
    ];
    for client in clients {
        assert!(!is_hit(&asked(client).await), "{client:?}");
    }
    for client in clients {
        assert!(is_hit(&asked(client).await), "{client:?}");
    }
    // Nor are they another's to see.
    for seen in upstream.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
        let shown = seen.headers.iter().filter(|(_, value)| value.contains("one") || value.contains("two"));
        assert_eq!(shown.count(), 0, "{:?}", seen.headers);
    }
    // Nor in the query.
    server.ask("POST", &format!("{CHAT}?api-version=1&api-key=one"), &[], question("mine").to_string()).await;
    server.ask("POST", "/v1/moderations?key=one", &[], r#"{"model":"m"}"#).await;
    let paths: Vec<String> = upstream.seen().into_iter().rev().take(2).map(|seen| seen.path).collect();
    assert_eq!(paths, ["/v1/moderations", "/v1/chat/completions?api-version=1"]);
    // A header that is no credential does not separate clients.
    assert!(is_hit(&asked(&[("idempotency-key", "1"), ("x-stainless-retry-count", "1")]).await));
    let given = async |key: &str, path: &str, body: Value| {
        server.ask("POST", path, &[("api-key", key)], body.to_string()).await
    };
    assert_eq!(given("one", "/v1/answers", json!({ "prompt": "a", "answer": "b" })).await.status, 201);
    let found =
        async |key| given(key, "/v1/answers/lookup", json!({ "prompt": "a" })).await.body["hit"].clone();
    assert_eq!((found("one").await, found("two").await), (json!(true), json!(false)));
}

#[tokio::test]
async fn a_credential_is_passed_on_only_where_clients_keys_are() {
    let credentials =
        [("api-key", "a-key"), ("x-api-key", "x-key"), ("x-goog-api-key", "g-key"), ("cookie", "c-key")];
    let everywhere = async |server: &crate::program::Server| {
        server.ask("POST", CHAT, &credentials, question("mine").to_string()).await;
        server.ask("POST", "/v1/messages", &credentials, r#"{"model":"m"}"#).await;
        server.ask("GET", "/v1/models/m", &credentials, "").await;
        server.ask("GET", "/v1/models", &credentials, "").await;
    };
    let (_dir, upstream, server) = start(&[]).await;
    everywhere(&server).await;
    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    for seen in seen {
        assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
        assert!(!format!("{:?}", seen.headers).contains("-key\""), "{:?}", seen.headers);
    }
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    everywhere(&server).await;
    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    for seen in seen {
        assert_eq!((seen.header("api-key"), seen.header("x-api-key")), (Some("a-key"), Some("x-key")));
        assert_eq!((seen.header("x-goog-api-key"), seen.header("cookie")), (Some("g-key"), None));
        assert_eq!(seen.header("authorization"), None);
        let lines = seen.headers.iter().filter(|(name, _)| name.ends_with("api-key")).count();
        assert_eq!(lines, 3, "each once: {:?}", seen.headers);
    }
}

#[test]
fn a_credential_is_no_header_to_be_forwarded() {
    for name in ["api-key", "X-Api-Key", "authorization", "cookie", "ocp-apim-subscription-key"] {
        let dir = TempDir::new().unwrap();
        let mut program = likewise("serve", dir.path());
        program.args(["--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9/v1"]);
        let output =
            output(program.env("LIKEWISE__UPSTREAM__FORWARDED_HEADERS", format!("openai-beta,{name}")));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("forwarded_headers"), "{name}: {said}");
        assert!(said.to_lowercase().contains(&name.to_lowercase()), "{said}");
    }
}

fn is_not_listed(answer: &Answer) -> bool {
    let message = answer.body["error"]["message"].as_str().unwrap_or_default();
    answer.status == 404 && answer.error().0 == "not_found" && message.contains("upstream.forwards")
}

#[tokio::test]
async fn the_operators_key_is_used_for_what_is_listed_only() {
    let (_dir, upstream, server) = start(&[]).await;
    upstream.usually(Mode::Reply(200, vec![], "theirs".into()));
    let body = r#"{"model":"m"}"#;
    let listed = [
        ("POST", "/v1/fim/completions"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_1"),
        ("HEAD", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items?limit=1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/rerank"),
        ("GET", "/v1/models/other"),
    ];
    for (method, path) in listed {
        assert_eq!(server.ask(method, path, &[], body).await.status, 200, "{method} {path}");
    }
    assert_eq!(upstream.calls(), listed.len());
    let paths = [
        "files",
        "files/file-1/content",
        "organization/users",
        "organization/admin_api_keys",
        "fine_tuning/jobs",
        "batches",
        "vector_stores",
        "assistants",
        "threads/t/messages",
        "uploads",
        "evals",
        "containers",
        "realtime/client_secrets",
        "Files",
        "%66iles",
        "responses/%252e%252e%252ffiles",
        "models/x%3f/files",
        "chat/completions/chatcmpl-1",
    ];
    for path in paths {
        for method in ["GET", "POST", "DELETE"] {
            let answer = server.ask(method, &format!("/v1/{path}"), &[], body).await;
            assert!(is_not_listed(&answer), "{method} {path}: {}", answer.body);
        }
    }
    for (method, path) in [("GET", CHAT), ("DELETE", "/v1/models/m"), ("GET", "/v1/completions")] {
        assert!(is_not_listed(&server.ask(method, path, &[], "").await), "{method} {path}");
    }
    // Nor does a header make another request of it.
    for name in ["x-http-method-override", "x-original-url", "x-rewrite-url"] {
        server.ask("POST", "/v1/moderations", &[(name, "DELETE")], body).await;
        assert_eq!(upstream.seen().last().unwrap().header(name), None, "{name}");
    }
    assert_eq!(upstream.calls(), listed.len() + 3);

    let own = ("LIKEWISE__UPSTREAM__FORWARDS", "GET /files/*,* /threads/**");
    let (_dir, upstream, server) = start(&[own]).await;
    upstream.usually(Mode::Reply(200, vec![], "theirs".into()));
    for (method, path) in [("GET", "/v1/files/f"), ("PATCH", "/v1/threads/a/b/c")] {
        assert_eq!(server.ask(method, path, &[], "").await.status, 200, "{method} {path}");
    }
    assert!(is_not_listed(&server.ask("POST", "/v1/moderations", &[], body).await));
    assert!(!is_hit(&ask_listed(&server).await), "what is served here is no matter of the list");
}

async fn ask_listed(server: &crate::program::Server) -> Answer {
    ask(server, &question("listed")).await
}

/// Which upstream is asked decides whose key it is, and a model is named in a path, in JSON or in a form.
#[tokio::test]
async fn the_list_does_not_bind_where_clients_keys_are_passed_on() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    upstream.usually(Mode::Reply(200, vec![], "theirs".into()));
    let mine = [("authorization", "Bearer mine")];
    for (method, path) in [("GET", "/v1/files"), ("DELETE", "/v1/models/m"), ("GET", CHAT)] {
        assert_eq!(server.ask(method, path, &mine, "").await.status, 200, "{method} {path}");
        assert_eq!(upstream.seen().last().unwrap().header("authorization"), Some("Bearer mine"));
    }

    let (dir, theirs, ours) = (TempDir::new().unwrap(), Upstream::start().await, Upstream::start().await);
    theirs.usually(Mode::Reply(200, vec![], "theirs".into()));
    let config = format!(
        "[upstream]\nbase_url = \"{}\"\n[[upstream.routes]]\nmodels = [\"own-*\"]\nbase_urls = [\"{}\"]\nforward_client_key = true\n",
        ours.url, theirs.url
    );
    fs_err::write(dir.path().join("config.toml"), config).unwrap();
    let mut program = likewise("serve", &dir.path().join("data"));
    program.arg("--config").arg(dir.path().join("config.toml")).env("OPENAI_API_KEY", "sk-ours");
    let server = crate::program::Server::spawn(&mut program);
    let form = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nown-1\r\n--x--\r\n";
    let is_form = [("content-type", "multipart/form-data; boundary=x"), mine[0]];
    assert_eq!(server.ask("POST", "/v1/files", &is_form, form).await.status, 200);
    assert_eq!(server.ask("POST", "/v1/batches", &mine, r#"{"model":"own-1"}"#).await.status, 200);
    assert_eq!(server.ask("DELETE", "/v1/models/own-1", &mine, "").await.status, 200);
    assert_eq!(theirs.calls(), 3);
    assert!(theirs.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer mine")));
    for (path, body) in [
        ("/v1/files", ""),
        ("/v1/files?model=own-1", ""),
        ("/v1/batches", r#"{"model":"other"}"#),
        ("/v1/batches", r#"["own-1"]"#),
        ("/v1/batches", "model=own-1"),
    ] {
        assert!(is_not_listed(&server.ask("POST", path, &mine, body).await), "{path} {body}");
    }
    assert_eq!(ours.calls(), 0);
}
