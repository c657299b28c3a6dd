//! Readers of one broadcast: early, late, slow and gone.

use super::*;
use crate::byte_budget::UNCOUNTED_BYTES;
use crate::dialects::chat_completions::ChatCompletions;
use crate::metrics::unexported;
use crate::service::answers::replay_buffer::EVENT_BYTES;
use futures_util::poll;
use std::pin::pin;

fn budget() -> Arc<ByteBudget> {
    ByteBudget::new(usize::MAX, unexported())
}

fn held_bytes(broadcast: &Broadcast) -> usize {
    lock(&broadcast.buffer).bytes()
}

#[tokio::test]
async fn a_late_subscriber_gets_every_event_from_the_first_one() {
    let (broadcast, first) = Broadcast::new(&budget());
    broadcast.begin(Arc::default());
    broadcast.push("a".into(), UsageContent::Absent);
    let mut early = first.into_events(&ChatCompletions, false, None);
    assert_eq!(early.next().await.unwrap().unwrap(), "a");
    broadcast.push("data: {\"b\":1,\"usage\":null}\n\n".into(), UsageContent::Mixed);
    broadcast.push("u".into(), UsageContent::Only);
    let (sender, sum) = std::sync::mpsc::channel();
    let at_end = move |usage: TokenUsage| sender.send(usage.prompt_tokens).unwrap();
    let mut late = broadcast.subscribe().into_events(&ChatCompletions, true, Some(Box::new(at_end)));
    let mut plain = broadcast.subscribe().into_events(&ChatCompletions, false, None);
    assert_eq!(late.next().await.unwrap().unwrap(), "adata: {\"b\":1,\"usage\":null}\n\nu");
    let read = plain.next().await.unwrap().unwrap();
    assert_eq!(read, "adata: {\"b\":1}\n\n", "usage is for clients that requested it");
    assert!(poll!(pin!(plain.next())).is_pending());
    let usage = TokenUsage::new(7, 1);
    broadcast.set_state(GenerationState::Streamed(Arc::default(), Streamed::Uncertain(Some(usage)), None));
    assert!(sum.try_recv().is_err(), "not read to its end");
    assert!(plain.next().await.unwrap().is_none() && late.next().await.unwrap().is_none());
    assert_eq!(sum.recv().unwrap(), 7);
}

#[tokio::test]
async fn a_long_answer_is_handed_out_in_pieces() {
    let (broadcast, subscriber) = Broadcast::new(&budget());
    let event = Bytes::from(vec![b'a'; HANDED_BYTES / 4]);
    (0..9).for_each(|_| broadcast.push(event.clone(), UsageContent::Absent));
    broadcast.set_state(GenerationState::Streamed(Arc::default(), Streamed::Uncertain(None), None));
    let (mut live, mut pieces) = (subscriber.into_events(&ChatCompletions, false, None), Vec::new());
    while let Some(piece) = live.next().await.unwrap() {
        pieces.push(piece.len());
    }
    assert_eq!(pieces, [HANDED_BYTES, HANDED_BYTES, HANDED_BYTES / 4]);
}

#[tokio::test]
async fn events_that_all_have_read_are_dropped_once_no_reader_can_join() {
    let (broadcast, waiting) = Broadcast::new(&budget());
    let (mut quick, mut slow) = (
        broadcast.subscribe().into_events(&ChatCompletions, false, None),
        broadcast.subscribe().into_events(&ChatCompletions, false, None),
    );
    waiting.skip_events();
    let event = |text: &'static str| broadcast.push(text.into(), UsageContent::Absent);
    event("a");
    assert_eq!(quick.next().await.unwrap().unwrap(), "a");
    broadcast.close();
    assert_eq!(held_bytes(&broadcast), 1 + EVENT_BYTES, "one has not read it");
    event("b");
    let mut space = pin!(broadcast.wait_for_space(1 + EVENT_BYTES));
    assert!(poll!(&mut space).is_pending());
    assert_eq!(slow.next().await.unwrap().unwrap(), "ab");
    space.await;
    assert_eq!(held_bytes(&broadcast), 1 + EVENT_BYTES, "the other has not");
    assert_eq!(quick.next().await.unwrap().unwrap(), "b");
    assert_eq!(held_bytes(&broadcast), 0);
    event("c");
    drop(quick);
    assert_eq!(slow.next().await.unwrap().unwrap(), "c");
    assert_eq!(held_bytes(&broadcast), 0);
    drop((slow, waiting));
    event("d");
    assert_eq!(held_bytes(&broadcast), 0, "no reader is left");
}

#[tokio::test]
async fn the_slowest_reader_is_dropped_when_it_holds_up_the_others() {
    let (broadcast, stalled) = Broadcast::new(&budget());
    let mut stalled = stalled.into_events(&ChatCompletions, false, None);
    let mut quick = broadcast.subscribe().into_events(&ChatCompletions, false, None);
    broadcast.close();
    for text in ["a", "b"] {
        broadcast.push(text.into(), UsageContent::Absent);
        assert_eq!(quick.next().await.unwrap().unwrap(), text);
    }
    broadcast.drop_slowest();
    assert_eq!(held_bytes(&broadcast), 0);
    assert_eq!(stalled.next().await.unwrap_err().kind(), Kind::Timeout);
    broadcast.push("c".into(), UsageContent::Absent);
    assert_eq!(quick.next().await.unwrap().unwrap(), "c");
    drop(quick);
    assert!(!broadcast.has_readers());
}

#[tokio::test]
async fn an_error_is_returned_after_the_events_before_it() {
    let (broadcast, subscriber) = Broadcast::new(&budget());
    broadcast.begin(Arc::default());
    broadcast.push("a".into(), UsageContent::Absent);
    broadcast.set_state(GenerationState::Failed(Error::new(Kind::Upstream, "cut")));
    let mut live = subscriber.into_events(&ChatCompletions, false, None);
    assert_eq!(live.next().await.unwrap().unwrap(), "a");
    assert_eq!(live.next().await.unwrap_err().kind(), Kind::Upstream);
}

#[tokio::test]
async fn a_stream_past_the_budget_goes_on_as_far_as_it_is_read() {
    let budget = ByteBudget::new(4 * 64 * 1024, unexported());
    let (broadcast, subscriber) = Broadcast::new(&budget);
    let event = Bytes::from(vec![b'a'; UNCOUNTED_BYTES / 2]);
    broadcast.push(event.clone(), UsageContent::Absent);
    assert!(!broadcast.is_over_limit(usize::MAX));
    let other = budget.try_reserve(2 * 64 * 1024).unwrap();
    (0..5).for_each(|_| broadcast.push(event.clone(), UsageContent::Absent));
    assert!(broadcast.is_over_limit(usize::MAX), "nothing is left of the budget");
    broadcast.close();
    let mut live = subscriber.into_events(&ChatCompletions, false, None);
    let mut space = pin!(broadcast.wait_for_space(usize::MAX));
    assert!(poll!(&mut space).is_pending());
    assert_eq!(live.next().await.unwrap().unwrap().len(), 6 * event.len());
    assert!(poll!(&mut space).is_ready());
    drop(other);
    (0..3).for_each(|_| broadcast.push(event.clone(), UsageContent::Absent));
    assert!(!broadcast.is_over_limit(usize::MAX), "it fits again");
    assert!(budget.reserved() > 0);
    while budget.reserved() > 0 {
        live.next().await.unwrap().unwrap();
    }
}
