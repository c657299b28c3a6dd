//! The answers without the proxy: an application that asks its model itself gives and finds them here.

use std::sync::Arc;

use super::board::Asker;
use super::making::Draft;
use super::record::Record;
use super::{Answers, Asked, Terms};
use crate::cache::{Stamp, TierName, Verdict};
use crate::domain::{Credential, Key, Subject, Tag, Tenant};
use crate::error::{Error, Kind, Result};
use crate::matching::{Json, Partition, of_text};
use crate::service::{Directives, check_tags};

/// Who is asked where nobody is.
const NOBODY: &str = "given";
/// The longest question.
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

/// An answer that was found.
#[derive(Debug)]
pub struct Known {
    /// Its name, for deleting it.
    pub id: Key,
    /// The answer, as it was given.
    pub answer: String,
    /// Whether it was found only because two spellings of the question are one.
    pub is_joined: bool,
    /// Where it was.
    pub tier: TierName,
    /// Whether it is due to be given anew.
    pub is_stale: bool,
    /// Seconds since it was given.
    pub age_seconds: u32,
    /// Seconds until it ends; negative once it has.
    pub fresh_seconds: i64,
}

impl Answers {
    /// The present point in the order of invalidations: an answer is kept only if nothing that it depends on was
    /// invalidated since.
    pub fn stamp(&self) -> Stamp {
        self.cache.freshness().versions().stamp()
    }

    /// Finds the answer to a question.
    ///
    /// # Errors
    /// `InvalidInput` for a question of no or too many bytes; `NotFound` for an unknown namespace.
    pub async fn lookup(&self, question: &Question<'_>) -> Result<Option<Known>> {
        let asked = self.asked_of(question)?;
        let found = self.look(&asked.namespace, &asked.identity.key).await;
        let found = found.filter(|found| self.accepts(found, &asked, question.directives));
        let known = found.and_then(|found| {
            let record = Record::decode(&found.entry.value).filter(|record| record.is_text)?;
            let (meta, now) = (&found.entry.meta, self.cache.freshness().now());
            Some(Known {
                id: asked.identity.key,
                answer: String::from_utf8_lossy(record.answer).into_owned(),
                is_joined: meta.validator != asked.identity.exact.half(),
                tier: found.tier,
                is_stale: found.verdict != Verdict::Fresh,
                age_seconds: now.since(meta.created),
                fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
            })
        });
        match &known {
            Some(known) if known.is_stale => self.outcomes.stale.inc(),
            Some(_) => self.outcomes.hits.inc(),
            None => self.outcomes.misses.inc(),
        };
        Ok(known)
    }

    /// Keeps an answer that was made elsewhere, and returns its name.
    ///
    /// # Errors
    /// As [`Answers::lookup`]; `InvalidInput` for a lifetime past its limit and too many tags; `TooLarge`; `Conflict` if
    /// something that it depends on was invalidated since `stamp`; `Io`, `DiskFull`, `Unavailable` if the disk did not
    /// take it.
    pub async fn give(&self, question: &Question<'_>, answer: &str, stamp: Stamp) -> Result<Key> {
        let asked = self.asked_of(question)?;
        let record = Record {
            usage: None,
            was_asked_for_usage: false,
            is_text: true,
            is_ttl_asked: question.directives.ttl_seconds.is_some(),
            scope: asked.identity.scope,
            question: question.prompt,
            answer: answer.as_bytes(),
        };
        super::check_size(record.bytes(), &asked.namespace.policy)?;
        let held = self.stripes.lock(&[asked.identity.key]).await;
        let draft = Draft { record, terms: asked.terms.clone(), stamp, cost_us: 0 };
        let kept = self.keep(&asked, draft, held).await;
        let message = "something that the answer depends on was invalidated meanwhile";
        self.write(&asked, &kept.ok_or_else(|| Error::new(Kind::Conflict, message))?).await?;
        Ok(asked.identity.key)
    }

    /// Removes an answer, also one that is being made.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable` if the disk did not take it: then it is hidden until the next start only.
    pub async fn delete(self: &Arc<Self>, id: Key) -> Result<()> {
        let _held = self.stripes.lock(&[id]).await;
        self.board.forbid(&id);
        self.cache.remove_many(&[id]).await
    }

    fn asked_of(&self, question: &Question<'_>) -> Result<Asked> {
        if !(1..=PROMPT_BYTES_MAX).contains(&question.prompt.len()) {
            return Err(Error::invalid("prompt", format!("a prompt has 1 to {PROMPT_BYTES_MAX} bytes")));
        }
        if !question.scope.is_exact() {
            return Err(Error::invalid("scope", "a number in the scope is too large to be told from others"));
        }
        check_tags(question.tags)?;
        let directives = question.directives;
        let namespace = self.namespaces.of_answers(question.tenant, directives.namespace.as_deref())?;
        let partition = Partition {
            tenant: question.tenant,
            namespace: &namespace.name,
            credential: question
                .credential
                .filter(|_| !self.options.shares_between_keys)
                .map(Credential::as_bytes),
            upstream: NOBODY,
            query: None,
            headers: &[],
        };
        let identity = of_text(&partition, question.scope, question.prompt, self.spellings());
        let tags = question.tags.iter().map(|tag| Subject::tag(question.tenant, tag)).collect();
        let ttl_seconds = crate::service::ttl_seconds(&namespace.policy, directives.ttl_seconds, "ttl")?;
        Ok(Asked {
            identity,
            namespace,
            model: "".into(),
            question: None,
            asker: Asker::default(),
            departures: 0,
            terms: Terms { tags, ttl_seconds, ..Terms::default() },
        })
    }
}
