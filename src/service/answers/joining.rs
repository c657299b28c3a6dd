//! Joins whoever makes an answer, or sees to it that it is made, and brings it into the form that is asked for.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::board::{Plan, Waiter};
use super::finding::record_for;
use super::making::Making;
use super::served::{Body, Outcome, Saved, Served};
use super::telling::{Phase, Streamed, died};
use super::{Answers, Ask, Asked, Form, Reason};
use crate::cache::Stamp;
use crate::domain::Subject;
use crate::error::{Error, Kind, Result};
use crate::service::Directives;
use crate::upstream::{self, Call, Headers, Usage};

/// Where the path of chat completions is at the upstream.
const CHAT_PATH: &str = "/chat/completions";
/// How often somebody whose leader died asks again.
pub(super) const LEADERS_MAX: usize = 3;

/// Why a flight brought nothing to somebody who waited for it.
pub(super) enum Again {
    /// Its maker is gone: somebody else is to make the answer.
    LeaderDied,
    /// The answer is in the cache.
    Landed,
    /// What it brought was for whoever asked in another way.
    ForAnother,
}

impl Answers {
    /// Makes a stale answer anew, unless somebody does already, too many are being made, or it has just failed.
    pub(super) fn refresh(self: &Arc<Self>, ask: &Ask, asked: &Asked) {
        let key = asked.identity.key;
        if ask.directives.no_store || self.pauses.holds(&key, self.cache.freshness().now()) {
            return;
        }
        let Ok(place) = Arc::clone(&self.refreshes).try_acquire_owned() else { return };
        let plan = self.plan(asked);
        let stamp = plan.stamp;
        let Some((waiter, flight)) = self.board.lead(plan, self.is_current(asked)) else { return };
        let Ok(making) = self.making(ask, asked, stamp, None) else { return };
        // Nobody listens; those who join may.
        waiter.listener.forgo_events();
        let answers = Arc::clone(self);
        tokio::spawn(async move {
            if !making.run(flight, Some(waiter)).await {
                answers.pauses.begin(key, answers.cache.freshness().now());
            }
            drop(place);
        });
    }

    /// Has the answer made, or waits for whoever makes it.
    pub(super) async fn made(
        self: &Arc<Self>,
        ask: &Ask,
        asked: &Asked,
        form: Form,
        started: Instant,
    ) -> Result<Served> {
        let mut again = Again::LeaderDied;
        for _ in 0..LEADERS_MAX {
            let (waiter, outcome) = self.take_part(ask, asked)?;
            again = match self.served(waiter, form, asked, outcome, started).await? {
                Ok(served) => return Ok(Self::named(asked, &ask.directives, served)),
                Err(again) => again,
            };
            if matches!(again, Again::Landed)
                && let Some(served) = self.landed(asked, form, &ask.directives, started).await
            {
                return Ok(served);
            }
        }
        match again {
            Again::LeaderDied => Err(died()),
            Again::Landed | Again::ForAnother => {
                // What he waited for was never for him: this one asks for himself.
                let waiter = self.lead_alone(ask, asked, not_stored(&ask.directives))?;
                let served = self.served(waiter, form, asked, Outcome::Miss, started).await??;
                Ok(Self::named(asked, &ask.directives, served))
            }
        }
    }

    /// A place among those who wait for the answer, and what this one is among them.
    fn take_part(self: &Arc<Self>, ask: &Ask, asked: &Asked) -> Result<(Waiter, Outcome)> {
        let directives = &ask.directives;
        let calls_tools = ask.chat.has_tools && !self.options.keeps_tool_calls;
        if directives.no_cache || directives.no_store || calls_tools {
            let outcome = if directives.no_cache { Outcome::Anew } else { Outcome::Miss };
            return Ok((self.lead_alone(ask, asked, not_stored(directives))?, outcome));
        }
        let plan = self.plan(asked);
        let stamp = plan.stamp;
        match self.board.join(plan, self.is_current(asked)) {
            Some((waiter, None)) => Ok((waiter, Outcome::Coalesced)),
            None => Ok((self.lead_alone(ask, asked, None)?, Outcome::Miss)),
            Some((waiter, Some(flight))) => {
                let making = self.making(ask, asked, stamp, None)?;
                let (form, directives) = (Form::of(&ask.chat), directives.clone());
                let may_have_landed = self.board.departures(&asked.identity.key) != asked.departures;
                tokio::spawn(async move {
                    if may_have_landed && making.answers.has_landed(&making.asked, form, &directives).await {
                        flight.end(Phase::Landed);
                    } else {
                        making.run(flight, None).await;
                    }
                });
                Ok((waiter, Outcome::Miss))
            }
        }
    }

    /// With the name under which the answer is kept, if it comes to its end.
    fn named(asked: &Asked, directives: &Directives, served: Served) -> Served {
        let may_keep = !directives.no_store && served.reason.is_none() && (200..300).contains(&served.status);
        Served { id: may_keep.then_some(asked.identity.key), ..served }
    }

    fn plan(&self, asked: &Asked) -> Plan {
        Plan {
            key: asked.identity.key,
            stamp: self.stamp(),
            terms: asked.terms.clone(),
            asker: asked.asker.clone(),
        }
    }

    /// Whether an answer whose making began then, and depends on these, is still what it was.
    fn is_current(&self, asked: &Asked) -> impl Fn(Stamp, &[Subject]) -> bool {
        let (versions, namespace) = (self.cache.freshness().versions(), asked.namespace.subject);
        move |stamp, tags| versions.admit(stamp, namespace, tags).is_some()
    }

    /// What was not there before, and is now.
    async fn landed(
        &self,
        asked: &Asked,
        form: Form,
        directives: &Directives,
        started: Instant,
    ) -> Option<Served> {
        let found = self.look(&asked.namespace, &asked.identity.key).await?;
        if self.is_new(&found, asked, directives) { self.hit(&found, asked, form, started) } else { None }
    }

    async fn has_landed(&self, asked: &Asked, form: Form, directives: &Directives) -> bool {
        let found = self.look(&asked.namespace, &asked.identity.key).await;
        found
            .is_some_and(|found| self.is_new(&found, asked, directives) && record_for(&found, form).is_some())
    }

    /// Has the answer made for this request alone. `not_stored` says why it is not to be stored, if it is not.
    pub(super) fn lead_alone(
        self: &Arc<Self>,
        ask: &Ask,
        asked: &Asked,
        not_stored: Option<Reason>,
    ) -> Result<Waiter> {
        let plan = self.plan(asked);
        let making = self.making(ask, asked, plan.stamp, not_stored)?;
        let (waiter, flight) = self.board.alone(plan);
        tokio::spawn(making.run(flight, None));
        Ok(waiter)
    }

    fn making(
        self: &Arc<Self>,
        ask: &Ask,
        asked: &Asked,
        stamp: Stamp,
        not_stored: Option<Reason>,
    ) -> Result<Making> {
        let chat = &ask.chat;
        let mut body = ask.body.clone();
        if chat.has_directives {
            body = upstream::without(&body, "cache")?;
        }
        if chat.streams && self.asks_for_usage && !chat.wants_usage {
            body = upstream::with_usage(&body)?;
        }
        let own = ask.headers.iter().map(|(name, value)| (name.clone(), Bytes::from(value.clone())));
        let json = |name: &str| (name.to_owned(), Bytes::from_static(b"application/json"));
        let call = Call {
            method: "POST".into(),
            path: match &ask.query {
                Some(query) => format!("{CHAT_PATH}?{query}"),
                None => CHAT_PATH.to_owned(),
            },
            model: Some(chat.model.to_string()),
            headers: own.chain(ask.traces.iter().cloned()).chain([json("content-type")]).collect(),
            credential: ask.credential.clone(),
            body,
            needs_clients_key: false,
            may_repeat: true,
            may_wait: asked.asker.may_wait,
        };
        // A question that is never stored need not be held until its answer is whole.
        let question_bytes = asked.question.as_ref().map_or(0, |question| question.len());
        let is_too_long = question_bytes > asked.namespace.policy.value_bytes_max;
        Ok(Making {
            answers: Arc::clone(self),
            asked: if is_too_long { Asked { question: None, ..asked.clone() } } else { asked.clone() },
            stamp,
            call: Some(call),
            streams: chat.streams,
            not_stored: not_stored.or(is_too_long.then_some(Reason::TooLarge)),
        })
    }

    /// What the flight brings, in the form that is asked for.
    ///
    /// # Errors
    /// What failed for all who wait.
    pub(super) async fn served(
        self: &Arc<Self>,
        waiter: Waiter,
        form: Form,
        asked: &Asked,
        outcome: Outcome,
        started: Instant,
    ) -> Result<Result<Served, Again>> {
        let Waiter { leader, mut listener } = waiter;
        let mut phase = listener.begun().await;
        if matches!(phase, Phase::Streaming(_)) && !form.streams {
            // Whoever wants it whole waits for all of it.
            listener.forgo_events();
            phase = listener.ended().await;
        }
        let fails_like = |status| asked.asker.fails_like(&leader, status);
        // What an upstream says beside its answer is for whoever it knows.
        let is_known = asked.asker.credential == leader.credential;
        let headers = |headers: &Headers| if is_known { headers.clone() } else { Headers::new() };
        // Whoever joined was saved what the answer used.
        let joined = outcome == Outcome::Coalesced;
        let saved =
            |usage: Option<Usage>| usage.filter(|_| joined).map(|usage| self.saved(&asked.model, usage));
        let served = match phase {
            Phase::Streaming(told) => {
                let live = listener.into_live(form.wants_usage, self.meter(asked, joined));
                Served::new(200, headers(&told), Body::Live(live), outcome)
            }
            // A stream that was over before this one looked is still there from its first event on.
            Phase::Streamed(told, streamed, reason) if form.streams => {
                let price = |usage| self.price(&asked.model, usage);
                let saved: Option<Saved> = streamed.usage().filter(|_| joined).map(price);
                let live = listener.into_live(form.wants_usage, self.meter(asked, joined));
                Served { saved, reason, ..Served::new(200, headers(&told), Body::Live(live), outcome) }
            }
            Phase::Streamed(told, Streamed::Answer(answer), reason) => {
                let Some(body) = self.replayed(&answer.json, form) else { return Ok(Err(Again::ForAnother)) };
                let saved = saved(answer.usage);
                Served { saved, reason, ..Served::new(200, headers(&told), body, outcome) }
            }
            Phase::Whole(whole) => {
                let answer = whole.answer.as_ref();
                // One that cannot be told in events is told as it came.
                let events =
                    answer.filter(|_| form.streams).and_then(|answer| self.replayed(&answer.json, form));
                let body = events.unwrap_or_else(|| Body::Whole(whole.body.clone()));
                let saved = saved(answer.and_then(|answer| answer.usage));
                let reason = whole.not_kept;
                Served { saved, reason, ..Served::new(whole.status, headers(&whole.headers), body, outcome) }
            }
            Phase::Passed(whole) if fails_like(Some(whole.status)) => {
                let reason = whole.not_kept;
                let body = Body::Whole(whole.body.clone());
                Served { reason, ..Served::new(whole.status, headers(&whole.headers), body, outcome) }
            }
            Phase::Failed(error) if fails_like(None) => return Err(error),
            Phase::Streamed(_, Streamed::Faulty(error), _) => return Err(error),
            Phase::Passed(_) | Phase::Failed(_) | Phase::Streamed(_, Streamed::Uncertain(_), _) => {
                return Ok(Err(Again::ForAnother));
            }
            Phase::Landed => return Ok(Err(Again::Landed)),
            Phase::Waiting | Phase::Died => return Ok(Err(Again::LeaderDied)),
        };
        Ok(Ok(Served { upstream: Some(started.elapsed()), ..served }))
    }

    /// Counts what somebody is saved who has joined a stream, once he has heard all of it.
    fn meter(self: &Arc<Self>, asked: &Asked, joined: bool) -> Option<Box<dyn FnOnce(Usage) + Send + Sync>> {
        let (answers, model) = (Arc::clone(self), Arc::clone(&asked.model));
        joined.then(|| Box::new(move |usage| _ = answers.saved(&model, usage)) as Box<_>)
    }
}

/// Why the answer to such a request is not to be stored.
fn not_stored(directives: &Directives) -> Option<Reason> {
    directives.no_store.then_some(Reason::NoStore)
}

impl From<Again> for Error {
    fn from(again: Again) -> Error {
        match again {
            Again::LeaderDied | Again::Landed => died(),
            Again::ForAnother => {
                Error::new(Kind::Upstream, "the upstream answered with a stream that has no whole")
            }
        }
    }
}
