//! A collection lives on one node, and requests for it that reach another are passed on, or refused with the name of its node; never
//! answered as if it did not exist.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::nodes::{NodeUnderTest, known_to, metric, start, start_advertised, start_at, until_it_knows};
use super::servers::{Program, RedisServer};
use super::two_nodes::TwoNodes;
use crate::endpoint::Endpoint;
use crate::program::{Answer, Server, until};

const POINTS: &str = "/v1/collections/points";
const SEARCH_PATH: &str = "/v1/collections/points/search";

struct Pair {
    // Before what they are connected to, so that they end first.
    a: NodeUnderTest,
    b: NodeUnderTest,
    redis: RedisServer,
    endpoint: Endpoint,
}

/// Two nodes that know each other's address.
async fn pair() -> Pair {
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Redis));
    let (a, b) = (start_advertised(&endpoint, &redis), start_advertised(&endpoint, &redis));
    until_it_knows(&a.server, 1).await;
    until_it_knows(&b.server, 1).await;
    Pair { a, b, redis, endpoint }
}

async fn id(server: &Server) -> String {
    known_to(server).await[0]["id"].as_str().unwrap().to_owned()
}

async fn create(server: &Server, path: &str) -> Answer {
    server.ask("PUT", path, &[], json!({ "dimensions": 2, "metric": "l2" }).to_string()).await
}

async fn make_points(server: &Server) {
    let made = create(server, POINTS).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let documents: Vec<Value> = (0..20).map(|n| json!({ "id": n.to_string(), "vector": [n, 1] })).collect();
    let body = json!({ "documents": documents }).to_string();
    let stored = server.ask("POST", &format!("{POINTS}/documents"), &[], body).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
}

/// Status, the headers that clients act on, and the bytes of the answer to a request.
async fn answer(
    server: &Server,
    (method, path, body): (&str, &str, &str),
) -> (u16, Vec<String>, Vec<u8>, HeaderMap) {
    let url = format!("{}{path}", server.url());
    let request = server.client().request(method.parse().unwrap(), url).body(body.to_owned());
    let response = request.header("content-type", "application/json").send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let known =
        ["content-type", "cache-status", "x-likewise-version", "x-likewise-documents", "allow", "etag"];
    let shown = known.map(|name| format!("{name}: {:?}", headers.get(name)));
    (status, shown.to_vec(), response.bytes().await.unwrap().to_vec(), headers)
}

#[tokio::test]
async fn a_redis_that_is_slow_for_a_moment_costs_a_request_for_a_new_collection_time_and_no_error() {
    let nodes = TwoNodes::start(&[("LIKEWISE__REDIS__RESPONSE_MS_MAX", "20")]).await;
    let created = nodes.put(0, "/v1/collections/slow", &[], r#"{"dimensions": 2}"#).await;
    assert_eq!(created.status, 201, "{}", created.body);
    // Much longer than a call may take, and much shorter than a request waits.
    nodes.redis.ask::<()>("CLIENT PAUSE 300 ALL");
    let found = nodes.get(1, "/v1/collections/slow", &[]).await;
    assert!(matches!(found.status, 200 | 421), "{}: {}", found.status, found.body);
}

#[tokio::test]
async fn another_connection_to_the_same_redis_makes_no_collection_unknown() {
    let nodes = TwoNodes::start(&[]).await;
    for _ in 0..10 {
        nodes.redis.ask::<i64>("CLIENT KILL TYPE normal");
        let answer = nodes.get(1, "/v1/collections/none", &[]).await;
        assert_eq!(answer.status, 404, "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_of_a_collection_answers_at_every_node_as_at_its_own() {
    let pair = pair().await;
    let (a, b) = (&pair.a.server, &pair.b.server);
    make_points(a).await;
    let own = id(a).await;
    let search = r#"{"vectors": [[3, 1]], "k": 3}"#;
    let paths =
        ["", "/documents", "/documents?limit=5", "/documents/7", "/count", "/snapshots", "/documents/none"]
            .map(|path| format!("{POINTS}{path}"));
    let search_path = format!("{POINTS}/search");
    let delete_path = format!("{POINTS}/documents/delete");
    let mut requests: Vec<(&str, &str, &str)> = paths.iter().map(|path| ("GET", path.as_str(), "")).collect();
    // So that both find it in the cache.
    assert_eq!(answer(a, ("POST", &search_path, search)).await.0, 200);
    requests.push(("POST", &search_path, search));
    requests.push(("POST", &search_path, "{"));
    requests.push(("POST", &delete_path, r#"{"ids": []}"#));
    for request in requests {
        let (direct, passed_on) = (answer(a, request).await, answer(b, request).await);
        assert_eq!((direct.0, &direct.1), (passed_on.0, &passed_on.1), "{request:?}");
        assert_eq!(direct.2, passed_on.2, "{request:?}: {}", String::from_utf8_lossy(&passed_on.2));
        assert_eq!(passed_on.3["x-likewise-node"], own.as_str(), "{request:?}");
        assert!(!direct.3.contains_key("x-likewise-node"), "{request:?}");
    }
    assert_eq!(answer(b, ("GET", &paths[1], "")).await.2.iter().filter(|byte| **byte == b'\n').count(), 20);

    // Changes.
    let body = json!({ "documents": [{ "id": "new", "vector": [100, 1] }] }).to_string();
    let stored = b.ask("POST", &format!("{POINTS}/documents"), &[], body).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    assert_eq!(a.get(&format!("{POINTS}/documents/new")).await.status, 200);
    let merge = [("content-type", "application/merge-patch+json")];
    let patched =
        b.ask("PATCH", &format!("{POINTS}/documents/new"), &merge, r#"{"metadata": {"x": 1}}"#).await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    assert_eq!(b.ask("DELETE", &format!("{POINTS}/documents/new"), &[], "").await.status, 204);
    assert_eq!(a.get(&format!("{POINTS}/documents/new")).await.status, 404);
    assert_eq!(
        b.ask("POST", &format!("{POINTS}/snapshots"), &[], "").await.status,
        a.ask("POST", &format!("{POINTS}/snapshots"), &[], "").await.status
    );
    assert_eq!(create(b, POINTS).await.status, 200, "it exists");
    assert_eq!(b.ask("PUT", POINTS, &[], r#"{"dimensions": 3}"#).await.status, 409);
    assert_eq!(b.ask("PATCH", POINTS, &[], "{}").await.status, 405);

    // A dropped collection is on no node, and the next one of its name on the node that makes it.
    assert_eq!(b.ask("DELETE", POINTS, &[], "").await.status, 204);
    for server in [a, b] {
        until("it is dropped", async || server.get(POINTS).await.status == 404).await;
    }
    let made = create(b, POINTS).await;
    assert_eq!((made.status, made.header("x-likewise-node")), (201, ""));
    let found = a.get(POINTS).await;
    assert_eq!((found.status, found.header("x-likewise-node")), (200, id(b).await.as_str()));
    assert_eq!(a.get("/v1/collections").await.body["data"], json!([]), "a node lists its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_of_one_node_whichever_makes_it_first() {
    let pair = pair().await;
    for n in 0..10 {
        let path = format!("/v1/collections/c{n}");
        let (one, other) = tokio::join!(create(&pair.a.server, &path), create(&pair.b.server, &path));
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201], "{} {}", one.body, other.body);
    }
    let mut count = 0;
    for server in [&pair.a.server, &pair.b.server] {
        count += server.get("/v1/collections").await.body["data"].as_array().unwrap().len();
    }
    assert_eq!(count, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_the_node_is_named() {
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Valkey));
    let (a, b) = (start(&endpoint, &redis, &[]), start(&endpoint, &redis, &[]));
    make_points(&a.server).await;
    let refused = [
        b.server.get(POINTS).await,
        b.server.ask("POST", &format!("{POINTS}/search"), &[], r#"{"vectors": [[3, 1]]}"#).await,
        create(&b.server, POINTS).await,
        b.server.ask("DELETE", POINTS, &[], "").await,
    ];
    let own = id(&a.server).await;
    for refused in refused {
        assert_eq!((refused.status, refused.error()), (421, ("on_other_node", Some("name"))));
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(&own), "{message}");
    }
    assert_eq!(b.server.get("/v1/collections/none").await.status, 404, "no node has it");
    assert_eq!(a.server.get(POINTS).await.status, 200);
}

/// Whatever can write to Redis must not learn the keys of clients by naming an address.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_no_node_has_announced_is_not_asked() {
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Redis));
    let keyed = [("LIKEWISE_REDIS_MAC_KEY", "0123456789abcdef"), ("LIKEWISE__NODES__HEARTBEAT_MS", "60000")];
    let (a, b) = (start(&endpoint, &redis, &keyed), start(&endpoint, &redis, &keyed));
    make_points(&a.server).await;
    let forged = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    forged.set_nonblocking(true).unwrap();
    let report = json!({ "address": format!("http://{}", forged.local_addr().unwrap()) }).to_string();
    redis.ask::<u64>(&format!("HSET {{likewise:0}}:reports {} {report}", id(&a.server).await));
    let refused = b.server.get(&format!("{POINTS}/count")).await;
    assert_eq!((refused.status, refused.error().0), (421, "on_other_node"), "{}", refused.body);
    assert_eq!(forged.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_passed_on_once() {
    let pair = pair().await;
    make_points(&pair.a.server).await;
    let by = [("x-likewise-forwarded-by", "0123456789abcdef")];
    let refused = pair.b.server.ask("GET", POINTS, &by, "").await;
    assert_eq!((refused.status, refused.error().0), (421, "on_other_node"));
    assert_eq!(pair.a.server.ask("GET", POINTS, &by, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collections_of_a_node_that_is_away_are_unavailable_and_its_return_heals() {
    let pair = pair().await;
    let Pair { a, b, redis, endpoint } = pair;
    make_points(&a.server).await;
    let own = id(&a.server).await;
    assert_eq!(b.server.get(POINTS).await.status, 200);
    let address = a.server.url().strip_prefix("http://").unwrap().to_owned();
    a.server.kill();
    until("the node counts as away", async || {
        let answer = b.server.get(POINTS).await;
        assert_eq!((answer.status, answer.error().0), (503, "unavailable"));
        answer.body["error"]["message"].as_str().unwrap().contains(&format!("{own}, which is away"))
    })
    .await;
    for refused in [create(&b.server, POINTS).await, b.server.ask("DELETE", POINTS, &[], "").await] {
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert!(!refused.header("retry-after").is_empty());
    }
    let _a = start_at(a.dir.path(), &address, &endpoint, &redis);
    until("it is served again", async || {
        let answer = b.server.get(POINTS).await;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.body);
        answer.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_falls_silent_is_waited_for_by_few_and_not_for_long() {
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Redis));
    let a = start_advertised(&endpoint, &redis);
    make_points(&a.server).await;
    // It believes for longer than the test takes that the other is there.
    let patient = [
        ("LIKEWISE__NODES__HEARTBEAT_MS", "60000"),
        ("LIKEWISE__NODES__FORWARD_MS_MAX", "1000"),
        ("LIKEWISE__NODES__FORWARDS_MAX", "1"),
    ];
    let b = start(&endpoint, &redis, &patient);
    let search = || b.server.ask("POST", SEARCH_PATH, &[], r#"{"vectors": [[3, 1]]}"#);
    assert_eq!(search().await.status, 200);
    a.server.signal("STOP");
    // On a busy machine one of them may have been given up before the other comes.
    until("one request waits and another one is refused", async || {
        let (one, other) = tokio::join!(search(), search());
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        statuses == [429, 504]
    })
    .await;
    a.server.signal("CONT");
    until("it answers again", async || search().await.status == 200).await;
    for (outcome, count) in [("timed_out", 1.0), ("refused", 1.0)] {
        let name = format!("likewise_node_forwards_total{{outcome=\"{outcome}\"}}");
        assert!(metric(&b.server, &name).await >= count, "{name}");
    }
    assert!(metric(&b.server, "likewise_node_forwards_total{outcome=\"answered\"}").await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_node_serves_its_own_and_never_says_that_others_do_not_exist() {
    let mut pair = pair().await;
    make_points(&pair.a.server).await;
    assert_eq!(create(&pair.b.server, "/v1/collections/other").await.status, 201);
    assert_eq!(pair.b.server.get(POINTS).await.status, 200);
    pair.redis.kill();
    let (a, b) = (&pair.a.server, &pair.b.server);
    assert_eq!(a.get(POINTS).await.status, 200, "its own");
    until("the place is no longer believed, only remembered", async || {
        assert_eq!(b.get(POINTS).await.status, 200, "a place that is known");
        b.get("/v1/nodes").await.body["is_current"] == false
    })
    .await;
    for path in ["/v1/collections/other", "/v1/collections/none"] {
        assert_eq!(a.get(path).await.status, 503);
    }
    assert_eq!(create(a, "/v1/collections/new").await.status, 503);

    // With nothing of what it had: each node announces its collections again.
    pair.redis.restart();
    until("the other node's collection is found", async || {
        let answer = a.get("/v1/collections/other").await;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.body);
        answer.status == 200
    })
    .await;
    until("names that no node has are free", async || create(a, "/v1/collections/new").await.status == 201)
        .await;
    assert_eq!(a.get("/v1/collections/none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lacks_the_last_changes_makes_no_collection_seem_to_be_missing() {
    let pair = pair().await;
    make_points(&pair.a.server).await;
    // As a replica that has taken over: it lacks something, and has another history of replication.
    assert_eq!(pair.redis.ask::<usize>("DEL {likewise:0}:collections"), 1);
    pair.redis.ask::<()>("REPLICAOF 127.0.0.1 1");
    pair.redis.ask::<()>("REPLICAOF NO ONE");
    assert!(pair.redis.ask::<usize>("CLIENT KILL TYPE normal") > 0);
    until("the collection is found again", async || {
        let answer = pair.b.server.get(POINTS).await;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.body);
        answer.status == 200
    })
    .await;
    until("others are missing again", async || pair.b.server.get("/v1/collections/none").await.status == 404)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_client_goes_with_its_request() {
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Redis));
    let keys = |keys: &'static str| [("LIKEWISE__HTTP__API_KEYS", keys)];
    // The key of one is unknown to the other.
    let a = start_with_keys(&endpoint, &redis, &keys("secret-common,secret-one"));
    let b = start_with_keys(&endpoint, &redis, &keys("secret-common,secret-other"));
    let common = [("authorization", "Bearer secret-common")];
    let made = a.server.ask("PUT", POINTS, &common, r#"{"dimensions": 2}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(b.server.ask("GET", POINTS, &common, "").await.status, 200);
    assert_eq!(
        b.server.ask("GET", POINTS, &[("authorization", "Bearer secret-other")], "").await.status,
        401
    );
    assert_eq!(b.server.get(POINTS).await.status, 401);
}

fn start_with_keys(endpoint: &Endpoint, redis: &RedisServer, keys: &[(&str, &str)]) -> NodeUnderTest {
    let port = super::servers::free_port();
    let (dir, address) = (tempfile::TempDir::new().unwrap(), format!("127.0.0.1:{port}"));
    let url = format!("http://{address}");
    let environment = [keys, &[("LIKEWISE__NODES__ADVERTISE", &url)]].concat();
    let mut program = super::nodes::program(dir.path(), endpoint, redis, &environment);
    let server = Server::spawn_at(&mut program, &address);
    NodeUnderTest { server, dir }
}
