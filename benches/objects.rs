//! What does an object cost? A hit beside the HTTP request that carries it; and an invalidation beside the number of
//! entries that it hides.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use likewise::cache::{
    Budget, Cache, Freshness, InvalidationTokens, LocalTokenLog, MemoryOptions, MemoryTier, Mode, Namespaces,
    PolicyOptions, Tiers,
};
use likewise::domain::{ContentCoding, Principal, SystemClock, Tag, TierName};
use likewise::metrics::unexported;
use likewise::service::invalidation::Target;
use likewise::service::objects::{Condition, GetOptions, GetOutcome, ObjectDraft};
use likewise::service::{Invalidation, Objects};
use likewise::storage::Records;
use likewise_benches::beside::{Server, compare, serve_if_bare};
use likewise_benches::load::Connection;
use likewise_benches::{print_circumstances, spread};

const OBJECT_BYTES: usize = 1500;
const ENTRIES: usize = 1_000_000;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() {
    serve_if_bare().await;
    print_circumstances("objects");
    hits().await;
    invalidations().await;
}

/// Product data as a shop would keep it: JSON of 1,500 bytes.
fn product() -> String {
    let mut product =
        r#"{"id":42,"nombre":"Camiseta de algod\u00f3n","precio":19.95,"variantes":["#.to_owned();
    for n in 0.. {
        let next = format!(r#"{{"talla":"{}","color":"azul {n}","existencias":{}}},"#, n % 7, n * 37 % 100);
        if product.len() + next.len() + 12 > OBJECT_BYTES {
            break;
        }
        product.push_str(&next);
    }
    product.push_str(r#""fin"]"#);
    product.push_str(&" ".repeat(OBJECT_BYTES - product.len() - 1));
    product.push('}');
    product
}

async fn hits() {
    let binary = std::env::var("LIKEWISE_BINARY").expect("run this by `make bench NAME=objects`");
    let model = std::env::var("LIKEWISE_TEST_MODEL").expect("run this by `make bench NAME=objects`");
    let data = tempfile::tempdir().expect("a temporary directory");
    let own = Server::start(
        Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--model", &model, "--data-dir"])
            .arg(data.path())
            .env("LIKEWISE_LOG", "warn"),
    );
    let product = product();
    let put = format!(
        "PUT /v1/cache/products/42 HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         x-cache-tags: product:42\r\ncontent-length: {}\r\n\r\n{product}",
        own.address,
        product.len()
    );
    let mut connection = Connection::open(own.address).await;
    assert_eq!(connection.ask(put.as_bytes()).await.0, 204);
    let get = |address| format!("GET /v1/cache/products/42 HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes();
    let (status, prepared) = connection.ask(&get(own.address)).await;
    assert_eq!((status, prepared.len()), (200, OBJECT_BYTES));
    compare("object hit", &own, &Server::bare(prepared), get).await;
}

/// Fills memory with entries that carry one tag, invalidates it durably, and looks every entry up.
async fn invalidations() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let records = Arc::new(Records::open(data.path()).expect("the records open"));
    let tokens = InvalidationTokens::open(Arc::new(LocalTokenLog::new(records)), 1_000_000)
        .await
        .expect("the tokens open");
    let freshness = Freshness::new(Arc::new(SystemClock), Arc::new(tokens));
    let memory = MemoryOptions { budget: Budget::Bytes(4 << 30), ..MemoryOptions::default() };
    let memory = Arc::new(MemoryTier::new(&memory, &unexported()).expect("a budget"));
    let policy = PolicyOptions {
        tiers: Some(vec![TierName::Memory]),
        soft_share: Some(1.0),
        ..PolicyOptions::default()
    };
    let policies = BTreeMap::from([("default".to_owned(), policy)]);
    let namespaces = Arc::new(Namespaces::new(&policies, true).expect("a policy"));
    let cache = Arc::new(Cache::new(Arc::clone(&memory), Vec::new(), freshness.clone()));
    let tiers = Arc::new(Tiers::new(memory, vec![Arc::clone(&cache)]));
    let objects = Arc::new(Objects::new(cache, Arc::clone(&namespaces), Default::default(), unexported()));
    let invalidation = Invalidation::new(Arc::clone(&objects), namespaces, tiers, freshness, unexported());
    let (principal, tag) = (Principal::default(), Tag::named("season:winter").expect("a tag"));

    let (mut times, mut served) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        for n in 0..ENTRIES {
            let address = objects.address(&principal, "bench", &n.to_string()).expect("an address");
            let draft = ObjectDraft {
                key: n.to_string(),
                stamp: objects.stamp(),
                value: format!("{round} {n}").into(),
                content_type: "text/plain".into(),
                content_coding: ContentCoding::Identity,
                tags: vec![tag.clone()],
                ttl_seconds: None,
                lease: None,
                condition: Condition::default(),
            };
            objects.put(&address, draft).await.expect("memory takes it");
        }
        assert_eq!(count_served(&objects, &principal).await, ENTRIES, "all are served before");
        let started = Instant::now();
        let target = Target::Tags(vec![tag.clone()]);
        invalidation.invalidate(&principal, &target, Mode::Hard).await.expect("the disk takes it");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        served += count_served(&objects, &principal).await;
    }
    let ms = spread(times);
    println!("\ninvalidation by a tag that {ENTRIES} entries carry, durable; {ROUNDS} rounds");
    println!("| median ms | min-max | served afterwards |");
    println!("|---|---|---|");
    println!("| {:.3} | {:.3}-{:.3} | {served} |", ms.median, ms.min, ms.max);
}

async fn count_served(objects: &Objects, principal: &Principal) -> usize {
    let mut served = 0;
    for n in 0..ENTRIES {
        let address = objects.address(principal, "bench", &n.to_string()).expect("an address");
        let answer = objects.get(&address, &GetOptions::default()).await.expect("a lookup");
        served += usize::from(matches!(answer, GetOutcome::Hit(_)));
    }
    served
}
