//! Writes that were made while Redis was away reach it, whatever else is written then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::servers::RedisServer;
use super::two_nodes::TwoNodes;
use crate::program::until;

const PATH: &str = "/v1/cache/products/1";
/// Appends events as a third node does.
const EVENTS: &str = concat!(
    include_str!("../../../src/cache/redis/scripts/append.lua"),
    "for n = 1, 3 do
       local previous = redis.call('HGET', KEYS[1], 'nonce')
       local nonce = string.format('%08d', tonumber(redis.call('HGET', KEYS[1], 'seq')) % 100000000)
       append(KEYS[1], KEYS[2], previous, nonce, 'thirdone', string.char(3) .. string.rep('k', 32), '100000')
     end"
);

/// Other keys are written without a pause until `is_over`.
fn write_others(redis: &RedisServer, is_over: &AtomicBool) {
    let (mut connection, script) = (redis.connection(), redis::Script::new(EVENTS));
    let mut invocation = script.key("{likewise:0}:state");
    invocation.key("{likewise:0}:events");
    while !is_over.load(Ordering::Relaxed) {
        invocation.invoke::<()>(&mut connection).unwrap();
        std::thread::park_timeout(Duration::from_micros(300));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_write_that_no_other_node_contests_is_kept_under_load() {
    let nodes = TwoNodes::start(&[]).await;
    nodes.redis.signal("STOP");
    let stored = nodes.put(0, PATH, &[], "waited").await;
    assert_eq!((stored.status, stored.header("x-likewise-propagation")), (204, "pending"));
    nodes.redis.signal("CONT");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| write_others(&nodes.redis, &is_over));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let waits = async || nodes.node(0).get("/readyz?verbose").await.body["redis"]["outbox"] != 0;
                until("nothing waits", async || !waits().await).await;
            });
        });
        is_over.store(true, Ordering::Relaxed);
    });
    until("the other node has it", async || nodes.get(1, PATH, &[]).await.body == "waited").await;
}
