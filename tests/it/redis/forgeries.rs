//! What others write into Redis is never served.

use likewise::cache::Tier as _;
use likewise::cache::redis::{ClockOffset, Envelope};
use likewise::domain::Key;

use super::node::{Node, at, key, object};
use super::servers::{Program, RedisServer};
use super::topologies::server_with_user;

fn set(server: &RedisServer, node: &Node, key: &Key, bytes: &[u8]) {
    let name = node.client.keys().object(key);
    redis::cmd("SET").arg(name).arg(bytes).query::<()>(&mut server.connection()).unwrap();
}

fn stored(server: &RedisServer, node: &Node, key: &Key) -> Vec<u8> {
    redis::cmd("GET").arg(node.client.keys().object(key)).query(&mut server.connection()).unwrap()
}

#[tokio::test]
async fn damaged_forged_and_moved_entries_are_misses() {
    let server = RedisServer::start(Program::Valkey);
    let secret = Envelope::authenticated("a secret of some length").unwrap();
    let node = Node::sealing(&at(server.url()), secret.clone()).connected().await;
    node.write([1, 2]).await;
    assert!(node.has(1).await && node.has(2).await);
    let genuine = stored(&server, &node, &key(1));

    let mut damaged = genuine.clone();
    damaged[100] ^= 1;
    let sealed = |envelope: Envelope| envelope.seal(&key(1), 1, &object(1), ClockOffset::NONE).unwrap();
    let forgeries = [
        ("damaged", damaged),
        ("cut short", genuine[..genuine.len() - 1].to_vec()),
        ("without authentication", sealed(Envelope::unauthenticated())),
        ("of another secret", sealed(Envelope::authenticated("another secret, also long").unwrap())),
        ("moved from another key", stored(&server, &node, &key(2))),
        ("nonsense", b"nonsense".to_vec()),
        ("nothing", Vec::new()),
    ];
    let count = forgeries.len() as u64;
    for (what, bytes) in forgeries {
        set(&server, &node, &key(1), &bytes);
        assert!(node.read(1).await.is_none(), "{what}");
    }
    assert_eq!(node.metric("redis_entries_rejected_total"), count);
    set(&server, &node, &key(1), &genuine);
    assert!(node.has(1).await);
}

#[tokio::test]
async fn a_key_of_another_type_is_a_miss() {
    let server = RedisServer::start(Program::Valkey);
    let node = Node::new(&at(server.url())).connected().await;
    server.ask::<()>(&format!("HSET {} field value", node.client.keys().object(&key(1))));
    assert!(node.read(1).await.is_none());
    node.write([1]).await;
    assert!(node.has(1).await, "it was overwritten");
}

#[tokio::test]
async fn a_user_without_rights_gets_misses_and_the_breaker_stays_closed() {
    let server = server_with_user("~* +ping");
    let url = format!("redis://node:se%3Acret@127.0.0.1:{}", server.port());
    let node = Node::new(&at(&url)).connected().await;
    for _ in 0..30 {
        node.write([1]).await;
        assert!(node.read(1).await.is_none());
    }
    assert_eq!(node.client.breaker_state().as_str(), "closed", "the server answers");
    assert_eq!(node.metric("tier_errors_total{tier=\"redis\"}"), 60);
    let wrong = format!("redis://node:wrong@127.0.0.1:{}", server.port());
    let node = Node::new(&at(&wrong));
    node.until("a call was refused", async |node| {
        node.read(1).await;
        node.metric("redis_calls_total{outcome=\"not_connected\"}") > 0
    })
    .await;
    let removed = node.objects.remove_many(vec![key(1)]).await;
    assert!(removed.is_ok() && !node.client.is_connected());
}
