//! The pairs of questions that share no answer, as all nodes know them.

use std::collections::HashSet;
use std::time::Duration;

use redis::Value;

use super::call_error::CallError;
use super::client::RedisClient;
use super::envelope::Envelope;
use super::replies::{bytes, number};
use crate::domain::Key;

/// For calls that no request waits for.
const CALL_MAX: Duration = Duration::from_secs(1);

/// The pairs of questions that share no answer, as all nodes know them: a hash of records by the keys of the pairs. Pairs are added to
/// it and never removed.
#[derive(Clone)]
pub struct SharedPairs {
    client: RedisClient,
    envelope: Envelope,
}

impl SharedPairs {
    pub(in crate::cache) fn new(client: RedisClient, envelope: Envelope) -> SharedPairs {
        SharedPairs { client, envelope }
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn count(&self) -> Result<usize, CallError> {
        let mut command = redis::cmd("HLEN");
        command.arg(self.client.keys().wrong_pairs());
        let reply = self.client.command(&command, CALL_MAX).await?;
        Ok(number(&reply).and_then(|count| usize::try_from(count).ok()).unwrap_or_default())
    }

    /// The keys of all.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn keys(&self) -> Result<HashSet<Key>, CallError> {
        let mut command = redis::cmd("HKEYS");
        command.arg(self.client.keys().wrong_pairs());
        let Value::Array(keys) = self.client.command(&command, CALL_MAX).await? else {
            return Ok(HashSet::new());
        };
        let key = |value: &Value| bytes(value)?.try_into().ok().map(Key);
        Ok(keys.iter().filter_map(key).collect())
    }

    /// The records of these keys; those that another than a node may have written are left out.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn get(&self, keys: &[Key]) -> Result<Vec<Vec<u8>>, CallError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.client.keys().wrong_pairs());
        keys.iter().for_each(|key| _ = command.arg(&key.0[..]));
        let Value::Array(values) = self.client.command(&command, CALL_MAX).await? else {
            return Ok(Vec::new());
        };
        let record =
            |(key, value): (&Key, &Value)| self.envelope.open_record(key, bytes(value)?).map(<[u8]>::to_vec);
        Ok(keys.iter().zip(&values).filter_map(record).collect())
    }

    /// Adds records, if there are any.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn add(&self, records: &[(Key, Vec<u8>)]) -> Result<(), CallError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("HSET");
        command.arg(self.client.keys().wrong_pairs());
        for (key, record) in records {
            command.arg(&key.0[..]).arg(self.envelope.seal_record(key, record.clone()));
        }
        self.client.command(&command, CALL_MAX).await.map(|_| ())
    }
}
