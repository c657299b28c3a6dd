//! Answers over time, on a clock that the tests set, and requests whose leaders die.

mod recomputation;

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, stream};
use serde_json::json;
use serde_json::value::RawValue;

use super::refresh_backoff::BACKOFF_SECONDS;
use super::*;
use crate::dialects::Dialect as _;
use crate::dialects::chat_completions::ChatCompletions;
use crate::domain::{Clock, Credential, ManualClock, Principal, TenantId, UnixSeconds};
use crate::request_identity::Json;
use crate::service::Directives;
use crate::upstream::{Headers, Reply as Head, UpstreamCall};

/// What an upstream does with one call.
enum Script {
    Says(u16, &'static str),
    Refuses(Kind),
    Dies,
}

/// An upstream that plays from a list, then answers with the number of the call.
struct Scripted {
    scripts: Mutex<Vec<Script>>,
    calls: Mutex<u32>,
}

impl Origin for Scripted {
    fn name(&self, _: Option<&str>) -> Result<Arc<str>> {
        Ok("scripted".into())
    }

    fn ask(&self, _: UpstreamCall) -> BoxFuture<'_, Result<Head>> {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        let (call, script) = (*calls, self.scripts.lock().unwrap().pop());
        let whole = |status, body: String| {
            Ok(Head::new(status, Headers::new(), stream::iter([Ok(Bytes::from(body))]).boxed_body()))
        };
        async move {
            match script {
                None => whole(200, answer(&format!("answer {call}"))),
                Some(Script::Says(status, body)) => whole(status, body.to_owned()),
                Some(Script::Refuses(kind)) => Err(Error::new(kind, "refused")),
                Some(Script::Dies) => panic!("the maker of an answer dies"),
            }
        }
        .boxed()
    }

    fn needs_clients_key(&self, _: &str, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn models(&self, _: Option<Credential>, _: Headers) -> BoxFuture<'_, Result<Vec<Box<RawValue>>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn refuse_own(&self, _: &Headers) -> Result<()> {
        Ok(())
    }

    fn share_under_way(&self) -> f64 {
        0.0
    }
}

trait Boxed {
    fn boxed_body(self) -> futures_util::stream::BoxStream<'static, Result<Bytes>>;
}

impl<S: futures_util::Stream<Item = Result<Bytes>> + Send + 'static> Boxed for S {
    fn boxed_body(self) -> futures_util::stream::BoxStream<'static, Result<Bytes>> {
        Box::pin(self)
    }
}

fn answer(text: &str) -> String {
    let choice =
        json!({ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } });
    json!({ "id": "c", "created": 1, "choices": [choice], "usage": { "prompt_tokens": 1, "completion_tokens": 1 } }).to_string()
}

struct Bench {
    answers: Arc<Answers>,
    origin: Arc<Scripted>,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000_000)));
        let cache = Arc::new(Cache::in_memory(Arc::clone(&clock) as Arc<dyn Clock>, dir.path()).await);
        let options = std::collections::BTreeMap::from([(
            "llm_responses".to_owned(),
            crate::cache::PolicyOptions { jitter_share: Some(0.0), ..Default::default() },
        )]);
        let namespaces = Arc::new(Namespaces::new(&options, true).unwrap());
        let origin = Arc::new(Scripted { scripts: Mutex::default(), calls: Mutex::default() });
        let upstream = upstream::Options::default();
        let shared = Arc::clone(&origin) as Arc<dyn Origin>;
        let budget = ByteBudget::new(usize::MAX, crate::metrics::unexported());
        let answers = Answers::new(
            cache,
            namespaces,
            shared,
            &upstream,
            Options::default(),
            &budget,
            crate::metrics::unexported(),
        );
        Bench { answers: Arc::new(answers), origin, clock, _dir: dir }
    }

    /// A bench whose fresh answers are refreshed by this rule.
    async fn with_early_refresh(rule: EarlyRefresh) -> Bench {
        let bench = Bench::new().await;
        let answers = Arc::into_inner(bench.answers).unwrap();
        Bench { answers: Arc::new(Answers { early_refresh: rule, ..answers }), ..bench }
    }

    fn next(&self, script: Script) {
        self.origin.scripts.lock().unwrap().push(script);
    }

    fn calls(&self) -> u32 {
        *self.origin.calls.lock().unwrap()
    }

    async fn ask_with(&self, directives: Directives) -> Result<AnswerResponse> {
        self.ask_as(Arc::default(), directives).await
    }

    async fn ask_as(&self, principal: Arc<Principal>, directives: Directives) -> Result<AnswerResponse> {
        let body =
            Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"what is it?"}]}"#);
        let ask = AnswerRequest {
            parsed: ChatCompletions.parse(&body, &IdentityRules::default()).unwrap().into(),
            body: body.clone(),
            query: None,
            principal,
            credential: None,
            headers: Vec::new(),
            traces: Headers::new(),
            directives,
            tags: Vec::new(),
            default_ttl_seconds: None,
            cached_features: None,
        };
        let response = self.answers.ask(ask).await;
        // A refresh is completed before the next question.
        while self.answers.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        response
    }

    async fn ask(&self) -> AnswerResponse {
        self.ask_with(Directives::default()).await.unwrap()
    }
}

fn text(response: &AnswerResponse) -> String {
    let Body::Whole(bytes) = &response.body else { panic!("not whole") };
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    json["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn hits_do_not_extend_the_ttl() {
    let bench = Bench::new().await;
    assert_eq!(text(&bench.ask().await), "answer 1");
    for _ in 0..7 {
        bench.clock.advance(230);
        assert_eq!(text(&bench.ask().await), "answer 1");
    }
    // 1610 of 1800 seconds: still fresh. At 1620 it is due: it is served once more and refreshed.
    bench.clock.advance(10);
    let stale = bench.ask().await;
    let AnswerOutcome::Hit(age) = &stale.outcome else { panic!("{:?}", stale.outcome) };
    assert_eq!((text(&stale), age.is_stale, age.age_seconds), ("answer 1".into(), true, 1620));
    assert_eq!(text(&bench.ask().await), "answer 2");
    assert_eq!(bench.calls(), 2);
    bench.clock.advance(1800);
    assert_eq!(text(&bench.ask().await), "answer 3", "an answer ends when its time is over");
}

#[tokio::test]
async fn an_expired_answer_is_served_if_the_upstream_fails() {
    let bench = Bench::new().await;
    bench.ask().await;
    bench.clock.advance(1900);
    bench.next(Script::Refuses(Kind::Upstream));
    let response = bench.ask().await;
    let AnswerOutcome::StaleIfError(age, None) = &response.outcome else { panic!("{:?}", response.outcome) };
    assert_eq!((age.age_seconds, age.fresh_seconds), (1900, -100));
    // A success that is no answer is a failure too.
    for status in [500, 503, 429, 200] {
        bench.next(Script::Says(status, "{}"));
        let response = bench.ask().await;
        assert!(matches!(response.outcome, AnswerOutcome::StaleIfError(_, Some(code)) if code == status));
        assert_eq!((response.status, text(&response)), (200, "answer 1".into()));
    }
    // A refusal of the model is an answer, and a forced refresh wants no old one.
    bench.next(Script::Says(400, "{}"));
    assert_eq!(bench.ask().await.status, 400);
    bench.next(Script::Refuses(Kind::Timeout));
    let no_cache = Directives { no_cache: true, ..Directives::default() };
    assert_eq!(bench.ask_with(no_cache).await.unwrap_err().kind(), Kind::Timeout);
    bench.clock.advance(1800);
    bench.next(Script::Refuses(Kind::Upstream));
    let late = bench.ask_with(Directives::default()).await;
    assert_eq!(late.unwrap_err().kind(), Kind::Upstream, "nor does it stand in for ever");
}

#[tokio::test]
async fn a_fresh_answer_is_refreshed_once_at_a_time_if_chance_says_so() {
    // However short the call was: so large a factor, and so small a number.
    let bench = Bench::with_early_refresh(EarlyRefresh::drawing(1e15, || f64::MIN_POSITIVE)).await;
    assert_eq!(text(&bench.ask().await), "answer 1");
    let hits = futures_util::future::join_all((0..5).map(|_| bench.ask())).await;
    for hit in &hits {
        let AnswerOutcome::Hit(info) = &hit.outcome else { panic!("{:?}", hit.outcome) };
        assert_eq!((text(hit), info.is_stale), ("answer 1".into(), false));
    }
    assert_eq!(bench.calls(), 2, "five requests are one refresh");
    let stored_only = Directives { only_if_cached: true, ..Directives::default() };
    assert_eq!(text(&bench.ask_with(stored_only).await.unwrap()), "answer 2");
    assert_eq!(bench.calls(), 2, "a request that may not call the upstream refreshes nothing");

    let bench = Bench::with_early_refresh(EarlyRefresh::drawing(1e15, || 1.0)).await;
    for _ in 0..3 {
        assert_eq!(text(&bench.ask().await), "answer 1");
    }
    assert_eq!(bench.calls(), 1);
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_stale_answer() {
    let bench = Bench::new().await;
    bench.ask().await;
    bench.clock.advance(1700);
    bench.next(Script::Says(500, "{}"));
    assert_eq!(text(&bench.ask().await), "answer 1");
    assert_eq!((text(&bench.ask().await), bench.calls()), ("answer 1".into(), 2), "not at every hit");
    bench.clock.advance(BACKOFF_SECONDS);
    bench.next(Script::Dies);
    assert_eq!(text(&bench.ask().await), "answer 1");
    assert_eq!(text(&bench.ask().await), "answer 1");
    assert_eq!(text(&bench.ask().await), "answer 4", "the third refresh succeeded");
}

/// Every request is counted once, whatever its outcome.
#[tokio::test]
async fn stale_if_error_is_counted_as_stale() {
    let bench = Bench::new().await;
    bench.ask().await;
    bench.clock.advance(1900);
    bench.next(Script::Refuses(Kind::Upstream));
    bench.ask().await;
    let no_cache = Directives { no_cache: true, ..Directives::default() };
    bench.next(Script::Refuses(Kind::Upstream));
    bench.ask_with(no_cache).await.unwrap_err();
    let outcomes = &bench.answers.metrics;
    assert_eq!((outcomes.misses.get(), outcomes.stale.get(), outcomes.hits.get()), (2, 1, 0));
}

/// A client can send any name of a model; the table of names is bounded.
#[tokio::test]
async fn a_request_is_counted_by_its_model_and_tenant_once_it_has_an_answer() {
    let bench = Bench::new().await;
    let named = || {
        let named = bench.answers.lookups_by_model().named();
        let mut counts: Vec<_> = named.map(|(id, _, counts)| (id, counts.misses, counts.hits)).collect();
        counts.sort_by_key(|(_, misses, hits)| (*misses, *hits));
        counts
    };
    bench.next(Script::Refuses(Kind::Upstream));
    bench.ask_with(Directives::default()).await.unwrap_err();
    for (status, body) in [(404, "{}"), (200, "{}")] {
        bench.next(Script::Says(status, body));
        assert_eq!(bench.ask().await.status, status);
    }
    assert_eq!(named(), []);
    for _ in 0..3 {
        bench.ask().await;
    }
    bench.ask_as(acme(), Directives::default()).await.unwrap();
    let id = |principal: &Principal| CounterId::of_model(&principal.tenant, "m");
    assert_eq!(named(), [(id(&acme()), 1, 0), (id(&Principal::default()), 1, 2)]);
}

/// RFC 5861: only an upstream that fails makes an old answer do.
#[tokio::test]
async fn an_old_answer_does_for_errors_only_as_long_as_the_request_says() {
    let bench = Bench::new().await;
    let if_error = |seconds| Directives { failed_stale_seconds_max: Some(seconds), ..Directives::default() };
    bench.ask().await;
    bench.clock.advance(1900);
    bench.next(Script::Says(503, "{}"));
    assert_eq!(bench.ask_with(if_error(99)).await.unwrap().status, 503, "it ended 100 seconds ago");
    bench.next(Script::Says(503, "{}"));
    assert_eq!(text(&bench.ask_with(if_error(100)).await.unwrap()), "answer 1");
    assert_eq!(text(&bench.ask_with(if_error(100)).await.unwrap()), "answer 4", "the upstream is well");
}

fn acme() -> Arc<Principal> {
    Arc::new(Principal { tenant: TenantId::named("acme").unwrap(), key: None })
}

#[tokio::test]
async fn tenants_that_ask_one_question_at_a_time_wait_for_generations_of_their_own() {
    let bench = Bench::new().await;
    let asked = || bench.ask_as(acme(), Directives::default());
    let (ours, theirs, again) = futures_util::future::join3(bench.ask(), asked(), asked()).await;
    let (theirs, again) = (theirs.unwrap(), again.unwrap());
    assert_eq!((text(&theirs), bench.calls()), (text(&again), 2));
    assert_ne!(text(&ours), text(&theirs));
    let hits = (text(&bench.ask().await), text(&asked().await.unwrap()));
    assert_eq!((hits, bench.calls()), ((text(&ours), text(&theirs)), 2));
}

#[tokio::test]
async fn the_id_of_an_answer_names_nothing_to_another_tenant() {
    let bench = Bench::new().await;
    let (own, acme, directives) = (Arc::new(Principal::default()), acme(), Directives::default());
    let scope = Json::parse(b"{}").unwrap();
    let ask = |principal| Question {
        principal,
        credential: None,
        prompt: "what is it?",
        scope: &scope,
        directives: &directives,
        tags: &[],
    };
    let known = async |principal| {
        let found = bench.answers.lookup(&ask(principal)).await.unwrap();
        found.hit.map(|found| found.answer)
    };
    let stamp = bench.answers.stamp();
    let id = bench.answers.store(&ask(&acme), "theirs", stamp).await.unwrap();
    assert_eq!(known(&own).await, None);
    let own_id = bench.answers.store(&ask(&own), "ours", stamp).await.unwrap();
    for (principal, foreign) in [(&own, id), (&acme, own_id)] {
        bench.answers.delete(principal, foreign).await.unwrap();
    }
    assert_eq!((known(&own).await, known(&acme).await), (Some("ours".into()), Some("theirs".into())));
    bench.answers.delete(&acme, id).await.unwrap();
    assert_eq!((known(&own).await, known(&acme).await), (Some("ours".into()), None));
}

#[tokio::test]
async fn a_waiter_whose_leader_dies_generates_the_answer() {
    let bench = Bench::new().await;
    bench.next(Script::Dies);
    let (one, two) = futures_util::future::join(bench.ask(), bench.ask()).await;
    assert_eq!((text(&one), text(&two)), ("answer 2".into(), "answer 2".into()));
    assert_eq!(bench.calls(), 2);
    (0..LEADERS_MAX).for_each(|_| bench.next(Script::Dies));
    let no_cache = Directives { no_cache: true, ..Directives::default() };
    assert_eq!(bench.ask_with(no_cache).await.unwrap_err().kind(), Kind::Internal, "not without an end");
}

#[tokio::test]
async fn a_lifetime_of_its_own_is_kept_within_limits() {
    let bench = Bench::new().await;
    let living = |ttl| Directives { ttl_seconds: Some(ttl), ..Directives::default() };
    bench.ask_with(living(60)).await.unwrap();
    bench.clock.advance(61);
    assert_eq!(text(&bench.ask().await), "answer 2");
    for ttl in [0, u32::MAX] {
        assert_eq!(bench.ask_with(living(ttl)).await.unwrap_err().param_name(), Some("ttl_seconds"));
    }
}

#[tokio::test]
async fn a_forced_refresh_does_not_lengthen_a_lifetime() {
    let bench = Bench::new().await;
    let living = |ttl| Directives { ttl_seconds: Some(ttl), ..Directives::default() };
    bench.ask_with(living(60)).await.unwrap();
    let left = async || {
        let response = bench.ask().await;
        let AnswerOutcome::Hit(age) = &response.outcome else { panic!("{:?}", response.outcome) };
        age.fresh_seconds
    };
    bench.clock.advance(55);
    assert_eq!(left().await, 5, "due, and refreshed by a request without a TTL");
    assert_eq!(left().await, 60);
    bench.clock.advance(61);
    assert_eq!(bench.ask().await.outcome, AnswerOutcome::Miss);
    assert_eq!(left().await, 60, "nor does one who comes when it has ended");
    bench.clock.advance(55);
    bench.ask_with(living(600)).await.unwrap();
    assert_eq!(left().await, 600, "unless the request sets one");
}
