//! A model of one layer with random weights: a directory as sentence-transformers keeps it, of 4 MB, made in milliseconds.
//!
//! Its tokens are bytes, so that texts that differ have vectors that differ. What the vectors mean is tested with a real model, in
//! `tests/real_model`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};

/// How the model is served.
pub(crate) const NAME: &str = "fake-model";

const HIDDEN: usize = 384;
const FEED_FORWARD: usize = 16;
const TOKENS_MAX: usize = 256;

/// The directory of the model. It is made once in a run of the tests.
pub(crate) fn dir() -> PathBuf {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(NAME);
        write(&dir).expect("the target directory is writable");
        dir
    });
    DIR.clone()
}

fn write(dir: &Path) -> std::io::Result<()> {
    let tokenizer = tokenizer();
    let words = tokenizer["model"]["vocab"].as_object().expect("a vocabulary").len();
    let modules: Vec<Value> = ["Transformer", "Pooling", "Normalize"]
        .iter()
        .enumerate()
        .map(|(n, module)| {
            let path = if n == 0 { String::new() } else { format!("{n}_{module}") };
            json!({ "path": path, "type": format!("sentence_transformers.models.{module}") })
        })
        .collect();
    let config = json!({ "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 12,
        "intermediate_size": FEED_FORWARD, "vocab_size": words, "max_position_embeddings": TOKENS_MAX });
    let pooling = json!({ "pooling_mode_mean_tokens": true });
    fs_err::create_dir_all(dir.join("1_Pooling"))?;
    replace(&dir.join("modules.json"), json!(modules).to_string().as_bytes())?;
    replace(&dir.join("1_Pooling/config.json"), pooling.to_string().as_bytes())?;
    replace(&dir.join("config.json"), config.to_string().as_bytes())?;
    replace(&dir.join("tokenizer.json"), tokenizer.to_string().as_bytes())?;
    replace(&dir.join("model.safetensors"), &weights(words))
}

/// Writes a file in one step: a server of a run beside this one may be reading it.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension(std::process::id().to_string());
    fs_err::write(&draft, bytes)?;
    fs_err::rename(draft, path)
}

/// Byte pairs without a merge: a token for each byte of a text.
fn tokenizer() -> Value {
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('Ā'..='ń').map(String::from);
    let tokens = ["<s>", "</s>"].map(String::from).into_iter().chain(bytes);
    let vocab: serde_json::Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": { "type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": true,
            "add_prefix_space": false },
        "decoder": null,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [] },
    })
}

/// All tensors, in the format of safetensors: the length of the header, the header, the numbers.
fn weights(words: usize) -> Vec<u8> {
    let (mut header, mut numbers) = (serde_json::Map::new(), Vec::new());
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut tensor = |name: String, shape: &[usize], number: &mut dyn FnMut() -> f32| {
        let start = numbers.len();
        numbers.extend((0..shape.iter().product()).flat_map(|_| number().to_le_bytes()));
        let tensor = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, numbers.len()] });
        header.insert(name, tensor);
    };
    tensor("embeddings.word_embeddings.weight".into(), &[words, HIDDEN], &mut random);
    // Positions weigh less than words, so that texts of the same words are near each other.
    tensor("embeddings.position_embeddings.weight".into(), &[TOKENS_MAX, HIDDEN], &mut || random() / 8.0);
    let layer = "encoder.layer.0";
    let norms = ["attention.output", "output"].map(|part| format!("{layer}.{part}"));
    for part in norms.iter().map(String::as_str).chain(["embeddings"]) {
        tensor(format!("{part}.LayerNorm.weight"), &[HIDDEN], &mut || 1.0);
        tensor(format!("{part}.LayerNorm.bias"), &[HIDDEN], &mut || 0.0);
    }
    for (part, inputs, outputs) in [
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", HIDDEN, FEED_FORWARD),
        ("output.dense", FEED_FORWARD, HIDDEN),
    ] {
        let scale = 1.0 / (inputs as f32).sqrt();
        tensor(format!("{layer}.{part}.weight"), &[outputs, inputs], &mut || random() * scale);
        tensor(format!("{layer}.{part}.bias"), &[outputs], &mut || 0.0);
    }
    let header = Value::from(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), &numbers].concat()
}
