//! Answers without the proxy: an application that calls its model itself stores and looks up answers here.

use std::sync::Arc;

use super::Answers;
use super::inflight::{Caller, StorePolicy};
use super::lookup::Match;
use super::request::ResolvedRequest;
use super::response::MatchKind;
use super::semantic::{
    Explanation, REQUEST, SemanticLookup, SemanticOutcome, SemanticQuestion, SemanticReport, SemanticRequest,
};
use super::store::{StoreRequest, begin_store};
use super::stored_answer::StoredAnswer;
use super::stored_kinds::StoredKinds;
use crate::cache::{Policy, Propagation, Stamp};
use crate::domain::{Credential, InvalidationId, Key, LookupOutcome, NamespaceId, Principal, Tag, TierName};
use crate::error::{Error, Kind, Result};
use crate::request_identity::{Json, Partition, mentions_text_operations_within, of_cache_key, of_text};
use crate::service::{Directives, check_tags};

/// The upstream in the identity of answers that came from no upstream.
const NO_UPSTREAM: &str = "given";
/// The key domain of texts under a key of their client's own.
const TEXT: &str = "likewise/text";
/// Bytes of the longest question.
const PROMPT_BYTES_MAX: usize = 1 << 20;

/// A question in words.
#[derive(Debug)]
pub struct Question<'a> {
    /// The sender.
    pub principal: &'a Arc<Principal>,
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

/// The result of a lookup.
#[derive(Debug)]
pub struct LookupResult {
    /// The answer, if one is stored.
    pub hit: Option<LookupHit>,
    /// What became of the search for a question in other words, if there was one.
    pub semantic: Option<SemanticReport>,
    /// Whether the caller is to compute the answer: it is missing or stale, or chance says so near the end of its freshness; and no other
    /// caller is doing so.
    pub computes: bool,
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
    /// The cosine similarity of the questions; 1 for one in the same words.
    pub similarity: Option<f32>,
    /// The tier that held it.
    pub tier: TierName,
    /// Whether it is due to be replaced.
    pub is_stale: bool,
    /// Seconds since it was stored.
    pub age_seconds: u32,
    /// Seconds until it expires; negative once it has.
    pub fresh_seconds: i64,
}

/// Looks up the answer to a question.
///
/// # Errors
/// `InvalidInput` for an empty or too long question; `NotFound` for an unknown namespace.
pub(super) async fn lookup(answers: &Answers, question: &Question<'_>) -> Result<LookupResult> {
    let resolved = resolve_question(answers, question)?;
    let found = answers.lookup.find(&resolved).await;
    let mut found = found.filter(|found| answers.lookup.accepts(found, &resolved, question.directives));
    let mut report = None;
    if found.is_none() {
        match semantic_of(answers, &resolved, question) {
            Some(semantic) => {
                (found, report) = find_semantic_match(answers, semantic, &resolved, question).await;
            }
            None if answers.semantic.is_none() => {
                report = SemanticReport::without_model(question.directives);
            }
            None => {}
        }
    }
    let refresh = found.as_ref().map_or(Refresh::Needless, |found| refresh_of(answers, found));
    let known = found.and_then(|found| {
        let record = StoredAnswer::decode(&found.found.entry.value).filter(|record| record.is_text)?;
        let hit = answers.lookup.hit_info(&found);
        Some(LookupHit {
            id: found.key,
            answer: String::from_utf8_lossy(record.answer).into_owned(),
            match_kind: hit.match_kind,
            similarity: report.map_or(Some(1.0), |report| report.similarity),
            tier: hit.tier,
            is_stale: hit.is_stale,
            age_seconds: hit.age_seconds,
            fresh_seconds: hit.fresh_seconds,
        })
    });
    let outcome = match &known {
        Some(known) if known.is_stale => LookupOutcome::Stale,
        Some(_) => LookupOutcome::Hit,
        None => LookupOutcome::Miss,
    };
    answers.metrics.count(outcome);
    answers.namespaces.lookups_in(&resolved.namespace).add(outcome, 1);
    let key = resolved.identity.key;
    let may_store = !question.directives.only_if_cached && !question.directives.no_store;
    let computes = match (&known, refresh) {
        _ if !may_store => false,
        (None, _) | (Some(_), Refresh::Due) => answers.recomputation.begin(key, true),
        (Some(_), Refresh::Early) => answers.recomputation.begin(key, false),
        (Some(_), Refresh::Needless) => false,
    };
    Ok(LookupResult { hit: known, semantic: report, computes })
}

/// Whether a found answer is to be computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    /// It is not, or it is that of another question.
    Needless,
    /// It is fresh, and chance says so.
    Early,
    /// It is stale.
    Due,
}

fn refresh_of(answers: &Answers, found: &Match) -> Refresh {
    if found.kind == MatchKind::Semantic {
        Refresh::Needless
    } else if found.is_due() {
        Refresh::Due
    } else if answers.is_due_early(found) {
        Refresh::Early
    } else {
        Refresh::Needless
    }
}

/// The search for questions in other words, if the question is to be searched for.
fn semantic_of<'a>(
    answers: &'a Answers,
    resolved: &ResolvedRequest,
    question: &Question<'_>,
) -> Option<&'a SemanticLookup> {
    let is_wanted =
        |semantic: &&SemanticLookup| semantic.is_wanted(question.directives, &resolved.namespace.name);
    answers.semantic.as_ref().filter(is_wanted)
}

/// Looks up the answer to a question in other words.
async fn find_semantic_match(
    answers: &Answers,
    semantic: &SemanticLookup,
    resolved: &ResolvedRequest,
    question: &Question<'_>,
) -> (Option<Match>, Option<SemanticReport>) {
    let (found, report) = match embedded(semantic, resolved, question).await {
        Ok(embedded) => {
            let is_text = |found: &Match| {
                StoredAnswer::decode(&found.found.entry.value).is_some_and(|record| record.is_text)
            };
            semantic.find(&answers.lookup, resolved, question.directives, &embedded, is_text).await
        }
        Err(report) => (None, report),
    };
    answers.metrics.semantic.with(report.outcome).inc();
    (found, Some(report))
}

/// The question with its vector, or why it is not searched for.
async fn embedded(
    semantic: &SemanticLookup,
    resolved: &ResolvedRequest,
    question: &Question<'_>,
) -> Result<SemanticQuestion, SemanticReport> {
    let mut rewordable = rewordable(semantic, resolved, question)?;
    semantic.embed_question(&mut rewordable, question.directives.no_store).await?;
    Ok(rewordable)
}

/// The question, if it may be answered in other words; or why it may not.
fn rewordable(
    semantic: &SemanticLookup,
    resolved: &ResolvedRequest,
    question: &Question<'_>,
) -> Result<SemanticQuestion, SemanticReport> {
    let asked = SemanticRequest {
        principal: question.principal,
        credential: question.credential,
        scope: &resolved.identity.scope,
        text: question.prompt,
    };
    let rewordable = semantic.question(&asked)?;
    if question.directives.cache_key.is_some() || mentions_text_operations_within(question.scope) {
        return Err(SemanticReport::because(SemanticOutcome::ExactOnly, REQUEST));
    }
    Ok(rewordable)
}

/// Explains the search for a question in other words, whether or not the request asks for such a search.
///
/// # Errors
/// As [`lookup`]; `Unavailable` if nothing is ever searched for in other words.
pub(super) async fn explain(answers: &Answers, question: &Question<'_>) -> Result<Explanation> {
    let resolved = resolve_question(answers, question)?;
    let Some(semantic) = &answers.semantic else {
        return Err(Error::new(Kind::Unavailable, "no questions are answered in other words here"));
    };
    let unstored = Directives { no_store: true, ..question.directives.clone() };
    let question = &Question { directives: &unstored, ..*question };
    Ok(match embedded(semantic, &resolved, question).await {
        Ok(embedded) => semantic.explain(&answers.lookup, &resolved, question.directives, &embedded).await,
        Err(report) => semantic.unsearched(report.because, question.prompt),
    })
}

/// Stores an answer of the application and returns its id.
///
/// # Errors
/// As [`lookup`]; `InvalidInput` for a TTL past its limit and too many tags; `TooLarge`; `Conflict` if a tag was
/// invalidated since `stamp`; `Io`, `DiskFull`, `Unavailable` if the disk did not take it.
pub(super) async fn store(
    answers: &Arc<Answers>,
    question: &Question<'_>,
    answer: &str,
    stamp: Stamp,
) -> Result<Key> {
    let mut resolved = resolve_question(answers, question)?;
    if let Some(semantic) = semantic_of(answers, &resolved, question)
        && let Ok(mut rewordable) = rewordable(semantic, &resolved, question)
    {
        // Without a vector now, the question gets one behind the response.
        let _ = semantic.embed_question(&mut rewordable, false).await;
        resolved.semantic = Some(rewordable);
    }
    let record = StoredAnswer {
        dialect: 0,
        usage: None,
        was_usage_requested: false,
        is_text: true,
        is_ttl_requested: question.directives.sets_ttl(),
        is_semantic: resolved.semantic.is_some(),
        calls_tools: false,
        is_truncated: false,
        ends_with_done: false,
        scope: resolved.scope(),
        question: question.prompt,
        answer: answer.as_bytes(),
    };
    check_size(record.bytes(), &resolved.namespace.policy)?;
    let held = answers.lookup.lock(&resolved.identity.key).await;
    let cost_us = answers.recomputation.cost_us(&resolved.identity.key);
    let store_request = StoreRequest {
        record,
        store_policy: resolved.store_policy.clone(),
        stamp,
        lease: None,
        cost_us,
        upstream_id: None,
    };
    let kept = begin_store(&answers.lookup, &resolved, store_request, held).await;
    let message = "a tag of the answer was invalidated since it was requested";
    let pending = kept.ok_or_else(|| Error::new(Kind::Conflict, message))?;
    pending.finish().await?;
    answers.recomputation.end(&resolved.identity.key);
    answers.add_question(&resolved);
    Ok(resolved.identity.key)
}

/// Removes an answer of the sender's tenant, also one that is in flight. Ids are hashes without a secret, so that the id of
/// another tenant's answer may be known: it names nothing here.
///
/// # Errors
/// `Io`, `DiskFull`, `Unavailable` if the disk did not take it: then it is hidden until the next start only. `Unavailable` if this node
/// does not have it, and other nodes cannot be asked whose it is.
pub(super) async fn delete(answers: &Answers, principal: &Principal, id: Key) -> Result<Propagation> {
    let _held = answers.lookup.lock(&id).await;
    let tenant = NamespaceId::tenant_id_bits(&principal.tenant);
    answers.inflight.forbid_store(&id, tenant);
    if answers.lookup.cache().tenant_of(&id).await? != Some(tenant) {
        return Ok(Propagation::Complete);
    }
    answers.lookup.cache().remove_many(&[id]).await
}

fn resolve_question(answers: &Answers, question: &Question<'_>) -> Result<ResolvedRequest> {
    if !(1..=PROMPT_BYTES_MAX).contains(&question.prompt.len()) {
        return Err(Error::invalid("prompt", format!("prompt must have 1 to {PROMPT_BYTES_MAX} bytes")));
    }
    if !question.scope.is_exact() {
        return Err(Error::invalid("scope", "the numbers of scope must be representable exactly"));
    }
    check_tags(question.tags)?;
    let directives = question.directives;
    let namespace =
        answers.namespaces.of_answers(&question.principal.tenant, directives.namespace.as_deref())?;
    let partition = Partition {
        tenant: &question.principal.tenant,
        namespace: &namespace.name,
        credential: question
            .credential
            .filter(|_| !answers.options.share_across_keys)
            .map(Credential::as_bytes),
        upstream: NO_UPSTREAM,
        query: None,
        headers: &[],
    };
    let identity = match &directives.cache_key {
        Some(cache_key) => of_cache_key(&partition, TEXT, "", cache_key),
        None => of_text(&partition, question.scope, question.prompt, answers.normalization()),
    };
    let tags = question.tags.iter().map(|tag| InvalidationId::tag(&question.principal.tenant, tag)).collect();
    let ttl_seconds = directives.ttl_seconds(&namespace.policy)?;
    Ok(ResolvedRequest {
        tenant: question.principal.tenant.clone(),
        identity,
        model: "".into(),
        question: None,
        semantic: None,
        caller: Caller::default(),
        shares_across_keys: true,
        completed: 0,
        kinds: StoredKinds::of(directives, None, &namespace.policy, &answers.options),
        store_policy: StorePolicy { tags, ttl_seconds, ..StorePolicy::default() },
        namespace,
    })
}

fn check_size(bytes: usize, policy: &Policy) -> Result<()> {
    if bytes <= policy.value_bytes_max {
        return Ok(());
    }
    let max = policy.value_bytes_max;
    Err(Error::new(Kind::TooLarge, format!("answer must have at most {max} bytes, got {bytes}")))
}
