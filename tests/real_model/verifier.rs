//! Goal: the verifier reads pairs as its training did. Method: token ids, types, marks and logits that `tools/verifier/fixture.py` wrote with
//! the network in PyTorch over the shipped weights.

use likewise::app::load_embedder;
use likewise::config::Config;
use likewise::matching::guard::{Guard, Lexicon};
use serde::Deserialize;

use crate::model;

/// How far a logit may be from that of the training, in f32 on both sides.
const TOLERANCE: f32 = 1e-3;

#[derive(Deserialize)]
struct Fixture {
    logit_min: f32,
    pairs: Vec<FixturePair>,
}

#[derive(Deserialize)]
struct FixturePair {
    a: String,
    b: String,
    canonical_a: String,
    canonical_b: String,
    logit: Option<f32>,
}

#[tokio::test(flavor = "multi_thread")]
async fn logits_are_those_of_the_training() {
    let fixture: Fixture =
        serde_json::from_str(include_str!("../data/verifier/minilm.json")).expect("the fixture is JSON");
    let mut config = Config::default();
    config.model.dir = Some(model::dir());
    let model = load_embedder(&config).unwrap();
    let verifier = model.verifier().expect("the model has a verifier");
    let guard = Guard::new(Lexicon::builtin());
    for pair in &fixture.pairs {
        let read = [&pair.a, &pair.b].map(|question| guard.canonical(question).text);
        assert_eq!(
            read,
            [pair.canonical_a.as_str(), &pair.canonical_b],
            "the canonical form is that of the training"
        );
        let margin = verifier.margin(&pair.canonical_a, &pair.canonical_b).unwrap();
        let expected = pair.logit.map(|logit| logit - fixture.logit_min);
        let is_near = match (margin, expected) {
            (Some(margin), Some(expected)) => (margin - expected).abs() < TOLERANCE,
            (None, None) => true,
            _ => false,
        };
        assert!(is_near, "{} / {}: {margin:?} instead of {expected:?}", pair.a, pair.b);
    }
}
