//! Random requests to every route: valid ones, and ones with values, bytes and headers that no client should send.

use serde_json::{Value, json};

use crate::kill::splitmix;

/// A request as it goes over the wire.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the head is no longer one that a client would send, so that the connection may end.
    pub(super) is_garbled: bool,
}

/// A stream of random numbers. The same seed gives the same requests.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(splitmix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        splitmix(self.0)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True once in `times`.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

/// What stands in a body for text that is no JSON value, such as `1e400`.
const RAW: &str = "@raw@";

/// Texts that are no valid or no ordinary JSON values.
const RAW_VALUES: [&str; 9] =
    ["1e400", "-1e400", "NaN", "01", "18446744073709551616", "-0.0", "\"\\ud800\"", "\"\\u0000\"", "tru"];

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE"];

/// Headers that the server reads, each with odd and ordinary values.
const HEADERS: [(&str, &[&str]); 16] = [
    (
        "cache-control",
        &["no-cache", "no-store", "max-age=0", "only-if-cached", "max-stale", "max-age=-1", "x=\""],
    ),
    ("x-cache-ttl", &["1", "60", "0", "-1", "99999999999", "1.5", "NaN"]),
    ("x-cache-tags", &["a,b", "", ",,,", "product:1", "\u{e9}", "a b"]),
    ("x-cache-lease", &["0000000000000001", "1", "zz"]),
    ("x-cache-lease-seconds", &["1", "0", "999999"]),
    ("x-cache-wait-ms", &["0", "1", "-1"]),
    ("if-match", &["*", "\"a\"", "\"a,b\", W/\"c\"", ",", "\""]),
    ("if-none-match", &["*", "\"a\"", "\"a\",,\"b\"", "W/\"0\"", "x"]),
    (
        "content-type",
        &[
            "application/json",
            "text/plain",
            "multipart/form-data; boundary=x",
            "",
            "application/json; charset=utf-16",
        ],
    ),
    ("content-encoding", &["identity", "gzip", "zstd", "br", "gzip, gzip", "x"]),
    ("accept-encoding", &["gzip", "zstd, gzip;q=0", "*;q=0", "identity;q=0, *", ""]),
    ("accept", &["*/*", "text/event-stream", "x"]),
    ("origin", &["http://localhost:1", "null", "https://evil.example"]),
    ("authorization", &["Bearer x", "Bearer", "Basic eDp5", "bearer  "]),
    ("te", &["trailers", "x"]),
    ("range", &["bytes=0-1", "bytes=5-1", "x"]),
];

/// A random request.
pub(super) fn request(random: &mut Random) -> Request {
    let (method, path, body) = template(random);
    let mut request = Request { method, path, headers: Vec::new(), body: Vec::new(), is_garbled: false };
    request.body = body.map(|body| written(body, random)).unwrap_or_default();
    if random.one_in(12) {
        request.method = random.pick(&METHODS);
    }
    if random.one_in(12) {
        request.path = odd_path(&request.path, random);
    }
    for _ in 0..random.below(3) {
        let (name, values) = random.pick(&HEADERS);
        request.headers.push((name, random.pick(values).to_owned()));
    }
    request.is_garbled = random.one_in(40);
    request
}

/// A valid request of an ordinary client.
pub(super) fn valid(random: &mut Random) -> Request {
    let (method, path, body) = template(random);
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    Request { method, path, headers: Vec::new(), body, is_garbled: false }
}

type Template = (&'static str, String, Option<Value>);

fn template(random: &mut Random) -> Template {
    match random.below(8) {
        0 => embeddings(random),
        1 | 2 => answers(random),
        3 | 4 => objects(random),
        5 | 6 => collections(random),
        _ => others(random),
    }
}

fn text(random: &mut Random) -> String {
    let words = ["camiseta", "azul", "¿dónde", "está?", "shoe", "red", "\u{1f600}", "a\u{301}"];
    let count = 1 + random.below(6);
    let text: Vec<&str> = (0..count).map(|_| random.pick(&words)).collect();
    format!("{} {}", text.join(" "), random.below(5_000))
}

fn embeddings(random: &mut Random) -> Template {
    let inputs = match random.below(4) {
        0 => json!(text(random)),
        1 => json!((0..random.below(20)).map(|_| text(random)).collect::<Vec<_>>()),
        2 => json!([random.below(1000), random.below(100_000)]),
        _ => json!([text(random)]),
    };
    let mut body = json!({ "model": "mock", "input": inputs });
    for (name, value) in [
        ("encoding_format", json!(random.pick(&["float", "base64"]))),
        ("input_type", json!("query")),
        ("truncate", json!(random.one_in(2))),
        ("cache", json!({ "ttl": random.below(100), "no-store": random.one_in(2) })),
        ("dimensions", json!(random.below(400))),
        ("user", json!("u")),
    ] {
        if random.one_in(6) {
            body[name] = value;
        }
    }
    ("POST", "/v1/embeddings".into(), Some(body))
}

fn answers(random: &mut Random) -> Template {
    let tags = json!([format!("product:{}", random.below(3_000))]);
    if random.one_in(4) {
        let prompt = json!({ "prompt": text(random), "scope": { "m": random.below(3) } });
        return match random.below(5) {
            0 => {
                let mut given = prompt;
                given["answer"] = text(random).into();
                given["tags"] = tags;
                ("POST", "/v1/answers".into(), Some(given))
            }
            1 => ("POST", "/v1/answers/lookup".into(), Some(prompt)),
            2 => ("POST", "/v1/answers/explain".into(), Some(prompt)),
            3 => {
                // Few pairs: each is kept.
                let [asked, stored] = [0, 1].map(|_| format!("question {}?", random.below(100)));
                let feedback = json!({ "prompt": asked, "question": stored, "correct": random.one_in(2) });
                ("POST", "/v1/answers/feedback".into(), Some(feedback))
            }
            _ => ("DELETE", format!("/v1/answers/ans_{:064x}", random.next()), None),
        };
    }
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": text(random) }] });
    for (name, value) in [
        ("stream", json!(true)),
        ("temperature", json!(random.below(3))),
        ("n", json!(random.below(3))),
        (
            "tools",
            json!([{ "type": "function", "function": { "name": "f", "parameters": { "b": 1, "a": 2 } } }]),
        ),
        ("response_format", json!({ "type": "json_object" })),
        ("stream_options", json!({ "include_usage": true })),
        ("cache", json!({ "ttl": 1 + random.below(100), "tags": tags })),
    ] {
        if random.one_in(4) {
            body[name] = value;
        }
    }
    ("POST", "/v1/chat/completions".into(), Some(body))
}

fn objects(random: &mut Random) -> Template {
    let namespace = random.pick(&["default", "products", "productos", "other"]);
    let key = random.below(5_000);
    let path = format!("/v1/cache/{namespace}/{key}");
    match random.below(6) {
        0 | 1 => (
            "PUT",
            path,
            Some(json!({ "price": random.below(100), "text": "x".repeat(random.below(4_000)) })),
        ),
        2 | 3 => ("GET", path, None),
        4 => ("DELETE", path, None),
        _ => {
            let put = json!({ "key": key.to_string(), "value": text(random), "tags": [format!("t{key}")], "ttl": 5 });
            let body = json!({ "get": [format!("g{key}")], "put": [put], "delete": [format!("d{key}")] });
            ("POST", format!("/v1/cache/{namespace}/batch"), Some(body))
        }
    }
}

fn collections(random: &mut Random) -> Template {
    let name = random.pick(&["c0", "c1", "c2", "texts"]);
    let base = format!("/v1/collections/{name}");
    let vector = |random: &mut Random| -> Value {
        (0..4).map(|_| random.below(1000) as f64 / 500.0 - 1.0).collect::<Vec<_>>().into()
    };
    match random.below(10) {
        0 => {
            let index = random.pick(&["auto", "exact", "HNSW16,SQ8", "IVF2,Flat", "PQ0", "HNSW0"]);
            let metric = random.pick(&["cosine", "l2", "inner_product"]);
            let own = json!({ "dimensions": 4, "metric": metric, "index": index });
            ("PUT", base, Some(if name == "texts" { json!({}) } else { own }))
        }
        1..=3 => {
            let document = |random: &mut Random| {
                let mut document = json!({ "id": random.below(2_000).to_string() });
                if name == "texts" {
                    document["text"] = text(random).into()
                } else {
                    document["vector"] = vector(random)
                }
                document["metadata"] =
                    json!({ "price": random.below(100), "brand": "b", "list": [1, "x", true] });
                document["tags"] = json!([format!("brand:{}", random.below(50))]);
                document
            };
            let documents: Vec<Value> = (0..1 + random.below(10)).map(|_| document(random)).collect();
            ("POST", format!("{base}/documents"), Some(json!({ "documents": documents })))
        }
        4..=6 => {
            let mut body = json!({ "k": 1 + random.below(20), "include": ["text", "metadata"] });
            if name == "texts" {
                body["query"] = text(random).into()
            } else {
                body["vector"] = vector(random)
            }
            if random.one_in(2) {
                let price = json!({ "price": { "$lt": random.below(100) } });
                body["filter"] = json!({ "$and": [price, { "$not": { "brand": "z" } }] });
            }
            ("POST", format!("{base}/search"), Some(body))
        }
        7 => {
            let id = random.below(2_000).to_string();
            let metadata = json!({ "price": random.below(100), "brand": null, "new": { "a": "b" } });
            match random.below(3) {
                0 => ("DELETE", format!("{base}/documents/{id}"), None),
                1 => ("PATCH", format!("{base}/documents/{id}"), Some(json!({ "metadata": metadata }))),
                _ => ("POST", format!("{base}/documents/delete"), Some(json!({ "ids": [id] }))),
            }
        }
        8 => {
            let below = random.pick(&[
                "",
                "/documents",
                "/documents?limit=50&after=1&include=vector",
                "/documents?limit=5&filter=%7B%22brand%22%3A%22b%22%7D",
                "/documents?ids=1&ids=2",
                "/documents/1",
                "/count?filter=%7B%22price%22%3A%7B%22%24lt%22%3A9%7D%7D",
                "/snapshots",
                "/ids.jsonl",
                "/index.faiss",
            ]);
            ("GET", format!("{base}{below}"), None)
        }
        _ if random.one_in(8) => ("DELETE", base, None),
        _ => ("POST", format!("{base}/snapshots"), Some(json!({}))),
    }
}

fn others(random: &mut Random) -> Template {
    if random.one_in(3) {
        let tag = format!("product:{}", random.below(20_000));
        let body = match random.below(5) {
            0 => json!({ "namespace": "products" }),
            1 => json!({ "entity": { "type": "product", "id": tag } }),
            2 => json!({ "tags": [tag], "mode": "soft" }),
            3 => json!({ "tags": [tag], "dry_run": true }),
            _ => json!({ "tags": [tag] }),
        };
        return ("POST", "/v1/invalidate".into(), Some(body));
    }
    let paths = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/stats",
        "/v1/namespaces",
        "/v1/cache/products?limit=10",
        "/v1/cache/products?after=x",
        "/v1/tags/product:1",
        "/openapi.json",
        "/v1/models",
        "/v1/models/mock",
        "/v1/models/a/b",
        "/v1/collections",
        "/v1/responses/r1",
        "/v1/files",
        "/",
        "/v1",
        "/v1/nope",
    ];
    ("GET", random.pick(&paths).to_owned(), None)
}

/// A body as JSON, often with a value or a byte that is wrong.
fn written(mut body: Value, random: &mut Random) -> Vec<u8> {
    for _ in 0..random.below(3) {
        let nodes = count(&body);
        let mut at = random.below(nodes);
        replace(&mut body, &mut at, random);
    }
    let raw = random.pick(&RAW_VALUES);
    let mut bytes = body.to_string().replace(&format!("\"{RAW}\""), raw).into_bytes();
    if random.one_in(15) && !bytes.is_empty() {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, b'"'),
            _ => bytes.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
        }
    }
    bytes
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum::<usize>(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Replaces the node number `at`, counted from the top.
fn replace(value: &mut Value, at: &mut usize, random: &mut Random) {
    if *at == 0 {
        *at = usize::MAX;
        *value = odd(value, random);
        return;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| {
            if *at != usize::MAX {
                replace(item, at, random)
            }
        }),
        Value::Object(members) => {
            members.values_mut().for_each(|member| {
                if *at != usize::MAX {
                    replace(member, at, random)
                }
            });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A value that does not belong in the place of `before`.
fn odd(before: &Value, random: &mut Random) -> Value {
    match random.below(16) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => json!(random.pick(&[-1.0, 0.0, 1.5, 1e300, 9e15])),
        3 => json!(u64::MAX),
        4 => json!(""),
        5 => json!("x".repeat(random.below(20_000))),
        6 => json!({}),
        7 => json!([]),
        8 => json!({ "a": before }),
        9 => json!([before, before]),
        10 => (0..random.below(200)).fold(before.clone(), |inner, _| json!([inner])),
        11 => (0..random.below(200)).fold(before.clone(), |inner, _| json!({ "$not": inner })),
        12 => json!(vec![before; random.below(300)]),
        13 => json!({ "$in": ["a", 1, null], "$eq": before, "$bad": 1 }),
        14 => json!(i64::MIN),
        _ => json!(RAW),
    }
}

fn odd_path(path: &str, random: &mut Random) -> String {
    let cut = random.below(path.len() + 1);
    match random.below(8) {
        0 => format!("{path}/"),
        1 => path.replacen('/', "//", 1),
        2 => format!(
            "{path}?{}",
            random.pick(&["limit=1", "include=vector", "a=%ff&b", "model=x", "include[]=text"])
        ),
        3 => format!("{}%2F..%2f{}", &path[..cut], &path[cut..]),
        4 => format!("{}%00{}", &path[..cut], &path[cut..]),
        5 => format!("{}%zz{}", &path[..cut], &path[cut..]),
        6 => path.to_uppercase(),
        _ => format!("{path}{}", "a".repeat(random.below(3_000))),
    }
}
