//! Goal: a directory is read as sentence-transformers reads it, or refused by name. Method: directories of a few bytes.

use super::*;

const CONFIG: &str = r#"{"model_type":"bert","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,
    "intermediate_size":16,"vocab_size":10,"max_position_embeddings":64,"hidden_act":"gelu"}"#;

fn read(files: &[(&str, &str)], name: &str) -> Result<ModelDir> {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    ModelDir::read(dir.path(), name)
}

fn refused(files: &[(&str, &str)]) -> String {
    let error = read(files, "m").unwrap_err();
    assert_eq!(error.kind(), Kind::Model);
    error.to_string()
}

#[test]
fn a_bare_directory_is_a_transformer_with_mean_pooling() {
    let model = read(&[("config.json", CONFIG)], "m").unwrap();
    assert_eq!((model.pooling, model.normalizes, model.tokens_max), (Pooling::Mean, false, 64));
    let e5 = read(&[("config.json", CONFIG)], "multilingual-e5-small").unwrap();
    assert!(e5.normalizes);
    assert_eq!(e5.prompts.query.as_deref(), Some("query: "));
}

/// Fingerprints of models are hashes of this text too: another one would make every stored vector useless.
#[test]
fn a_shape_is_written_as_ever() {
    let shape = read(&[("config.json", CONFIG)], "m").unwrap().shape;
    let text = "EncoderShape { hidden: 8, layers: 1, heads: 2, feed_forward: 16, vocabulary: 10, positions: 64, \
                first_position: 0, norm_epsilon: 1e-12, activation: Gelu }";
    assert_eq!(format!("{shape:?}"), text);
    let written = [Activation::Gelu, Activation::GeluTanh, Activation::Relu]
        .map(|activation| format!("{activation:?}"));
    assert_eq!(written, ["Gelu", "GeluTanh", "Relu"]);
}

#[test]
fn the_models_own_length_wins_over_the_tokenizers() {
    let files = [
        ("config.json", CONFIG),
        ("sentence_bert_config.json", r#"{"max_seq_length":32}"#),
        ("tokenizer_config.json", r#"{"model_max_length":16}"#),
    ];
    assert_eq!(read(&files, "m").unwrap().tokens_max, 32);
    assert_eq!(read(&[files[0], files[2]], "m").unwrap().tokens_max, 16);
    let unlimited = ("tokenizer_config.json", r#"{"model_max_length":1e30}"#);
    assert_eq!(read(&[files[0], unlimited], "m").unwrap().tokens_max, 64);
}

#[test]
fn modules_are_read_and_their_folders_may_be_absent() {
    let modules = r#"[{"path":"","type":"sentence_transformers.models.Transformer"},
        {"path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
        {"path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#;
    let pooling = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#;
    let files = [("config.json", CONFIG), ("modules.json", modules), ("1_Pooling/config.json", pooling)];
    let model = read(&files, "m").unwrap();
    assert_eq!((model.pooling, model.normalizes), (Pooling::Cls, true));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let dense = r#"[{"path":"","type":"sentence_transformers.models.Transformer"},
        {"path":"2_Dense","type":"sentence_transformers.models.Dense"}]"#;
    let message = refused(&[("config.json", CONFIG), ("modules.json", dense)]);
    assert!(message.contains("models.Dense") && message.contains("modules.json"), "{message}");
    let message = refused(&[("config.json", &CONFIG.replace("\"bert\"", "\"mpnet\""))]);
    assert!(message.contains("mpnet") && message.contains("config.json"), "{message}");
    let message =
        refused(&[("config.json", &CONFIG.replace("\"intermediate_size\":16", "\"intermediate_size\":0"))]);
    assert!(message.contains("intermediate_size"), "{message}");
    let message = refused(&[("config.json", &CONFIG.replace("gelu", "swish"))]);
    assert!(message.contains("swish"), "{message}");
    let modules = dense.replace("2_Dense", "1_Pooling").replace("Dense", "Pooling");
    let both = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true}"#;
    let message =
        refused(&[("config.json", CONFIG), ("modules.json", &modules), ("1_Pooling/config.json", both)]);
    assert!(message.contains("cls+mean"), "{message}");
}

#[test]
fn missing_and_malformed_files_are_named() {
    assert!(refused(&[]).contains("config.json"));
    assert!(refused(&[("config.json", "{")]).contains("config.json"));
    assert!(refused(&[("config.json", CONFIG), ("modules.json", "[1]")]).contains("modules.json"));
}

#[test]
fn other_fields_that_change_vectors_are_obeyed_or_refused() {
    let with = |member: &str| CONFIG.replacen('{', &format!("{{{member},"), 1);
    for member in
        [r#""is_decoder":true"#, r#""pruned_heads":{"0":[1]}"#, r#""quantization_config":{"bits":4}"#]
    {
        let message = refused(&[("config.json", &with(member))]);
        assert!(message.contains(member.split('"').nth(1).unwrap()), "{message}");
    }
    let harmless = with(r#""is_decoder":false,"pruned_heads":{},"quantization_config":null"#);
    assert!(read(&[("config.json", &harmless)], "m").is_ok());
    let only = r#"[{"path":"","type":"sentence_transformers.models.Transformer"}]"#;
    assert!(refused(&[("config.json", CONFIG), ("modules.json", only)]).contains("pooling module"));
    assert!(refused(&[("config.json", CONFIG), ("adapter_config.json", "{}")]).contains("adapter"));
    let roberta = ("sentence_xlm-roberta_config.json", r#"{"max_seq_length":16,"do_lower_case":true}"#);
    let model = read(&[("config.json", CONFIG), roberta], "m").unwrap();
    assert!(model.tokens_max == 16 && model.lowercases);
    for (own, word) in [
        (r#"{"model_type":"SparseEncoder"}"#, "SparseEncoder"),
        (r#"{"prompts":{"query":"q"},"default_prompt_name":"other"}"#, "default_prompt_name `other`"),
    ] {
        let message = refused(&[("config.json", CONFIG), ("config_sentence_transformers.json", own)]);
        assert!(message.contains(word), "{message}");
    }
    let dot = (
        "config_sentence_transformers.json",
        r#"{"similarity_fn_name":"dot","model_type":"SentenceTransformer"}"#,
    );
    assert!(read(&[("config.json", CONFIG), dot], "m").is_ok());
}

#[test]
fn prompts_of_the_directory_win_over_the_familys() {
    let own = r#"{"prompts":{"query":"Q: ","document":""},"default_prompt_name":"query"}"#;
    let files = [("config.json", CONFIG), ("config_sentence_transformers.json", own)];
    let prompts = read(&files, "e5-base").unwrap().prompts;
    assert_eq!(prompts.query.as_deref(), Some("Q: "));
    assert_eq!(prompts.default.as_deref(), Some("Q: "));
    assert_eq!(prompts.document.as_deref(), Some("passage: "));
}
