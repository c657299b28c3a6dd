//! What one node stores another finds, in every arrangement of servers.

use std::sync::Arc;
use std::time::Duration;

use likewise::cache::redis::{LuaScript, RedisMode, RedisOptions};
use likewise::cache::{Tier as _, TierStats};
use likewise::domain::{Clock as _, Codec, Entry, EntryMeta, Key, SystemClock, UnixSeconds};
use redis::{Value, from_redis_value};

use super::node::{LIMIT, Node, at, at_all, embedding, key, object};
use super::servers::{Program, RedisServer};
use super::topologies::{Certificates, RedisCluster, WatchedServers, server_with_user};

/// Writes at one node and reads at another: objects, and more embeddings than one command names.
async fn check_round_trip(options: &RedisOptions) -> (Node, Node) {
    let (writer, reader) = (Node::new(options).connected().await, Node::new(options).connected().await);
    let now = SystemClock.now();
    let (numbers, keys) = (0..200_u8, (0..=200_u8).map(key).collect::<Vec<Key>>());
    let embeddings = writer.namespace("embeddings");
    let entries = numbers.clone().map(|n| (key(n), embedding(n, now))).collect();
    writer.embeddings.put_many(&embeddings, entries).await.unwrap();
    writer.write(numbers.clone()).await;

    let found = reader.embeddings.get_many(&embeddings, keys.clone()).await;
    let products = reader.namespace("products");
    let found_objects = reader.objects.get_many(&products, keys).await;
    for n in numbers {
        let entry = found[usize::from(n)].as_ref().unwrap_or_else(|| panic!("embedding {n} is missing"));
        assert_eq!((&entry.value, entry.meta.expires), (&embedding(n, now).value, now.plus(3600)));
        let entry = found_objects[usize::from(n)].as_ref().unwrap_or_else(|| panic!("object {n} is missing"));
        assert_eq!((&entry.value, entry.meta.codec), (&object(n).value, Codec::Raw));
    }
    assert!(found[200].is_none() && found_objects[200].is_none(), "nothing was stored there");
    assert_eq!(reader.metric("tier_hits_total{tier=\"redis\"}"), 400);
    assert_eq!(reader.metric("tier_misses_total{tier=\"redis\"}"), 2);
    check_script_and_stream(&reader).await;
    (writer, reader)
}

/// Scripts and blocking reads, as events are written and followed.
async fn check_script_and_stream(node: &Node) {
    let script = LuaScript::new("return redis.call('XADD', KEYS[1], '*', 'e', ARGV[1])");
    for shard in 0..node.client.keys().shards() {
        let events = node.client.keys().events(shard);
        node.client.script(&script, &[&events], &[b"event"], LIMIT).await.unwrap();
        let mut pipeline = redis::pipe();
        pipeline.cmd("EXISTS").arg(&events);
        pipeline.cmd("XREAD").arg("BLOCK").arg(10_000).arg("STREAMS").arg(&events).arg("0");
        let mut dedicated = node.client.dedicated(shard);
        for _ in 0..2 {
            let replies = dedicated.pipeline(&pipeline, LIMIT).await.unwrap();
            assert_eq!(replies[0], Value::Int(1));
            let streams: redis::streams::StreamReadReply = from_redis_value(replies[1].clone()).unwrap();
            assert_eq!(streams.keys[0].ids[0].get::<String>("e").unwrap(), "event");
        }
        let cut_short = dedicated.pipeline(&blocked(&events), Duration::from_millis(50)).await;
        assert!(cut_short.is_err());
        assert_eq!(dedicated.pipeline(&pipeline, LIMIT).await.unwrap()[0], Value::Int(1), "not a late reply");
    }
}

fn blocked(events: &str) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("XREAD").arg("BLOCK").arg(10_000).arg("STREAMS").arg(events).arg("$");
    pipeline
}

#[tokio::test]
async fn one_server_of_valkey() {
    let server = RedisServer::start(Program::Valkey);
    let (_, reader) = check_round_trip(&at(server.url())).await;
    let left_ms: i64 = server.ask(&format!("PTTL {}", reader.client.keys().object(&key(1))));
    assert!((3_500_000..=3_600_000).contains(&left_ms), "{left_ms} ms");
    assert_eq!(reader.objects.stats(), TierStats { entries: 0, bytes: 0, bytes_max: 0, is_on: true });
}

#[tokio::test]
async fn one_server_of_redis_with_a_database_and_prefixes() {
    let server = RedisServer::start(Program::Redis);
    let options = RedisOptions { prefix: "one".into(), ..at(&format!("{}3", server.url())) };
    check_round_trip(&options).await;
    let other = Node::new(&RedisOptions { prefix: "two".into(), ..options }).connected().await;
    assert!(!other.has(1).await);
    assert!(server.ask::<String>("INFO keyspace").contains("db3:keys=401"), "and the stream");
}

#[tokio::test]
async fn a_server_with_tls() {
    let certificates = Certificates::make();
    let server = certificates.server();
    let options = RedisOptions { tls_ca_file: Some(certificates.file("ca.pem")), ..at(server.url()) };
    check_round_trip(&options).await;
    let untrusting = Node::new(&at(server.url()));
    untrusting
        .until("a connection was refused", async |node| {
            node.metric("redis_calls_total{outcome=\"not_connected\"}") > 0 || node.has(1).await
        })
        .await;
    assert!(!untrusting.client.is_connected(), "no authority of the system has signed it");
}

#[tokio::test]
async fn a_server_with_users_that_may_use_one_prefix_only() {
    let server = server_with_user("~likewise:* ~{likewise:* +@all -@admin -@dangerous");
    let url = format!("redis://node:se%3Acret@127.0.0.1:{}", server.port());
    check_round_trip(&at(&url)).await;
}

#[tokio::test]
async fn a_cluster() {
    let cluster = RedisCluster::start(Program::Valkey);
    let options = RedisOptions { mode: RedisMode::Cluster, ..at_all(cluster.urls()) };
    check_round_trip(&options).await;
    let keys = |n: usize| cluster.nodes[n].ask::<usize>("DBSIZE");
    assert_eq!(
        (keys(0) + keys(1) + keys(2), keys(0) > 50, keys(1) > 50, keys(2) > 50),
        (416, true, true, true)
    );
}

#[tokio::test]
async fn a_primary_that_sentinels_name() {
    let servers = WatchedServers::start();
    let urls = servers.sentinels.iter().map(|sentinel| sentinel.url().to_owned()).collect();
    let options = RedisOptions {
        mode: RedisMode::Sentinel,
        sentinel_service: Some(WatchedServers::SERVICE.into()),
        ..at_all(urls)
    };
    check_round_trip(&options).await;
}

#[tokio::test]
async fn entries_that_have_ended_or_are_too_long_are_not_sent() {
    let server = RedisServer::start(Program::Valkey);
    let node = Node::new(&RedisOptions { value_bytes_max: 100, ..at(server.url()) }).connected().await;
    let now = SystemClock.now();
    let entry = |value: &[u8], end: UnixSeconds| {
        Arc::new(Entry { meta: EntryMeta::ending(Codec::Raw, now, end), value: Arc::from(value) })
    };
    let entries = vec![
        (key(0), entry(&[b'x'; 101], now.plus(60))),
        (key(1), entry(b"ended", now)),
        (key(2), entry(&[b'x'; 100], now.plus(60))),
        (key(3), entry(b"lasting", UnixSeconds::NEVER)),
    ];
    let namespace = node.namespace("products");
    node.objects.put_many(&namespace, entries).await.unwrap();
    let found = node.objects.get_many(&namespace, (0..4).map(key).collect()).await;
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, true]);
    assert_eq!(node.metric("redis_values_too_long_total"), 1);
    let name = |n| node.client.keys().object(&key(n));
    assert!((50_000..=60_000).contains(&server.ask::<i64>(&format!("PTTL {}", name(2)))));
    assert_eq!(server.ask::<i64>(&format!("PTTL {}", name(3))), -1);
    node.objects.remove_many(vec![key(2), key(3)]).await.unwrap();
    assert_eq!(server.ask::<i64>("DBSIZE"), 0);
}
