//! Goal: a pair is read as it was in training, and a file that is not of this format or this model is refused by name. Method: a tiny
//! network with weights of our own. That the logits of the shipped weights are those of the training is tested with the real model.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use serde_json::json;

use super::cross_encoder::Verifier;
use super::shipped::SHIPPED;
use super::weights;
use crate::embed::encoder::FloatTable;
use crate::embed::tokenizer::Tokenizer;
use crate::error::{Kind, Result};

const HIDDEN: usize = 4;
const VOCABULARY: usize = 12;
const TEXT_TOKENS_MAX: usize = 3;

fn tokenizer() -> Tokenizer {
    let tokens = ["[UNK]", "[CLS]", "[SEP]", "pay", "for", "2", "3", "bags", "me", "you", "a", "b"];
    let vocab: serde_json::Map<_, _> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    Tokenizer::from_json(json.to_string().as_bytes(), 16, false).unwrap()
}

/// A tensor of a file: its type, shape and bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// A network of one layer, its matrices in int8 with a scale of 0.01.
fn file(change: impl FnOnce(&mut HashMap<String, Stored>, &mut HashMap<String, String>)) -> Vec<u8> {
    let mut tensors: HashMap<String, Stored> = HashMap::new();
    let floats = |count: usize, value: f32| value.to_le_bytes().repeat(count);
    let mut matrix = |name: &str, rows: usize, columns: usize| {
        let bytes = (0..rows * columns).map(|n| (n * 37 % 251) as u8).collect();
        tensors.insert(format!("{name}.weight"), (Dtype::I8, vec![rows, columns], bytes));
        tensors.insert(format!("{name}.weight.scale"), (Dtype::F32, vec![rows], floats(rows, 0.01)));
    };
    matrix("embeddings.position_embeddings", 16, HIDDEN);
    matrix("embeddings.token_type_embeddings", 2, HIDDEN);
    matrix("embeddings.marks", 3, HIDDEN);
    let layer = |part: &str| format!("encoder.layer.0.{part}");
    let dense = [
        (layer("attention.self.query"), HIDDEN, HIDDEN),
        (layer("attention.self.key"), HIDDEN, HIDDEN),
        (layer("attention.self.value"), HIDDEN, HIDDEN),
        (layer("attention.output.dense"), HIDDEN, HIDDEN),
        (layer("intermediate.dense"), 8, HIDDEN),
        (layer("output.dense"), HIDDEN, 8),
        ("head.inner".to_owned(), 128, 5 * HIDDEN),
        ("head.output".to_owned(), 1, 128),
    ];
    dense.iter().for_each(|(name, rows, columns)| matrix(name, *rows, *columns));
    for (name, rows, _) in dense {
        tensors.insert(format!("{name}.bias"), (Dtype::F32, vec![rows], floats(rows, 0.1)));
    }
    for norm in
        ["embeddings.LayerNorm".to_owned(), layer("attention.output.LayerNorm"), layer("output.LayerNorm")]
    {
        tensors.insert(format!("{norm}.weight"), (Dtype::F32, vec![HIDDEN], floats(HIDDEN, 1.0)));
        tensors.insert(format!("{norm}.bias"), (Dtype::F32, vec![HIDDEN], floats(HIDDEN, 0.0)));
    }
    let mut metadata: HashMap<String, String> = [
        ("format", "likewise-verifier-1"),
        ("hidden", "4"),
        ("layers", "1"),
        ("heads", "2"),
        ("text_tokens_max", "3"),
        ("logit_min", "-0.5"),
        ("languages", "en,es"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    change(&mut tensors, &mut metadata);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    serialize(views, Some(metadata)).unwrap()
}

fn load(bytes: &[u8]) -> Result<Verifier> {
    let words: Vec<f32> = (0..VOCABULARY * HIDDEN).map(|n| (n % 7) as f32 / 7.0).collect();
    Verifier::new(bytes, tokenizer(), FloatTable::new(words, HIDDEN), 1e-12)
}

#[test]
fn a_pair_is_read_with_types_and_marks() {
    let verifier = load(&file(|_, _| {})).unwrap();
    let pair = verifier.pair("pay 2 bags", "pay 3").unwrap().unwrap();
    assert_eq!(pair.ids, [1, 3, 5, 7, 2, 3, 6, 2]);
    assert_eq!(pair.types, [0, 0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(pair.marks, [1, 1, 2, 0, 1, 1, 2, 1]);
}

#[test]
fn texts_that_are_empty_or_too_long_are_not_judged() {
    let verifier = load(&file(|_, _| {})).unwrap();
    let long = ["a"; TEXT_TOKENS_MAX + 1].join(" ");
    for (one, two) in [("", "pay"), ("pay", " "), (&long, "pay"), ("pay", &long)] {
        assert_eq!(verifier.margin(one, two).unwrap(), None, "{one:?} {two:?}");
    }
    assert!(verifier.reads("en") && verifier.reads("es") && !verifier.reads("de"));
}

#[test]
fn the_margin_depends_on_both_texts_and_their_order() {
    let verifier = load(&file(|_, _| {})).unwrap();
    let margin = |one: &str, two: &str| verifier.margin(one, two).unwrap().unwrap();
    let pairs = [margin("pay me", "pay you"), margin("pay you", "pay me"), margin("pay me", "pay me")];
    assert!(pairs.iter().all(|margin| margin.is_finite()), "{pairs:?}");
    assert!(pairs[0] != pairs[1] && pairs[0] != pairs[2], "{pairs:?}");
    assert_eq!(margin("pay me", "pay you"), pairs[0], "the same texts give the same number");
    let stricter = load(&file(|_, metadata| _ = metadata.insert("logit_min".into(), "0.5".into()))).unwrap();
    let change = stricter.margin("pay me", "pay you").unwrap().unwrap() - pairs[0];
    assert!((change + 1.0).abs() < 1e-5, "{change}");
}

#[test]
fn rows_of_int8_are_multiplied_by_their_scales() {
    let bytes = [1_u8, 255, 128, 127];
    let scales: Vec<u8> = [0.5_f32, 2.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::I8, vec![2, 2], &bytes).unwrap();
    let scale = TensorView::new(Dtype::F32, vec![2], &scales).unwrap();
    let bytes = serialize([("x", &view), ("x.scale", &scale)], None).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(weights::widened(&file, "x").unwrap(), [0.5, -0.5, -256.0, 254.0]);
}

#[test]
fn the_shipped_files_can_be_read() {
    for bytes in SHIPPED {
        let weights =
            weights::VerifierWeights::read(bytes, &FloatTable::new(vec![0.0; 384], 384), 1e-12).unwrap();
        assert_eq!((weights.text_tokens_max, weights.languages.join(",").as_str()), (48, "en,es"));
    }
}

#[test]
fn other_files_are_refused_by_what_is_wrong_with_them() {
    type Change = fn(&mut HashMap<String, Stored>, &mut HashMap<String, String>);
    let cases: [(Change, &str); 8] = [
        (|_, metadata| _ = metadata.insert("format".into(), "x".into()), "likewise-verifier-1"),
        (|_, metadata| _ = metadata.remove("heads"), "heads"),
        (|_, metadata| _ = metadata.insert("heads".into(), "three".into()), "three"),
        (|_, metadata| _ = metadata.insert("heads".into(), "3".into()), "heads"),
        (|_, metadata| _ = metadata.insert("hidden".into(), "8".into()), "shape"),
        (|_, metadata| _ = metadata.insert("text_tokens_max".into(), "9".into()), "shape"),
        (|tensors, _| _ = tensors.remove("embeddings.marks.weight.scale"), "embeddings.marks.weight"),
        (|tensors, _| _ = tensors.remove("head.output.bias"), "head.output.bias"),
    ];
    for (change, named) in cases {
        let error = load(&file(change)).err().unwrap();
        assert_eq!(error.kind(), Kind::Model);
        assert!(error.to_string().contains(named), "{error}");
    }
    assert_eq!(load(b"not a file").err().unwrap().kind(), Kind::Model);
}
