//! The log of changes that nodes share, in Redis: one stream a shard, with the number and the name of its last event.
//!
//! Every change is one script, so that a value and its event are there together or not at all.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use redis::{Pipeline, Value};

use super::breaker::BreakerState;
use super::call_error::CallError;
use super::client::RedisClient;
use super::dedicated::DedicatedConnection;
use super::replies::{events_of, is_of_primary, number, scanned, state_of};
use super::script::{LuaScript, appending};
use super::shared_write::{SharedWrite, Written};
use super::tier::RedisTier;
use crate::cache::change_log::{KIND_KEY, LogCursor, NewToken, NodeId, Reading, ShardState};
use crate::cache::invalidation_tokens::{
    LoadedTokens, Mode, OTHER_TENANTS, OUTDATED_MAX, Subject, TokenChange, TokenHistory,
};
use crate::cache::policy::Namespace;
use crate::domain::{Entry, InvalidationId, Key};
use crate::error::{Error, Kind, Result};
use crate::sync::lock;

static OPEN: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/open.lua")));
static WRITE: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(appending!("scripts/write.lua")));
static FORK: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/fork.lua")));
static INVALIDATE: LazyLock<LuaScript> =
    LazyLock::new(|| LuaScript::new(appending!("scripts/invalidate.lua")));

/// Events of one reading, and those that a write looks at.
const EVENTS_MAX: usize = 512;
/// Tokens of one command.
const CHUNK: usize = 1000;
/// The fields of the state of a shard.
const STATE_FIELDS: [&str; 3] = ["seq", "nonce", "generation"];
/// How long a seed of tokens that nothing has used remains.
const SEED_MS: u64 = 60_000;
/// How long a call may take that no request waits for.
const BACKGROUND_MAX: Duration = Duration::from_secs(5);
/// The least time for the reply to a reading, however short the limit of requests is.
const BLOCKED_MIN: Duration = Duration::from_millis(250);
/// The shard that has the tokens.
pub(in crate::cache) const TOKENS_SHARD: u8 = 0;
/// The field of the token of all that the default tenant has.
const EVERYTHING: &[u8] = b"everything";

/// The log.
pub(in crate::cache) struct SharedLog {
    pub(super) client: RedisClient,
    pub(super) node: NodeId,
    pub(super) events_max: u64,
    /// Whether the user is known not to lack the right to ask a server for its role.
    may_ask_role: AtomicBool,
    /// The state of each shard as of the last event that this node has applied.
    states: Box<[Mutex<ShardState>]>,
}

impl SharedLog {
    pub(in crate::cache) fn new(client: RedisClient, node: NodeId, events_max: u64) -> SharedLog {
        let states = (0..client.keys().shards()).map(|_| Mutex::default()).collect();
        SharedLog { client, node, events_max, may_ask_role: AtomicBool::new(true), states }
    }

    /// As which this process writes its events.
    pub(in crate::cache) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether calls are made.
    pub(in crate::cache) fn breaker_state(&self) -> BreakerState {
        self.client.breaker_state()
    }

    /// This moment by the clock of Redis, in microseconds since 1970. As exact as the clocks were compared within the last second.
    pub(in crate::cache) fn redis_micros(&self) -> u64 {
        self.client.clock_offset().redis_micros(SystemTime::now())
    }

    /// The connection for the readings of a shard.
    pub(in crate::cache) fn reader(&self, shard: u8) -> DedicatedConnection {
        self.client.dedicated(shard)
    }

    pub(in crate::cache) fn shards(&self) -> u8 {
        self.client.keys().shards()
    }

    pub(in crate::cache) fn shard_of(&self, key: &Key) -> u8 {
        self.client.keys().shard_of(key)
    }

    /// The state of a shard as of the last event that this node has applied.
    pub(in crate::cache) fn known(&self, shard: u8) -> ShardState {
        *lock(&self.states[usize::from(shard)])
    }

    /// The generation of the values of a shard, as this node knows it.
    pub(in crate::cache) fn generation(&self, shard: u8) -> u64 {
        self.known(shard).generation
    }

    /// This node has applied all events up to this state, and hidden its copies of values of other generations.
    pub(in crate::cache) fn set_state(&self, shard: u8, state: ShardState) {
        *lock(&self.states[usize::from(shard)]) = state;
    }

    /// The entries of keys that other nodes change too. Those of a shard that lacks events which this node has applied are left out: they
    /// may be from before.
    pub(in crate::cache) async fn get_many(
        &self,
        tier: &RedisTier,
        namespace: &Namespace,
        keys: Vec<Key>,
    ) -> Vec<Option<Arc<Entry>>> {
        let shards: BTreeSet<u8> = keys.iter().map(|key| self.shard_of(key)).collect();
        let known: Vec<ShardState> = shards.iter().map(|&shard| self.known(shard)).collect();
        let state = |&shard: &u8| {
            let mut get = redis::cmd("HMGET");
            get.arg(self.client.keys().state(shard)).arg(&STATE_FIELDS);
            get
        };
        let of_keys: Vec<u8> = keys.iter().map(|key| self.shard_of(key)).collect();
        let (entries, states) = tier.get_checked(namespace, keys, shards.iter().map(state).collect()).await;
        let continues = |(reply, known): (Result<Value, CallError>, ShardState)| {
            reply.ok().as_ref().and_then(state_of).is_some_and(|state| state.continues(known))
        };
        let current: Vec<bool> = states.into_iter().zip(known).map(continues).collect();
        let is_current = |shard: u8| shards.iter().position(|&of| of == shard).is_some_and(|at| current[at]);
        entries.into_iter().zip(of_keys).map(|(entry, shard)| entry.filter(|_| is_current(shard))).collect()
    }

    /// Gives the values of a shard a new generation, if the shard is as in `state`. What was written before is then not served by
    /// any node. Returns whether the shard was as in `state`.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn fork(
        &self,
        shard: u8,
        state: ShardState,
        generation: u64,
    ) -> Result<bool, CallError> {
        let names = [self.client.keys().state(shard)];
        let arguments: [Vec<u8>; 3] = [
            state.cursor.number.to_string().into(),
            state.cursor.nonce.to_le_bytes().into(),
            generation.to_le_bytes().into(),
        ];
        let reply = self.run(&FORK, &names, &arguments, BACKGROUND_MAX).await?;
        Ok(number(&reply) == Some(1))
    }

    /// Reads the events behind a cursor, and waits for one at most `wait`.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn read(
        &self,
        reader: &mut DedicatedConnection,
        cursor: LogCursor,
        wait: Duration,
    ) -> Result<Reading, CallError> {
        let (keys, shard) = (self.client.keys(), reader.shard());
        let (asks_role, mut pipeline) = (self.may_ask_role.load(Ordering::Relaxed), Pipeline::new());
        if asks_role {
            pipeline.cmd("ROLE");
        }
        pipeline.cmd("HMGET").arg(keys.state(shard)).arg(&STATE_FIELDS);
        let read = pipeline.cmd("XREAD").arg("COUNT").arg(EVENTS_MAX);
        if !wait.is_zero() {
            read.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        read.arg("STREAMS").arg(keys.events(shard)).arg(format!("{}-0", cursor.number));
        let limit = wait + self.client.response_max().max(BLOCKED_MIN);
        let replies = reader.pipeline(&pipeline, limit).await.inspect_err(|error| {
            if error.is_no_permission() {
                self.may_ask_role.store(false, Ordering::Relaxed);
            }
        })?;
        let (role, replies) = replies.split_at(usize::from(asks_role));
        if role.iter().any(|role| !is_of_primary(role)) {
            // A former primary answers, and does not know what is written to the present one.
            reader.close();
            return Err(CallError::NotPrimary);
        }
        let [state, events] = replies else { return Ok(Reading::lost()) };
        let (Some(state), events) = (state_of(state), events_of(events)) else { return Ok(Reading::lost()) };
        let is_full = events.len() == EVENTS_MAX;
        Ok(Reading { last: Some(state.cursor), generation: state.generation, is_full, events })
    }

    /// The last event of a shard. One without state is begun, with these tokens if it is the shard that has them; whether it was begun.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn open(
        &self,
        shard: u8,
        nonce: u64,
        tokens: impl FnOnce() -> Vec<TokenChange>,
    ) -> Result<(ShardState, bool), CallError> {
        let keys = self.client.keys();
        let (state, has_tokens) = (keys.state(shard), shard == TOKENS_SHARD);
        let tokens_key = if has_tokens { keys.tokens() } else { format!("{state}:tokens") };
        let mut known = Pipeline::new();
        known.cmd("HMGET").arg(&state).arg(&STATE_FIELDS);
        // The tokens of each tenant depend on one of these.
        let fields = [EVERYTHING.to_vec(), OTHER_TENANTS.0.to_le_bytes().into()];
        known.cmd("HEXISTS").arg(&tokens_key).arg(&fields[0]);
        known.cmd("HEXISTS").arg(&tokens_key).arg(&fields[1]);
        if let [state, found @ ..] = self.client.pipeline(&known, BACKGROUND_MAX).await?.as_slice()
            && let Some(state) = state_of(state)
            && (found.iter().all(|found| number(found) == Some(1)) || !has_tokens)
        {
            return Ok((state, false));
        }
        let seed = format!("{tokens_key}:seed:{nonce:016x}");
        if has_tokens {
            self.write_seed(&seed, tokens()).await?;
        }
        let names = [state, keys.events(shard), tokens_key, seed];
        let has_tokens = if has_tokens { b"1" } else { b"0" };
        let [_, other_tenants] = fields;
        let arguments: [Vec<u8>; 3] = [nonce.to_le_bytes().into(), has_tokens.into(), other_tenants];
        let reply = self.run(&OPEN, &names, &arguments, BACKGROUND_MAX).await?;
        let was_begun = matches!(&reply, Value::Array(parts) if parts.get(3).and_then(number) == Some(1));
        // A reply of another shape is that of no server that this program knows.
        Ok((state_of(&reply).ok_or(CallError::NotConnected)?, was_begun))
    }

    async fn write_seed(&self, seed: &str, tokens: Vec<TokenChange>) -> Result<(), CallError> {
        for chunk in tokens.chunks(CHUNK) {
            let mut pipeline = Pipeline::new();
            let set = pipeline.cmd("HSET").arg(seed);
            for change in chunk {
                if let (Some(subject), Some(history)) = (change.subject(), change.history()) {
                    set.arg(field_of(subject)).arg(history.encode());
                }
            }
            pipeline.cmd("PEXPIRE").arg(seed).arg(SEED_MS);
            self.client.pipeline(&pipeline, BACKGROUND_MAX).await?;
        }
        Ok(())
    }

    /// All tokens. `None` if those of everything are missing.
    ///
    /// # Errors
    /// As [`CallError`]; `Corrupt` if they are not tokens.
    pub(in crate::cache) async fn load_tokens(&self) -> Result<Option<LoadedTokens>> {
        let (mut everything, mut ids) = (None, std::collections::HashMap::default());
        let mut at = b"0".to_vec();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.client.keys().tokens()).arg(&at[..]).arg("COUNT").arg(CHUNK);
            let reply = self.client.command(&scan, BACKGROUND_MAX).await?;
            let (next, pairs) = scanned(&reply).ok_or_else(corrupt)?;
            for pair in pairs.chunks(2) {
                let [Value::BulkString(field), Value::BulkString(history)] = pair else {
                    return Err(corrupt());
                };
                let history = TokenHistory::decode(history).ok_or_else(corrupt)?;
                match field.as_slice() {
                    EVERYTHING => everything = Some(history),
                    id => {
                        let id = id.try_into().map_err(|_| corrupt())?;
                        ids.insert(InvalidationId(u64::from_le_bytes(id)), history);
                    }
                }
            }
            at = next;
            if at == b"0" {
                break;
            }
        }
        let is_whole = ids.contains_key(&OTHER_TENANTS);
        Ok(everything
            .filter(|_| is_whole)
            .map(|everything| LoadedTokens { everything, invalidation_ids: ids }))
    }

    /// Gives subjects new tokens. Returns what they have then.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn invalidate(
        &self,
        starts_over: bool,
        nonce: u64,
        tokens: &[NewToken],
        limit: Duration,
    ) -> Result<Vec<TokenChange>, CallError> {
        let keys = self.client.keys();
        let names =
            [keys.state(TOKENS_SHARD), keys.events(TOKENS_SHARD), keys.tokens(), keys.unused(TOKENS_SHARD)];
        let mut arguments: Vec<Vec<u8>> = vec![
            nonce.to_le_bytes().into(),
            self.node.0.to_le_bytes().into(),
            self.events_max.to_string().into(),
            if starts_over { b"1".into() } else { b"0".into() },
            OUTDATED_MAX.to_string().into(),
        ];
        for token in tokens {
            arguments.push(token.subject.bytes());
            arguments.push(token.token.to_le_bytes().into());
            arguments.push(if token.mode == Mode::Soft { b"s".into() } else { b"h".into() });
        }
        let reply = self.run(&INVALIDATE, &names, &arguments, limit).await?;
        let Value::Array(parts) = &reply else { return Ok(Vec::new()) };
        let Some(Value::Array(histories)) = parts.get(1) else { return Ok(Vec::new()) };
        let change = |(token, history): (&NewToken, &Value)| {
            let Value::BulkString(history) = history else { return None };
            TokenChange::of_subject(&token.subject.bytes(), TokenHistory::decode(history)?)
        };
        Ok(tokens.iter().zip(histories).filter_map(change).collect())
    }

    /// Writes a value with its event.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn write(
        &self,
        write: &SharedWrite<'_>,
        nonce: u64,
        limit: Duration,
    ) -> Result<Written, CallError> {
        let (keys, key) = (self.client.keys(), &write.key);
        let shard = keys.shard_of(key);
        let names = [keys.state(shard), keys.events(shard), keys.object(key), keys.lease(key)];
        let (value, lives_ms) = write.value.unwrap_or_default();
        let known = self.known(shard);
        let after = write.after.or(write.replaces.none_behind());
        let ignores_others = after.is_some_and(|after| after.ignores_others);
        let mut payload = event_of(KIND_KEY, key);
        payload.extend(write.entry.iter().flat_map(|entry| entry.0.to_le_bytes()));
        let arguments: [Vec<u8>; 14] = [
            nonce.to_le_bytes().into(),
            self.node.0.to_le_bytes().into(),
            payload,
            self.events_max.to_string().into(),
            value.into(),
            lives_ms.to_string().into(),
            write.replaces.argument(),
            after.map(|after| after.number.to_string().into()).unwrap_or_default(),
            known.cursor.number.to_string().into(),
            known.cursor.nonce.to_le_bytes().into(),
            known.generation.to_le_bytes().into(),
            write.lease.map(|lease| lease.0.to_le_bytes().into()).unwrap_or_default(),
            if ignores_others { b"1".into() } else { Vec::new() },
            EVENTS_MAX.to_string().into(),
        ];
        let reply = self.run(&WRITE, &names, &arguments, limit).await?;
        Ok(match number(&reply) {
            Some(-2) => Written::Behind,
            Some(-3) => return Err(CallError::NotPrimary),
            Some(-4) => Written::LeaseEnded,
            Some(-5) => Written::Contested,
            Some(number @ 1..) => Written::Done(number.unsigned_abs()),
            Some(_) | None => Written::Conflict,
        })
    }

    pub(super) async fn run(
        &self,
        script: &LuaScript,
        names: &[String],
        arguments: &[Vec<u8>],
        limit: Duration,
    ) -> Result<Value, CallError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        self.client.script(script, &names, &arguments, limit).await
    }
}

/// Kind and payload of an event that names a key.
pub(super) fn event_of(kind: u8, key: &Key) -> Vec<u8> {
    [&[kind][..], &key.0].concat()
}

fn field_of(subject: Subject) -> Vec<u8> {
    match subject {
        Subject::Everything => EVERYTHING.into(),
        Subject::Id(_) => subject.bytes(),
    }
}

fn corrupt() -> Error {
    Error::new(Kind::Corrupt, "cannot read the tokens in Redis")
}
