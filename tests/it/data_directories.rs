//! Data directories that earlier programs have left: this program opens them and finds all that they hold, and nothing
//! that they had invalidated.
//!
//! `tests/golden/make_data_directory.py` made the files of `tests/data/data_directories`, one for each program, and says
//! how. Entries end by the clock, so each is opened a minute after it was made. Neither model nor upstream is there: what
//! is not found is an error.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use likewise::app::{Engine, Environment};
use likewise::cache::Mode;
use likewise::config::Config;
use likewise::dialects::Dialect as _;
use likewise::dialects::chat_completions::ChatCompletions;
use likewise::domain::{ContentCoding, ManualClock, Principal, Tag, UnixSeconds};
use likewise::error::{Kind, Result};
use likewise::request_identity::Json;
use likewise::service::answers::{AnswerRequest, Body, Question};
use likewise::service::collections::{Input, Search};
use likewise::service::invalidation::Target;
use likewise::service::objects::{GetOptions, GetOutcome};
use likewise::service::{Directives, embeddings};
use likewise::upstream::Headers;
use serde_json::{Value, json};
use tempfile::TempDir;

const DIM: usize = 4;

/// Writes the files of a data directory into `dir` and returns the moment when it was made.
fn unpack(name: &str, dir: &Path) -> u32 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/data_directories").join(name);
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(&*fs_err::read(path).unwrap()).read_to_end(&mut content).unwrap();
    let head_end = content.iter().position(|&byte| byte == b'\n').unwrap();
    let head: Value = serde_json::from_slice(&content[..head_end]).unwrap();
    let mut rest = &content[head_end + 1..];
    for file in head["files"].as_array().unwrap() {
        let path = dir.join(file[0].as_str().unwrap());
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let (bytes, others) = rest.split_at(file[1].as_u64().unwrap() as usize);
        fs_err::write(path, bytes).unwrap();
        rest = others;
    }
    assert!(rest.is_empty());
    head["now"].as_u64().unwrap() as u32
}

/// The use cases over a data directory.
struct Opened(Engine);

impl Opened {
    async fn new(dir: &TempDir, now: u32) -> Opened {
        let mut config = Config::default();
        config.data.dir = dir.path().to_owned();
        config.cache.disk.segment_bytes = 1 << 20;
        config.embed.remote.base_url = Some("http://127.0.0.1:18499/v1".into());
        config.embed.remote.model = Some("mock".into());
        config.embed.remote.dim = Some(DIM);
        config.upstream.base_url = Some("http://127.0.0.1:18498/v1".into());
        let mut environment = Environment::new(&config).unwrap();
        environment.clock = Arc::new(ManualClock::at(UnixSeconds(now + 60)));
        Opened(Engine::build_in(&config, environment).await.unwrap())
    }

    async fn object(&self, namespace: &str, key: &str) -> Option<(Bytes, ContentCoding)> {
        let address = self.0.objects.address(&Principal::default(), namespace, key).unwrap();
        match self.0.objects.get(&address, &GetOptions::default()).await.unwrap() {
            GetOutcome::Hit(object) => Some((object.value, object.found.entry.meta.content_coding)),
            GetOutcome::Miss { .. } => None,
        }
    }

    async fn text(&self, namespace: &str, key: &str) -> Option<String> {
        self.object(namespace, key).await.map(|(value, _)| String::from_utf8(value.to_vec()).unwrap())
    }

    async fn embed(&self, text: &str) -> Result<Vec<f32>> {
        let request = embeddings::Request {
            model: Arc::clone(self.0.models.default_model().unwrap()),
            texts: vec![text.into()],
            input_type: None,
            truncate: true,
            principal: Arc::default(),
            directives: if_cached(),
            is_background: false,
        };
        let response = self.0.embeddings.embed(&request).await?;
        let numbers = response.entries[0].value.as_chunks::<4>().0.iter();
        Ok(numbers.map(|&number| f32::from_le_bytes(number)).collect())
    }

    /// The answer to a question that was sent to the upstream.
    async fn chat(&self, question: &str) -> Result<String> {
        let messages = json!([{ "role": "user", "content": question }]);
        let body = Bytes::from(json!({ "model": "m", "messages": messages }).to_string());
        let request = AnswerRequest {
            parsed: ChatCompletions.parse(&body, &self.0.answers.identity_rules()).unwrap().into(),
            body,
            query: None,
            principal: Arc::default(),
            credential: None,
            headers: Vec::new(),
            traces: Headers::new(),
            directives: if_cached(),
            tags: Vec::new(),
            default_ttl_seconds: None,
            cached_features: None,
        };
        let Body::Whole(bytes) = self.0.answers.ask(request).await?.body else { panic!("not whole") };
        let reply: Value = serde_json::from_slice(&bytes).unwrap();
        Ok(reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned())
    }

    /// The answer that was stored for a question in words.
    async fn known(&self, prompt: &str) -> Option<String> {
        let (principal, directives) = (Arc::new(Principal::default()), if_cached());
        let scope = Json::parse(br#"{"shop":1}"#).unwrap();
        let question = Question {
            principal: &principal,
            credential: None,
            prompt,
            scope: &scope,
            directives: &directives,
            tags: &[],
        };
        self.0.answers.lookup(&question).await.unwrap().hit.map(|found| found.answer)
    }

    async fn search(&self, text: &str) -> Vec<String> {
        let search = Search {
            input: Input::Texts(vec![text.into()]),
            k: 10,
            filter: None,
            score_min: None,
            has_vectors: false,
            is_exact: true,
            ef: None,
            principal: Arc::default(),
            directives: Directives::default(),
        };
        let found = self.0.collections.search("points", search).await.unwrap();
        found.results[0].iter().map(|hit| hit.document.id.to_owned()).collect()
    }
}

fn if_cached() -> Directives {
    Directives { only_if_cached: true, ..Directives::default() }
}

/// What the program left that made the directory.
async fn finds_all(opened: &Opened) {
    assert_eq!(opened.embed("one").await.unwrap().len(), DIM);
    assert_ne!(opened.embed("one").await.unwrap(), opened.embed("two").await.unwrap());
    assert_eq!(opened.text("shop", "price").await.unwrap(), "ours");
    assert_eq!(opened.text("shop", "again").await.unwrap(), "made after its tag was invalidated");
    let (packed, coding) = opened.object("shop", "packed").await.unwrap();
    assert_eq!((&packed[..2], coding), (&[0x1f, 0x8b][..], ContentCoding::Gzip));
    assert_eq!(opened.chat("what is it?").await.unwrap(), "answer to what is it?");
    assert_eq!(opened.known("who is it?").await.unwrap(), "given");

    let listed = opened.0.collections.list(&Principal::default());
    assert_eq!(listed.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["points"]);
    let view = opened.0.collections.get(&Principal::default(), "points").unwrap().view();
    let ids: Vec<&str> = view.iter().map(|(document, _)| document.id).collect();
    assert_eq!(ids, ["d0", "d1", "d2"]);
    let (document, vector) = view.get("d1").unwrap();
    assert_eq!(
        (document.text, document.tags().collect::<Vec<_>>()),
        (Some("document 1"), vec!["season:winter"])
    );
    assert_eq!(vector.len(), DIM);
}

/// What it had invalidated.
async fn finds_nothing_invalidated(opened: &Opened) {
    for (namespace, key) in [("shop", "before"), ("shop", "hidden"), ("old", "hidden")] {
        assert_eq!(opened.text(namespace, key).await, None, "{namespace}/{key}");
    }
    assert_eq!(opened.embed("before").await.unwrap_err().kind(), Kind::NotCached);
    assert_eq!(opened.chat("before").await.unwrap_err().kind(), Kind::NotCached);
    assert_eq!(opened.known("hidden?").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_before_there_were_tenants_is_that_of_the_default_tenant() {
    let dir = TempDir::new().unwrap();
    let now = unpack("61cd411.gz", dir.path());
    // The second time it is what this program has left.
    for _ in 0..2 {
        let opened = Opened::new(&dir, now).await;
        finds_all(&opened).await;
        finds_nothing_invalidated(&opened).await;
        assert_eq!(opened.search("document 2").await[0], "d2", "its vector is cached");
        opened.0.close().await;
    }

    let opened = Opened::new(&dir, now).await;
    let winter = Target::Tags(vec![Tag::named("season:winter").unwrap()]);
    opened.0.invalidation.invalidate(&Principal::default(), &winter, Mode::Hard).await.unwrap();
    assert_eq!((opened.text("shop", "price").await, opened.known("who is it?").await), (None, None));
    assert!(opened.object("shop", "packed").await.is_some());
    opened.0.invalidation.invalidate(&Principal::default(), &Target::Everything, Mode::Hard).await.unwrap();
    assert_eq!(opened.object("shop", "packed").await, None);
    assert_eq!(opened.embed("one").await.unwrap_err().kind(), Kind::NotCached);
    assert_eq!(opened.chat("what is it?").await.unwrap_err().kind(), Kind::NotCached);
    opened.0.close().await;
}
