//! Answers without the proxy: an application that calls its model itself stores and looks up answers here.

use std::sync::Arc;

use super::generate::StoreRequest;
use super::inflight::Caller;
use super::response::MatchKind;
use super::stored_answer::StoredAnswer;
use super::{Answers, ResolvedRequest, StorePolicy};
use crate::cache::{Stamp, TierName, Verdict};
use crate::domain::{Credential, Key, Subject, Tag, Tenant};
use crate::error::{Error, Kind, Result};
use crate::request_identity::{Json, Partition, of_text};
use crate::service::{Directives, check_tags};

/// The upstream in the identity of answers that came from no upstream.
const NO_UPSTREAM: &str = "given";
/// Bytes of the longest question.
const PROMPT_BYTES_MAX: usize = 1 << 20;

/// A question in words.
#[derive(Debug)]
pub struct Question<'a> {
    /// Whose it is.
    pub tenant: &'a Tenant,
    /// The credential that it came with, where answers are not shared between credentials.
    pub credential: Option<&'a Credential>,
    /// The question.
    pub prompt: &'a str,
    /// Everything that must be equal for two questions to share an answer.
    pub scope: &'a Json<'a>,
    /// What the request says about the cache.
    pub directives: &'a Directives,
    /// What the answer depends on.
    pub tags: &'a [Tag],
}

/// A stored answer.
#[derive(Debug)]
pub struct LookupHit {
    /// Its id, for deleting it.
    pub id: Key,
    /// The answer, as it was stored.
    pub answer: String,
    /// How the stored question matches.
    pub match_kind: MatchKind,
    /// The tier that held it.
    pub tier: TierName,
    /// Whether it is due to be replaced.
    pub is_stale: bool,
    /// Seconds since it was stored.
    pub age_seconds: u32,
    /// Seconds until it expires; negative once it has.
    pub fresh_seconds: i64,
}

impl Answers {
    /// The present point in the order of invalidations: an answer is stored only if none of its tags was invalidated since.
    pub fn stamp(&self) -> Stamp {
        self.cache.freshness().versions().stamp()
    }

    /// Looks up the answer to a question.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long question; `NotFound` for an unknown namespace.
    pub async fn lookup(&self, question: &Question<'_>) -> Result<Option<LookupHit>> {
        let resolved = self.resolve_question(question)?;
        let found = self.look(&resolved.namespace, &resolved.identity.key).await;
        let found = found.filter(|found| self.accepts(found, &resolved, question.directives));
        let known = found.and_then(|found| {
            let record = StoredAnswer::decode(&found.entry.value).filter(|record| record.is_text)?;
            let (meta, now) = (&found.entry.meta, self.cache.freshness().now());
            Some(LookupHit {
                id: resolved.identity.key,
                answer: String::from_utf8_lossy(record.answer).into_owned(),
                match_kind: MatchKind::of(meta, &resolved.identity),
                tier: found.tier,
                is_stale: found.verdict != Verdict::Fresh,
                age_seconds: now.since(meta.created),
                fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
            })
        });
        match &known {
            Some(known) if known.is_stale => self.metrics.stale.inc(),
            Some(_) => self.metrics.hits.inc(),
            None => self.metrics.misses.inc(),
        };
        Ok(known)
    }

    /// Stores an answer of the application and returns its id.
    ///
    /// # Errors
    /// As [`Answers::lookup`]; `InvalidInput` for a TTL past its limit and too many tags; `TooLarge`; `Conflict` if a tag was
    /// invalidated since `stamp`; `Io`, `DiskFull`, `Unavailable` if the disk did not take it.
    pub async fn store(&self, question: &Question<'_>, answer: &str, stamp: Stamp) -> Result<Key> {
        let resolved = self.resolve_question(question)?;
        let record = StoredAnswer {
            dialect: 0,
            usage: None,
            was_usage_requested: false,
            is_text: true,
            is_ttl_requested: question.directives.ttl_seconds.is_some(),
            scope: resolved.identity.scope,
            question: question.prompt,
            answer: answer.as_bytes(),
        };
        super::check_size(record.bytes(), &resolved.namespace.policy)?;
        let held = self.key_locks.lock(&[resolved.identity.key]).await;
        let store_request =
            StoreRequest { record, store_policy: resolved.store_policy.clone(), stamp, cost_us: 0 };
        let kept = self.begin_store(&resolved, store_request, held).await;
        let message = "a tag of the answer was invalidated since it was requested";
        self.finish_store(&resolved, &kept.ok_or_else(|| Error::new(Kind::Conflict, message))?).await?;
        Ok(resolved.identity.key)
    }

    /// Removes an answer, also one that is in flight.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable` if the disk did not take it: then it is hidden until the next start only.
    pub async fn delete(self: &Arc<Self>, id: Key) -> Result<()> {
        let _held = self.key_locks.lock(&[id]).await;
        self.inflight.forbid_store(&id);
        self.cache.remove_many(&[id]).await
    }

    fn resolve_question(&self, question: &Question<'_>) -> Result<ResolvedRequest> {
        if !(1..=PROMPT_BYTES_MAX).contains(&question.prompt.len()) {
            return Err(Error::invalid("prompt", format!("a prompt has 1 to {PROMPT_BYTES_MAX} bytes")));
        }
        if !question.scope.is_exact() {
            return Err(Error::invalid("scope", "a number in the scope cannot be represented exactly"));
        }
        check_tags(question.tags)?;
        let directives = question.directives;
        let namespace = self.namespaces.of_answers(question.tenant, directives.namespace.as_deref())?;
        let partition = Partition {
            tenant: question.tenant,
            namespace: &namespace.name,
            credential: question
                .credential
                .filter(|_| !self.options.share_across_keys)
                .map(Credential::as_bytes),
            upstream: NO_UPSTREAM,
            query: None,
            headers: &[],
        };
        let identity = of_text(&partition, question.scope, question.prompt, self.normalization());
        let tags = question.tags.iter().map(|tag| Subject::tag(question.tenant, tag)).collect();
        let ttl_seconds = crate::service::ttl_seconds(&namespace.policy, directives.ttl_seconds)?;
        Ok(ResolvedRequest {
            identity,
            namespace,
            model: "".into(),
            question: None,
            caller: Caller::default(),
            completed: 0,
            store_policy: StorePolicy { tags, ttl_seconds, ..StorePolicy::default() },
        })
    }
}
