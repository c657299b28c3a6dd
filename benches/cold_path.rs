//! How fast are texts embedded that were never seen, beside candle's own BERT?
//!
//! Both embed the same texts with the same weights, tokenizing included, in turn in the same run. candle's BERT gets its
//! texts sorted by length in padded batches of 8, which was its best size on this class of machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use likewise::embed::{EmbedJob, Embedder, LocalEmbedder, Options, Priority};
use likewise::metrics::unexported;
use likewise_benches::{print_circumstances, spread};
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};
use tokio::sync::oneshot;

const ROUNDS: usize = 5;
const CANDLE_BATCH: usize = 8;
const TOKENS_MAX: usize = 256;
const WORDS: [&str; 16] = [
    "camiseta", "azul", "de", "algodón", "para", "running", "shoes", "with", "leather", "sole", "cafetera",
    "italiana", "precio", "the", "order", "pedido",
];

fn main() {
    print_circumstances("cold_path");
    let dir = std::env::var("LIKEWISE_TEST_MODEL").expect("run this by `make bench NAME=cold_path`");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let own = LocalEmbedder::load(Path::new(&dir), "model", &Options::default(), unexported())
        .expect("the model loads");
    let candle = Candle::load(Path::new(&dir));

    println!("{ROUNDS} rounds in turn; texts/s");
    println!("| texts | likewise | min-max | candle BERT | min-max | ratio | smallest cosine |");
    println!("|---|---|---|---|---|---|---|");
    for (name, texts) in
        [("short (400 x ~12 words)", corpus(400, 8, 16)), ("mixed (120 x 4-200 words)", corpus(120, 4, 200))]
    {
        let (mut own_rounds, mut candle_rounds) = (Vec::new(), Vec::new());
        let mut cosine = 1.0_f64;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let own_vectors = runtime.block_on(embed(&own, &texts));
            own_rounds.push(texts.len() as f64 / started.elapsed().as_secs_f64());
            let started = Instant::now();
            let candle_vectors = candle.embed(&texts);
            candle_rounds.push(texts.len() as f64 / started.elapsed().as_secs_f64());
            for (one, two) in own_vectors.iter().zip(&candle_vectors) {
                cosine = cosine.min(one.iter().zip(two).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
            }
        }
        let (o, c) = (spread(own_rounds), spread(candle_rounds));
        println!(
            "| {name} | {:.0} | {:.0}-{:.0} | {:.0} | {:.0}-{:.0} | {:.2} | {cosine:.6} |",
            o.median,
            o.min,
            o.max,
            c.median,
            c.min,
            c.max,
            o.median / c.median
        );
    }
}

/// Texts of `from` to `to` words; the same at every run.
fn corpus(texts: usize, from: usize, to: usize) -> Vec<String> {
    let mut state = 20_260_101_u64;
    let mut next = move |below: usize| {
        // Knuth's MMIX generator; its high bits are good enough to choose words.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..texts)
        .map(|_| {
            let words = from + next(to - from + 1);
            (0..words).map(|_| WORDS[next(WORDS.len())]).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

async fn embed(embedder: &LocalEmbedder, texts: &[String]) -> Vec<Arc<[f32]>> {
    let (works, answers): (Vec<_>, Vec<_>) = texts
        .iter()
        .map(|text| {
            let (reply, answer) = oneshot::channel();
            let is_abandoned = Arc::new(AtomicBool::new(false));
            let since = Instant::now();
            (
                EmbedJob {
                    text: text.clone(),
                    priority: Priority::Bulk,
                    reply,
                    is_abandoned,
                    since,
                    place: None,
                },
                answer,
            )
        })
        .unzip();
    embedder.submit(works).expect("the queue has room");
    let mut vectors = Vec::with_capacity(answers.len());
    for answer in answers {
        vectors.push(answer.await.expect("an answer").expect("a vector").vector);
    }
    vectors
}

/// candle's own BERT, as its examples use it.
struct Candle {
    model: BertModel,
    tokenizer: Tokenizer,
}

impl Candle {
    fn load(dir: &Path) -> Candle {
        let read = |name: &str| std::io::read_to_string(open(&dir.join(name))).expect("text");
        let config: Config = serde_json::from_str(&read("config.json")).expect("a BERT configuration");
        let mut weights = Vec::new();
        std::io::copy(&mut open(&dir.join("model.safetensors")), &mut weights).expect("weights");
        let weights =
            VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).expect("weights");
        let mut tokenizer = Tokenizer::from_bytes(read("tokenizer.json")).expect("a tokenizer");
        tokenizer.with_padding(Some(PaddingParams::default()));
        let truncation = TruncationParams { max_length: TOKENS_MAX, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).expect("a length");
        Candle { model: BertModel::load(weights, &config).expect("a BERT"), tokenizer }
    }

    fn embed(&self, texts: &[String]) -> Vec<Vec<f32>> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| texts[text].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for batch in order.chunks(CANDLE_BATCH) {
            let inputs: Vec<&str> = batch.iter().map(|&text| texts[text].as_str()).collect();
            let rows = self.forward(inputs).expect("a forward pass");
            batch.iter().zip(rows).for_each(|(&text, row)| vectors[text] = row);
        }
        vectors
    }

    fn forward(&self, texts: Vec<&str>) -> candle_core::Result<Vec<Vec<f32>>> {
        let encodings = self.tokenizer.encode_batch(texts, true).expect("tokens");
        let tensor = |rows: Vec<&[u32]>| {
            Tensor::new(rows.concat(), &Device::Cpu)?.reshape((rows.len(), rows[0].len()))
        };
        let ids = tensor(encodings.iter().map(|encoding| encoding.get_ids()).collect())?;
        let mask = tensor(encodings.iter().map(|encoding| encoding.get_attention_mask()).collect())?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
        let mean = hidden.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
        let norm = mean.sqr()?.sum_keepdim(1)?.sqrt()?;
        mean.broadcast_div(&norm)?.to_vec2()
    }
}

#[expect(clippy::disallowed_types, reason = "a benchmark needs no better error than a panic")]
fn open(path: &Path) -> std::fs::File {
    std::fs::File::open(path).expect("a file of the model")
}
