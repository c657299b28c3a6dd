//! Goal: a long text gives the tokens that it would give if all of it were tokenized. Method: the three kinds of tokenizers
//! that supported models have, in small, and texts made of pieces that are hard for them.

use serde_json::{Value, json};

use super::*;

const TOKENS_MAX: usize = 8;

fn letters(start: &str) -> impl Iterator<Item = String> {
    ('a'..='z').map(move |letter| format!("{start}{letter}"))
}

/// BERT's: words at spaces and punctuation, a long word is unknown.
fn word_piece() -> Value {
    let words = ["[UNK]", "[CLS]", "[SEP]", "the", "##ing", ".", "-", "中", "文"].map(str::to_owned);
    let tokens = words.into_iter().chain(letters("")).chain(letters("##"));
    let vocab: serde_json::Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(1, "[CLS]"), special(2, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

/// XLM-R's: pieces by probability, words at spaces only.
fn unigram() -> Value {
    let specials = ["<s>", "</s>", "<unk>"].map(|token| json!([token, 0.0]));
    let pieces = [
        ("▁", -3.0),
        ("▁the", -2.0),
        ("th", -2.5),
        ("ing", -2.2),
        ("ab", -2.4),
        ("ba", -2.45),
        ("aba", -3.0),
        ("中", -4.0),
        ("文", -4.0),
        ("中文", -5.0),
        (".", -4.0),
        ("-", -4.0),
    ];
    let pieces = pieces.map(|(piece, score)| json!([piece, score]));
    let singles = letters("").map(|letter| json!([letter, -6.0]));
    let vocab: Vec<Value> = specials.into_iter().chain(pieces).chain(singles).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": true,
            "add_prefix_space": true},
        "decoder": null,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false},
    })
}

/// RoBERTa's: pairs of bytes merged, spaces belong to the word behind them.
fn byte_pairs() -> Value {
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('Ā'..='ń').map(String::from);
    let merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["a", "b"], ["Ġ", "Ġ"], ["i", "n"], ["in", "g"]];
    let merged = merges.iter().map(|[one, two]| format!("{one}{two}"));
    let tokens = ["<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes).chain(merged);
    let vocab: serde_json::Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": true,
            "add_prefix_space": false},
        "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
            "merges": merges.map(|pair| pair.join(" "))},
    })
}

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true})
}

fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let read = |json: Value, lowercases| {
        Tokenizer::from_json(json.to_string().as_bytes(), TOKENS_MAX, lowercases).unwrap()
    };
    vec![
        ("WordPiece", read(word_piece(), false)),
        ("WordPiece in lower case", read(word_piece(), true)),
        ("Unigram", read(unigram(), false)),
        ("byte pairs", read(byte_pairs(), false)),
    ]
}

/// As all texts were cut before: by the tokens of the whole.
fn cut_of_whole(tokenizer: &Tokenizer, text: &str) -> TokenizedText {
    let mut ids = tokenizer.all_ids(text).unwrap();
    let is_truncated = ids.len() > TOKENS_MAX;
    if is_truncated {
        let end = ids.split_off(ids.len() - tokenizer.suffix);
        ids.truncate(TOKENS_MAX - tokenizer.suffix);
        ids.extend(end);
    }
    TokenizedText { ids, is_truncated }
}

/// A text of pieces, by a generator with a seed.
fn text(seed: u64, pieces: usize) -> String {
    const PIECES: [&str; 18] = [
        "the ",
        "a",
        "ab",
        "aba",
        "ing ",
        " ",
        "   ",
        "\n",
        "\t",
        "\u{301}",
        "中",
        "文",
        "[SEP]",
        "</s>",
        ".",
        "-the ",
        "\u{85}",
        "\u{3000}Σ",
    ];
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let only = seed.is_multiple_of(3).then(&mut next);
    (0..pieces).map(|_| PIECES[only.unwrap_or_else(&mut next) % PIECES.len()]).collect()
}

#[test]
fn a_long_text_is_cut_to_the_tokens_of_the_whole() {
    for (kind, tokenizer) in tokenizers() {
        let mut cut_early = 0;
        for seed in 0..300 {
            let text = text(seed, 10 + 2 * seed as usize);
            let whole = cut_of_whole(&tokenizer, &text);
            assert_eq!(tokenizer.encode(&text).unwrap(), whole, "{kind}, seed {seed}: {text:?}");
            let all = tokenizer.all_ids(&text).unwrap().len();
            assert_eq!(tokenizer.count(&text).unwrap(), all.min(TOKENS_MAX + 1), "{kind}, seed {seed}");
            cut_early += usize::from(tokenizer.prefix(&text).unwrap().len() < all);
        }
        assert!(cut_early > 100, "{kind}: only {cut_early} texts were not tokenized whole");
    }
}

#[test]
fn only_a_beginning_of_a_long_text_is_tokenized() {
    let long = "the thing ".repeat(100_000);
    for (kind, tokenizer) in tokenizers() {
        let ids = tokenizer.prefix(&long).unwrap().len();
        assert!(
            ids > TOKENS_MAX && ids < 2 * TOKENS_MAX * BYTES_PER_TOKEN,
            "{kind}: {ids} of a million bytes"
        );
        // No space anywhere.
        let ids = tokenizer.prefix(&"中文".repeat(100_000)).unwrap().len();
        assert!(
            ids > TOKENS_MAX && ids < 20 * TOKENS_MAX * BYTES_PER_TOKEN,
            "{kind}: {ids} of a million bytes"
        );
    }
}

#[test]
fn a_beginning_ends_before_a_space_where_there_is_one() {
    assert_eq!(prefix_of("abcdef gh ij", 5), Some(("abcdef", true)));
    assert_eq!(prefix_of("abcd  ef gh ij", 5), Some(("abcd  ef", true)));
    assert_eq!(prefix_of("abcde fghijk", 5), Some(("abcde", true)));
    assert_eq!(prefix_of("abcdefghijkl", 5), Some(("abcdefghij", false)));
    assert_eq!(prefix_of("ééééééé", 5), Some(("ééééé", false)));
    assert_eq!(prefix_of("abcde fghi", 5), None);
}

/// A text with the last token would look past the end of a table with one row a token.
#[test]
fn a_vocabulary_with_holes_ends_behind_its_highest_id() {
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "b": 500}, "unk_token": "[UNK]"},
    });
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), TOKENS_MAX, false).unwrap();
    assert_eq!(tokenizer.vocabulary(), 501);
}
