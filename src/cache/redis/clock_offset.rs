//! How far the clock of Redis is from that of this node.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Value, from_redis_value};

use crate::domain::{EntryMeta, UnixSeconds};

/// How far the clock of Redis is ahead of that of this node. Entries in Redis carry its time, so that a node whose clock is
/// wrong shares them nevertheless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockOffset {
    micros: i64,
}

impl ClockOffset {
    /// None at all.
    pub const NONE: ClockOffset = ClockOffset { micros: 0 };

    /// By so many microseconds.
    pub fn from_micros(micros: i64) -> ClockOffset {
        ClockOffset { micros }
    }

    /// In microseconds.
    pub fn as_micros(self) -> i64 {
        self.micros
    }

    /// A moment of this node's clock as that of Redis shows it, in microseconds since 1970.
    pub fn redis_micros(self, at: SystemTime) -> u64 {
        let local = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let local = u64::try_from(local.as_micros()).unwrap_or(u64::MAX);
        local.saturating_add_signed(self.micros)
    }

    /// From the reply to `TIME`, which left the server about when `now` was.
    pub(super) fn of_reply(time: Value, now: SystemTime) -> Option<ClockOffset> {
        let (seconds, micros): (u64, u32) = from_redis_value(time).ok()?;
        let redis = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros.into()))?;
        let local = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Some(ClockOffset { micros: micros(redis).saturating_sub(micros(local)) })
    }

    /// The moments of an entry of this node in the time of Redis.
    pub(super) fn into_redis_time(self, meta: &EntryMeta) -> EntryMeta {
        shifted(meta, self.seconds())
    }

    /// The moments of an entry in Redis in the time of this node.
    pub(super) fn into_local_time(self, meta: &EntryMeta) -> EntryMeta {
        shifted(meta, -self.seconds())
    }

    /// Rounded: two clocks that agree have none, however long their messages take.
    fn seconds(self) -> i64 {
        self.micros.saturating_add(500_000).div_euclid(1_000_000)
    }
}

fn shifted(meta: &EntryMeta, seconds: i64) -> EntryMeta {
    let shift = |moment: UnixSeconds| match moment {
        UnixSeconds::NEVER => UnixSeconds::NEVER,
        // One less than never, so that no moment becomes or ceases to be it.
        UnixSeconds(at) => {
            let shifted = i64::from(at).saturating_add(seconds).clamp(0, i64::from(u32::MAX) - 1);
            UnixSeconds(u32::try_from(shifted).unwrap_or(u32::MAX - 1))
        }
    };
    EntryMeta {
        created: shift(meta.created),
        soft_expires: shift(meta.soft_expires),
        expires: shift(meta.expires),
        stale_until: shift(meta.stale_until),
        last_used: shift(meta.last_used),
        ..meta.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Codec;

    #[test]
    fn moments_are_shifted_there_and_back_and_never_stays_never() {
        let meta = EntryMeta {
            soft_expires: UnixSeconds::NEVER,
            ..EntryMeta::ending(Codec::Raw, UnixSeconds(1000), UnixSeconds(2000))
        };
        for millis in [0, 499, 300_000, -300_400] {
            let offset = ClockOffset::from_micros(millis * 1000);
            assert_eq!(offset.into_local_time(&offset.into_redis_time(&meta)), meta);
        }
        let later = ClockOffset::from_micros(299_600_000).into_redis_time(&meta);
        assert_eq!((later.created, later.expires), (UnixSeconds(1300), UnixSeconds(2300)));
        assert_eq!(later.soft_expires, UnixSeconds::NEVER);
        let earlier = ClockOffset::from_micros(i64::MIN).into_redis_time(&meta);
        assert_eq!(earlier.created, UnixSeconds(0));
        assert!(ClockOffset::from_micros(i64::MAX).into_redis_time(&meta).expires < UnixSeconds::NEVER);
    }

    #[test]
    fn the_reply_to_time_is_read() {
        let reply = redis::parse_redis_value(b"*2\r\n$2\r\n10\r\n$6\r\n500000\r\n").unwrap();
        let now = UNIX_EPOCH + Duration::from_millis(12_000);
        assert_eq!(ClockOffset::of_reply(reply, now), Some(ClockOffset::from_micros(-1_500_000)));
        assert_eq!(ClockOffset::from_micros(-1_500_000).redis_micros(now), 10_500_000);
        assert_eq!(ClockOffset::of_reply(Value::Okay, now), None);
    }
}
