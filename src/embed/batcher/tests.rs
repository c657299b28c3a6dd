//! Goal: the batcher's promises. Method: a model that is stepped by hand through channels, so that nothing sleeps and
//! every order is certain.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use super::*;
use crate::embed::{Options, Priority};
use crate::metrics::unexported;

/// Tokens are words, which are numbers; a text of more than six is cut.
fn words() -> Tokenizer {
    let vocabulary: serde_json::Map<_, _> = (0..100).map(|n| (n.to_string(), n.into())).collect();
    let json = serde_json::json!({
        "version": "1.0", "added_tokens": [],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "1" },
    });
    Tokenizer::from_json(json.to_string().as_bytes(), 6, false).unwrap()
}

/// Reports each batch, then waits for a permit for its priority. A vector is the text's first id; 13 panics and 14 is not a number.
struct Stepped {
    seen: mpsc::Sender<Vec<Vec<u32>>>,
    permits: [Mutex<mpsc::Receiver<()>>; 2],
}

impl ForwardPass for Stepped {
    fn embed(&self, texts: &[&TokenizedText]) -> Result<Vec<Vec<f32>>> {
        self.seen.send(texts.iter().map(|tokens| tokens.ids.clone()).collect()).unwrap();
        // Bulk passes run on a pool of their own.
        let is_bulk = rayon::current_thread_index().is_some();
        lock(&self.permits[usize::from(is_bulk)]).recv().unwrap();
        assert!(texts.iter().all(|tokens| tokens.ids[0] != 13), "asked to panic");
        let number = |id: u32| if id == 14 { f32::NAN } else { id as f32 };
        Ok(texts.iter().map(|tokens| vec![number(tokens.ids[0])]).collect())
    }
}

struct Bench {
    batcher: Batcher,
    seen: mpsc::Receiver<Vec<Vec<u32>>>,
    permits: mpsc::Sender<()>,
    bulk_permits: mpsc::Sender<()>,
    metrics: Arc<EmbedMetrics>,
}

fn bench(queue_texts_max: usize, batch_tokens_max: usize) -> Bench {
    let (seen_sender, seen) = mpsc::channel();
    let (permits, permit_receiver) = mpsc::channel();
    let (bulk_permits, bulk_permit_receiver) = mpsc::channel();
    let metrics = unexported();
    let options = Options { queue_texts_max, batch_tokens_max, ..Options::default() };
    let permit_receivers = [permit_receiver, bulk_permit_receiver].map(Mutex::new);
    let model = Stepped { seen: seen_sender, permits: permit_receivers };
    let room = Arc::new(QueueRoom::new(options.queue_texts_max, 1));
    let batcher = Batcher::start(words(), model, &options, Arc::clone(&metrics), room).unwrap();
    Bench { batcher, seen, permits, bulk_permits, metrics }
}

type Reply = oneshot::Receiver<Result<Embedding>>;

impl Bench {
    fn try_submit(&self, priority: Priority, texts: &[&str]) -> Result<Vec<Reply>> {
        let work = |text: &&str| {
            let (reply, receiver) = oneshot::channel();
            let (text, is_abandoned) = ((*text).to_owned(), Arc::new(AtomicBool::new(false)));
            (EmbedJob { text, priority, reply, is_abandoned, since: Instant::now(), place: None }, receiver)
        };
        let (work, replies) = texts.iter().map(work).unzip();
        self.batcher.submit(work)?;
        Ok(replies)
    }

    fn submit(&self, priority: Priority, texts: &[&str]) -> Vec<Reply> {
        self.try_submit(priority, texts).unwrap()
    }

    /// Starts a batch of one text and leaves it running, so that what follows queues up behind it.
    fn occupy(&self, priority: Priority) -> Reply {
        let mut replies = self.submit(priority, &["99"]);
        assert_eq!(self.seen.recv().unwrap(), [[99]]);
        replies.remove(0)
    }

    /// Waits until `count` texts are tokenized and lie ready.
    fn until_ready(&self, count: usize) {
        while crate::sync::lock(&self.batcher.shared.state).ready.len() != count {
            std::thread::yield_now();
        }
    }

    /// Lets the running interactive batch end and returns the next one.
    fn next(&self) -> Vec<Vec<u32>> {
        self.permits.send(()).unwrap();
        self.seen.recv().unwrap()
    }

    /// Lets the running bulk batch end and returns the next one.
    fn next_bulk(&self) -> Vec<Vec<u32>> {
        self.bulk_permits.send(()).unwrap();
        self.seen.recv().unwrap()
    }
}

fn vectors(replies: impl IntoIterator<Item = Reply>) -> Vec<f32> {
    replies.into_iter().flat_map(|reply| reply.blocking_recv().unwrap().unwrap().vector.to_vec()).collect()
}

#[test]
fn passes_are_cut_by_tokens_in_order_of_arrival() {
    let bench = bench(100, 4);
    let first = bench.occupy(Priority::Bulk);
    let replies = bench.submit(Priority::Bulk, &["2 2", "3 3", "4", "5 5 5 5 5 5", "6"]);
    bench.until_ready(5);
    assert_eq!(bench.next_bulk(), [[2, 2], [3, 3]]);
    assert_eq!(vectors([first]), [99.0]);
    assert_eq!(bench.next_bulk(), [[4]]);
    assert_eq!(bench.next_bulk(), [[5; 6]]);
    assert_eq!(bench.next_bulk(), [[6]]);
    bench.bulk_permits.send(()).unwrap();
    assert_eq!(vectors(replies), [2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(bench.metrics.batches.get(), 5);
    assert_eq!(bench.metrics.embedded_texts.get(), 6);
    assert_eq!(bench.metrics.embedded_tokens.get(), 13);
}

#[test]
fn interactive_texts_are_answered_while_a_bulk_pass_runs() {
    let bench = bench(100, 1);
    let first = bench.occupy(Priority::Bulk);
    let bulk = bench.submit(Priority::Bulk, &["1", "2"]);
    bench.until_ready(2);
    let interactive = bench.submit(Priority::Interactive, &["3", "4"]);
    assert_eq!(bench.seen.recv().unwrap(), [[3]]);
    assert_eq!(bench.next(), [[4]]);
    bench.permits.send(()).unwrap();
    assert_eq!(vectors(interactive), [3.0, 4.0]);
    // The bulk pass has not ended yet.
    assert_eq!(bench.next_bulk(), [[1]]);
    assert_eq!(bench.next_bulk(), [[2]]);
    bench.bulk_permits.send(()).unwrap();
    assert_eq!(vectors([first].into_iter().chain(bulk)), [99.0, 1.0, 2.0]);
}

#[test]
fn bulk_texts_are_answered_while_an_interactive_pass_runs() {
    let bench = bench(100, 1);
    let first = bench.occupy(Priority::Interactive);
    let bulk = bench.submit(Priority::Bulk, &["1"]);
    assert_eq!(bench.seen.recv().unwrap(), [[1]]);
    bench.bulk_permits.send(()).unwrap();
    assert_eq!(vectors(bulk), [1.0]);
    bench.permits.send(()).unwrap();
    assert_eq!(vectors([first]), [99.0]);
}

#[test]
fn a_full_queue_takes_all_or_nothing() {
    let bench = bench(3, 100);
    let _first = bench.occupy(Priority::Bulk);
    let _two = bench.submit(Priority::Bulk, &["1", "2"]);
    let error = bench.try_submit(Priority::Interactive, &["3", "4"]).unwrap_err();
    assert_eq!(error.kind(), Kind::Overloaded);
    assert_eq!(bench.batcher.queued(), 2);
    let _third = bench.submit(Priority::Bulk, &["3"]);
    assert_eq!(bench.batcher.queued(), 3);
    (0..2).for_each(|_| bench.bulk_permits.send(()).unwrap());
}

#[test]
fn abandoned_work_is_dropped_before_it_starts() {
    let bench = bench(100, 100);
    let _first = bench.occupy(Priority::Interactive);
    let mut replies = bench.submit(Priority::Interactive, &["1", "2", "3"]);
    bench.until_ready(3);
    drop(replies.remove(1));
    assert_eq!(bench.next(), [[1], [3]]);
    bench.permits.send(()).unwrap();
    assert_eq!(vectors(replies), [1.0, 3.0]);
    assert_eq!(bench.metrics.dropped_texts.get(), 1);
    assert_eq!(bench.batcher.queued(), 0);
}

#[test]
fn a_vector_that_says_nothing_fails_alone_and_a_long_text_is_marked() {
    let bench = bench(100, 100);
    let _first = bench.occupy(Priority::Interactive);
    let replies = bench.submit(Priority::Interactive, &["1", "14", "0", "2 2 2 2 2 2 2"]);
    bench.until_ready(4);
    bench.next();
    bench.permits.send(()).unwrap();
    let results: Vec<_> = replies.into_iter().map(|reply| reply.blocking_recv().unwrap()).collect();
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(Kind::Internal), Some(Kind::Internal), None]);
    let last = results[3].as_ref().unwrap();
    assert_eq!((last.tokens, last.is_truncated), (6, true));
}

#[test]
fn a_model_that_panics_leaves_no_caller_waiting() {
    for priority in [Priority::Interactive, Priority::Bulk] {
        let bench = bench(100, 1);
        let first = bench.occupy(priority);
        let replies = bench.submit(priority, &["13", "1"]);
        bench.until_ready(2);
        let next = if priority == Priority::Bulk { bench.next_bulk() } else { bench.next() };
        assert_eq!(next, [[13]]);
        assert_eq!(vectors([first]), [99.0]);
        [&bench.permits, &bench.bulk_permits].iter().for_each(|permits| permits.send(()).unwrap());
        assert!(replies.into_iter().all(|reply| reply.blocking_recv().is_err()));
        assert!(!bench.batcher.is_alive());
        assert_eq!(bench.try_submit(Priority::Bulk, &["1"]).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(bench.batcher.queued(), 0);
    }
}

#[test]
fn dropping_it_ends_the_threads_and_leaves_no_caller_waiting() {
    let bench = bench(100, 1);
    let first = bench.occupy(Priority::Interactive);
    let replies = bench.submit(Priority::Interactive, &["1", "2"]);
    bench.until_ready(2);
    // The next passes may or may not start before the end; none after it.
    (0..3).for_each(|_| bench.permits.send(()).unwrap());
    drop(bench.batcher);
    assert_eq!(vectors([first]), [99.0]);
    // Each ends, with its vector or dropped; that this test ends is the proof.
    let ended = replies.into_iter().map(Reply::blocking_recv).filter(|reply| !matches!(reply, Ok(Err(_))));
    assert_eq!(ended.count(), 2);
}

#[test]
fn counts_are_of_all_texts_and_bounded() {
    let bench = bench(100, 1);
    let texts: Vec<String> = (1..=70).map(|n| vec!["1"; n].join(" ")).collect();
    let counts = bench.batcher.count(texts).unwrap().blocking_recv().unwrap().unwrap();
    // A text that is cut counts one more than the model reads.
    assert_eq!(counts, (1..=70).map(|n: usize| n.min(7)).collect::<Vec<_>>());
    assert_eq!(bench.batcher.count(vec![String::new(); 101]).unwrap_err().kind(), Kind::Overloaded);
}
