//! From an invalidation to its effect, at the node that is asked and at the other.

use std::net::SocketAddr;
use std::time::Instant;

use likewise_benches::beside::Server;
use likewise_benches::load::{Connection, get, post};
use likewise_benches::percentile;

use crate::{Setting, put};

const INVALIDATIONS: usize = 500;

pub(crate) async fn print(setting: &Setting) {
    let nodes = [setting.node("first", &[]).await, setting.node("second", &[]).await];
    println!(
        "from sending an invalidation of a tag until no request for the object is a hit, {INVALIDATIONS} each; ms"
    );
    println!("| node | p50 | p95 | p99 | max | acknowledged p50 | p99 |\n|---|---|---|---|---|---|---|");
    for (name, reader) in [("that is asked", &nodes[0]), ("the other", &nodes[1])] {
        let (mut effects, mut acknowledged) = (Vec::new(), Vec::new());
        let mut pair = Pair::open(&nodes[0], reader).await;
        for round in 0..INVALIDATIONS {
            let (effect, answer) = pair.invalidate(&format!("{name} {round}").replace(' ', "-")).await;
            effects.push(effect);
            acknowledged.push(answer);
        }
        effects.sort_by(f64::total_cmp);
        acknowledged.sort_by(f64::total_cmp);
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| percentile(&effects, share));
        let [half, most] = [0.5, 0.99].map(|share| percentile(&acknowledged, share));
        println!("| {name} | {p50:.2} | {p95:.2} | {p99:.2} | {max:.2} | {half:.2} | {most:.2} |");
    }
    println!();
}

/// A connection to the node that is asked, and one to a node that is read.
struct Pair {
    writer: (SocketAddr, Connection),
    reader: (SocketAddr, Connection),
}

impl Pair {
    async fn open(writer: &Server, reader: &Server) -> Pair {
        let open = async |node: &Server| (node.address, Connection::open(node.address).await);
        Pair { writer: open(writer).await, reader: open(reader).await }
    }

    /// Milliseconds until an invalidation has its effect, and until it is acknowledged.
    async fn invalidate(&mut self, key: &str) -> (f64, f64) {
        let ((writes_at, writer), (reads_at, reader)) = (&mut self.writer, &mut self.reader);
        assert_eq!(writer.ask(&put(*writes_at, key, &format!("tag:{key}"))).await.0, 204);
        let read = get(*reads_at, &format!("/v1/cache/products/{key}"));
        // The second comes from memory, and is still there.
        for _ in 0..2 {
            assert_eq!(reader.ask(&read).await.0, 200);
        }
        let invalidation = post(*writes_at, "/v1/invalidate", &format!(r#"{{"tags":["tag:{key}"]}}"#));
        let sent = Instant::now();
        let millis = || sent.elapsed().as_secs_f64() * 1e3;
        let effect = async {
            while reader.ask(&read).await.0 == 200 {}
            millis()
        };
        let acknowledged = async {
            assert_eq!(writer.ask(&invalidation).await.0, 200);
            millis()
        };
        tokio::join!(effect, acknowledged)
    }
}
