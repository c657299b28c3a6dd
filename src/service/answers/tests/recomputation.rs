//! Answers that applications compute themselves: one caller at a time is the one that does.

use super::*;

/// A bench with one question, which is looked up and stored.
struct Asked {
    bench: Bench,
    principal: Arc<Principal>,
    directives: Directives,
}

impl Asked {
    async fn new(rule: EarlyRefresh) -> Asked {
        let (principal, directives) = (Arc::new(Principal::default()), Directives::default());
        Asked { bench: Bench::with_early_refresh(rule).await, principal, directives }
    }

    fn question<'a>(&'a self, scope: &'a Json<'a>) -> Question<'a> {
        Question {
            principal: &self.principal,
            credential: None,
            prompt: "what is it?",
            scope,
            directives: &self.directives,
            tags: &[],
        }
    }

    /// The answer, and whether the caller computes it.
    async fn look_up(&self) -> (Option<String>, bool) {
        let scope = Json::parse(b"{}").unwrap();
        let found = self.bench.answers.lookup(&self.question(&scope)).await.unwrap();
        (found.hit.map(|hit| hit.answer), found.computes)
    }

    async fn store(&self, answer: &str) {
        let scope = Json::parse(b"{}").unwrap();
        let stamp = self.bench.answers.stamp();
        self.bench.answers.store(&self.question(&scope), answer, stamp).await.unwrap();
    }
}

/// However short the computation was: so large a factor, and so small a number.
fn always() -> EarlyRefresh {
    EarlyRefresh::drawing(1e15, || f64::MIN_POSITIVE)
}

#[tokio::test]
async fn one_caller_computes_what_is_missing_or_stale() {
    let asked = Asked::new(EarlyRefresh::new(0.0)).await;
    let one = |answer: &str| (Some(answer.to_owned()), true);
    let other = |answer: &str| (Some(answer.to_owned()), false);
    assert_eq!([asked.look_up().await, asked.look_up().await], [(None, true), (None, false)]);
    asked.store("first").await;
    assert_eq!([asked.look_up().await, asked.look_up().await], [other("first"), other("first")]);
    asked.bench.clock.advance(1700);
    assert_eq!([asked.look_up().await, asked.look_up().await], [one("first"), other("first")], "it is stale");
    asked.store("second").await;
    assert_eq!(asked.look_up().await, other("second"));
}

#[tokio::test]
async fn one_caller_computes_a_fresh_answer_again_if_chance_says_so() {
    let asked = Asked::new(always()).await;
    asked.store("given").await;
    assert_eq!(asked.look_up().await, (Some("given".into()), false), "it is not known how long it took");
    asked.bench.clock.advance(3600);
    assert_eq!(asked.look_up().await, (None, true));
    asked.store("first").await;
    for answer in ["first", "second"] {
        let early = [asked.look_up().await, asked.look_up().await];
        assert_eq!(early, [(Some(answer.into()), true), (Some(answer.into()), false)]);
        asked.store("second").await;
    }
    let never = Asked::new(EarlyRefresh::drawing(1e15, || 1.0)).await;
    never.look_up().await;
    never.store("first").await;
    assert_eq!(never.look_up().await, (Some("first".into()), false));
}

#[tokio::test]
async fn a_caller_that_will_store_nothing_computes_nothing() {
    let mut asked = Asked::new(EarlyRefresh::new(0.0)).await;
    let idle = [
        Directives { only_if_cached: true, ..Directives::default() },
        Directives { no_store: true, ..Directives::default() },
    ];
    for directives in idle {
        asked.directives = directives;
        assert_eq!(asked.look_up().await, (None, false));
    }
    asked.directives = Directives::default();
    assert_eq!(asked.look_up().await, (None, true));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_store_its_answer_is_replaced() {
    let asked = Asked::new(EarlyRefresh::new(0.0)).await;
    assert!(asked.look_up().await.1 && !asked.look_up().await.1);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    assert!(asked.look_up().await.1 && !asked.look_up().await.1);
}
