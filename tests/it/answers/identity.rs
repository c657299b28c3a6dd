//! Goal: requests share an answer only if their questions and scopes are equal. Method: pairs of requests before an upstream that counts
//! its calls.

use serde_json::{Value, json};

use super::{CHAT, ask, is_hit, question, start};

fn asks(system: &str, text: &str) -> Value {
    json!({ "model": "gpt-5", "messages": [{ "role": "system", "content": system }, { "role": "user", "content": text }] })
}

/// System prompts about the form of what the user writes, in words and languages that no list holds.
#[tokio::test]
async fn questions_that_differ_in_spelling_share_nothing() {
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
async fn unicode_composition_and_surrounding_space_are_normalized_by_default() {
    let (_dir, upstream, server) = start(&[]).await;
    assert!(!is_hit(&ask(&server, &question("¿Cómo es?")).await));
    for text in ["¿Co\u{301}mo es?", "  ¿Cómo es?", "¿Cómo es?\n", "\t¿Co\u{301}mo es?\u{a0}"] {
        let answer = ask(&server, &question(text)).await;
        assert!(is_hit(&answer) && answer.header("cache-status").ends_with("-normalized"), "{text:?}");
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn word_lists_are_normalized_only_if_switched_on() {
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

/// Clients that write every field of a class send null for those that were not set.
#[tokio::test]
async fn null_is_absent_where_the_api_says_so_and_goes_upstream_as_it_came() {
    let (_dir, upstream, server) = start(&[]).await;
    let body =
        r#"{"model":"m","input":"hi","previous_response_id":null, "tools":null,"instructions" : null}"#;
    assert!(!is_hit(&server.ask("POST", "/v1/responses", &[], body).await));
    assert_eq!(upstream.seen()[0].body, body, "byte for byte");
    let plain = r#"{"model":"m","input":"hi"}"#;
    assert!(is_hit(&server.ask("POST", "/v1/responses", &[], plain).await));
    // A server that is known to exist stores nothing with the first, and does with its default.
    for other in [r#"{"model":"m","input":"hi","store":null}"#, r#"{"model":"m","input":"hi","x_new":null}"#]
    {
        assert!(!is_hit(&server.ask("POST", "/v1/responses", &[], other).await), "{other}");
    }
}

/// Models write the properties of a schema in its order.
#[tokio::test]
async fn the_order_of_a_schema_is_part_of_the_scope() {
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
