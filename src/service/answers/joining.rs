//! Joins whoever makes an answer, or sees to it that it is made, and brings it into the form that is asked for.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::flight::{Flight, Phase, Reply, Streamed, Waiter, died};
use super::making::Making;
use super::served::{Body, Outcome, Served};
use super::{Answers, Ask, Asked, Form, NO_ANSWER};
use crate::cache::{Stamp, Verdict};
use crate::domain::{Key, Subject};
use crate::error::{Error, Kind, Result};
use crate::service::Directives;
use crate::upstream::{self, Call, Headers};

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
    /// What it brought can only be read as a stream.
    AsStream,
    /// It failed, and that is the answer to all.
    Never(Error),
}

impl Answers {
    /// Makes a stale answer anew, unless somebody does already or too many are being made.
    pub(super) fn refresh(self: &Arc<Self>, ask: &Ask, asked: &Asked) {
        if ask.directives.no_store {
            return;
        }
        let Ok(place) = Arc::clone(&self.refreshes).try_acquire_owned() else { return };
        let stamp = self.stamp();
        let (key, terms) = (asked.identity.key, asked.terms.clone());
        let Some((waiter, flight)) = self.board.lead(key, stamp, terms, self.is_current(asked)) else {
            return;
        };
        let Ok(making) = self.making(ask, asked, stamp, true) else { return };
        tokio::spawn(async move {
            making.run(flight, Some(waiter)).await;
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
        let directives = &ask.directives;
        let is_alone = directives.no_cache
            || directives.no_store
            || (ask.chat.has_tools && !self.options.keeps_tool_calls);
        for _ in 0..LEADERS_MAX {
            let stamp = self.stamp();
            let joined = if is_alone { None } else { self.join(asked, stamp) };
            let (waiter, outcome) = match joined {
                None => {
                    let waiter = self.lead_alone(ask, asked, !directives.no_store)?;
                    (waiter, Outcome::Miss(directives.no_cache))
                }
                Some((waiter, Some(flight))) => {
                    // Another flight may have landed since the cache was asked.
                    if let Some(served) = self.landed(ask, asked, form, started).await {
                        flight.end(Phase::Landed);
                        return Ok(served);
                    }
                    let making = self.making(ask, asked, stamp, true)?;
                    tokio::spawn(making.run(flight, None));
                    (waiter, Outcome::Miss(false))
                }
                Some((waiter, None)) => (waiter, Outcome::Coalesced),
            };
            let counter =
                if outcome == Outcome::Coalesced { &self.outcomes.coalesced } else { &self.outcomes.misses };
            let served = self.served(waiter, form, asked, outcome, started).await;
            match served {
                Err(Again::LeaderDied) => {}
                Err(Again::Landed) => {
                    if let Some(served) = self.landed(ask, asked, form, started).await {
                        return Ok(served);
                    }
                }
                Err(Again::AsStream) => {
                    // The stream of another cannot be told as a whole: this one asks for itself.
                    self.outcomes.misses.inc();
                    let waiter = self.lead_alone(ask, asked, !directives.no_store)?;
                    return Ok(self.served(waiter, form, asked, Outcome::Miss(false), started).await?);
                }
                Err(Again::Never(error)) => {
                    counter.inc();
                    return Err(error);
                }
                Ok(served) => {
                    counter.inc();
                    let id = Self::may_name(asked, directives, &served);
                    return Ok(Served { id, ..served });
                }
            }
        }
        Err(died())
    }

    /// The name under which an answer is kept, if it comes to its end.
    fn may_name(asked: &Asked, directives: &Directives, served: &Served) -> Option<Key> {
        let may_keep = !directives.no_store && served.reason.is_none() && (200..300).contains(&served.status);
        may_keep.then_some(asked.identity.key)
    }

    /// Joins whoever makes the answer, unless something that it depends on was invalidated since that began.
    fn join(&self, asked: &Asked, stamp: Stamp) -> Option<(Waiter, Option<Flight>)> {
        self.board.join(asked.identity.key, stamp, asked.terms.clone(), self.is_current(asked))
    }

    /// Whether an answer whose making began then, and depends on these, is still what it was.
    fn is_current(&self, asked: &Asked) -> impl Fn(Stamp, &[Subject]) -> bool {
        let (versions, namespace) = (self.cache.freshness().versions(), asked.namespace.subject);
        move |stamp, tags| versions.admit(stamp, namespace, tags).is_some()
    }

    /// What was not there before, and is now.
    async fn landed(&self, ask: &Ask, asked: &Asked, form: Form, started: Instant) -> Option<Served> {
        let found = self.look(&asked.namespace, &asked.identity.key).await?;
        let is_new = found.verdict == Verdict::Fresh && self.accepts(&found, asked, &ask.directives);
        if is_new { self.hit(&found, asked, form, started) } else { None }
    }

    pub(super) fn lead_alone(self: &Arc<Self>, ask: &Ask, asked: &Asked, keeps: bool) -> Result<Waiter> {
        let making = self.making(ask, asked, self.stamp(), keeps)?;
        let (waiter, flight) = self.board.alone(asked.identity.key, asked.terms.clone());
        tokio::spawn(making.run(flight, None));
        Ok(waiter)
    }

    fn making(self: &Arc<Self>, ask: &Ask, asked: &Asked, stamp: Stamp, keeps: bool) -> Result<Making> {
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
            may_repeat: true,
            may_wait: asked.may_wait,
        };
        Ok(Making {
            answers: Arc::clone(self),
            asked: asked.clone(),
            stamp,
            call,
            streams: chat.streams,
            keeps,
        })
    }

    /// What the flight brings, in the form that is asked for.
    pub(super) async fn served(
        &self,
        mut waiter: Waiter,
        form: Form,
        asked: &Asked,
        outcome: Outcome,
        started: Instant,
    ) -> Result<Served, Again> {
        let is_follower = outcome == Outcome::Coalesced;
        let mut phase = waiter.begun().await;
        if matches!(phase, Phase::Streaming(_)) && !form.streams {
            // Whoever joined with other eyes waits for the whole.
            phase = waiter.ended().await;
        }
        let served = match phase {
            Phase::Streaming(headers) => {
                let live = Body::Live(waiter.into_live(form.wants_usage));
                Served::new(200, Headers::clone(&headers), live, outcome)
            }
            Phase::Streamed(streamed) if form.streams => {
                // A stream that was over before this one looked is still there from its first event on.
                drop(streamed);
                Served::new(200, Headers::new(), Body::Live(waiter.into_live(form.wants_usage)), outcome)
            }
            Phase::Streamed(Streamed::Answer(answer)) => {
                let body = self.replayed(&answer.json, form).ok_or(Again::AsStream)?;
                let saved = answer.usage.filter(|_| is_follower).map(|usage| self.price(&asked.model, usage));
                Served { saved, ..Served::new(200, Headers::new(), body, outcome) }
            }
            Phase::Streamed(Streamed::Uncertain) => return Err(Again::AsStream),
            Phase::Streamed(Streamed::Faulty(error)) | Phase::Failed(error) => {
                return Err(Again::Never(error));
            }
            Phase::Whole(reply) => self.whole(&reply, form, asked, outcome).ok_or(Again::AsStream)?,
            Phase::Passed(reply) => {
                let body = Body::Whole(reply.body.clone(), false);
                let reason = (200..300).contains(&reply.status).then_some(NO_ANSWER);
                Served { reason, ..Served::new(reply.status, reply.headers.clone(), body, outcome) }
            }
            Phase::Landed => return Err(Again::Landed),
            Phase::Waiting | Phase::Died => return Err(Again::LeaderDied),
        };
        Ok(Served { upstream: Some(started.elapsed()), ..served })
    }

    /// An answer that came at once: to those who wanted it so as it came, to the others as events.
    fn whole(&self, reply: &Reply, form: Form, asked: &Asked, outcome: Outcome) -> Option<Served> {
        let answer = reply.answer.as_ref()?;
        let is_follower = outcome == Outcome::Coalesced;
        let body = if form.streams {
            self.replayed(&answer.json, form)?
        } else {
            Body::Whole(reply.body.clone(), false)
        };
        let saved = answer.usage.filter(|_| is_follower).map(|usage| self.price(&asked.model, usage));
        Some(Served { saved, ..Served::new(reply.status, reply.headers.clone(), body, outcome) })
    }
}

impl From<Again> for Error {
    fn from(again: Again) -> Error {
        match again {
            Again::LeaderDied | Again::Landed => died(),
            Again::AsStream => {
                Error::new(Kind::Upstream, "the upstream answered with a stream that has no whole")
            }
            Again::Never(error) => error,
        }
    }
}
