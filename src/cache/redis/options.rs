//! What the configuration says of Redis.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Options of the tier that nodes share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisOptions {
    /// The server, such as `redis://user:password@host:6379/0`; `rediss` is TLS. Without it there is no Redis.
    pub url: Option<RedisUrl>,
    /// How the servers belong together.
    pub mode: RedisMode,
    /// Further seeds of a cluster, or further Sentinels.
    pub urls: Vec<RedisUrl>,
    /// The name of the service that Sentinel watches.
    pub sentinel_service: Option<String>,
    /// What the names of all keys begin with; several installations in one Redis have different ones.
    pub prefix: String,
    /// Certificates (PEM) that sign those of the servers, instead of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// Milliseconds that a connection may take to open.
    pub connect_ms_max: u64,
    /// Milliseconds that a request waits for Redis.
    pub response_ms_max: u64,
    /// Calls under way; one more is a miss.
    pub calls_max: usize,
    /// Bytes of the longest value in Redis; longer ones stay on their node.
    pub value_bytes_max: usize,
    /// Milliseconds without a sign of the events of other nodes, past which entries that can change are not served as fresh.
    pub suspect_after_ms: u64,
    /// Events that are held in Redis, for nodes that are behind.
    pub events_max: u64,
    /// What only one node makes at a time, while others that want the same wait for it.
    pub single_flight: SingleFlightScope,
    /// When Redis is not asked at all.
    pub breaker: BreakerOptions,
}

/// What only one of all nodes makes at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SingleFlightScope {
    /// Each node makes what it misses.
    Off,
    /// Answers of language models.
    #[default]
    Answers,
    /// Embeddings too.
    All,
}

/// When Redis is not asked at all, because it has failed too often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerOptions {
    /// Seconds for which outcomes of calls count.
    pub window_seconds: u64,
    /// The share of failed calls that opens the breaker.
    pub error_share: f64,
    /// Calls in the window before the share counts.
    pub calls_min: u32,
    /// Calls in a row without an answer that open the breaker.
    pub timeouts_max: u32,
    /// Milliseconds for which it is open first; each time it opens again at once, twice as long.
    pub open_ms: u64,
    /// Milliseconds for which it is open at most.
    pub open_ms_max: u64,
}

/// How the servers belong together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// One server, or one address behind which it is.
    #[default]
    Standalone,
    /// Redis Cluster.
    Cluster,
    /// A primary that Sentinels name.
    Sentinel,
}

/// The address of a server with its credentials, which are in no log, error or dump.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct RedisUrl(String);

impl From<String> for RedisUrl {
    fn from(url: String) -> RedisUrl {
        RedisUrl(url)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl RedisUrl {
    /// The address and the credentials. The error names `key` and nothing of the address.
    pub(super) fn server(&self, key: &str) -> Result<ConnectionInfo> {
        let fault = |what: &str| {
            Error::new(Kind::Config, format!("{key} {what}"))
                .advise("write it as redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS; special characters of a password as %XX")
        };
        let scheme = self.0.split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|scheme| SCHEMES.contains(&scheme)) {
            return Err(fault("must begin with redis:// or rediss://"));
        }
        if self.0.contains('#') {
            return Err(fault("must have no part behind #: certificates are always verified"));
        }
        let info =
            self.0.as_str().into_connection_info().map_err(|_| fault("must be the address of a server"))?;
        if info.redis_settings().db() < 0 {
            return Err(fault("must name a database from 0 on"));
        }
        Ok(info)
    }
}

/// Schemes without and with TLS; Valkey's are the same as those of Redis.
const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

impl Default for RedisOptions {
    fn default() -> RedisOptions {
        RedisOptions {
            url: None,
            mode: RedisMode::Standalone,
            urls: Vec::new(),
            sentinel_service: None,
            prefix: "likewise".into(),
            tls_ca_file: None,
            connect_ms_max: 250,
            response_ms_max: 60,
            calls_max: 512,
            value_bytes_max: 1 << 20,
            suspect_after_ms: 2000,
            events_max: 200_000,
            single_flight: SingleFlightScope::default(),
            breaker: BreakerOptions::default(),
        }
    }
}

impl Default for BreakerOptions {
    fn default() -> BreakerOptions {
        BreakerOptions {
            window_seconds: 10,
            error_share: 0.5,
            calls_min: 20,
            timeouts_max: 5,
            open_ms: 1000,
            open_ms_max: 30_000,
        }
    }
}

const MINUTE_MS: u64 = 60_000;
const PREFIX_BYTES_MAX: usize = 64;

impl RedisOptions {
    /// Whether there is a Redis.
    pub fn is_configured(&self) -> bool {
        self.url.is_some()
    }

    /// Checks every value. That no server answers is no fault of the configuration.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub fn validate(&self) -> Result<()> {
        self.validate_servers()?;
        let is_of_prefix = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if self.prefix.is_empty()
            || self.prefix.len() > PREFIX_BYTES_MAX
            || !self.prefix.chars().all(is_of_prefix)
        {
            let rule = format!("1 to {PREFIX_BYTES_MAX} of the characters a-z, A-Z, 0-9 and _-.:");
            return Err(config("prefix", &rule));
        }
        in_range("connect_ms_max", self.connect_ms_max, 1, MINUTE_MS)?;
        in_range("response_ms_max", self.response_ms_max, 1, MINUTE_MS)?;
        in_range("calls_max", self.calls_max as u64, 1, 1 << 16)?;
        in_range("value_bytes_max", self.value_bytes_max as u64, 1, 256 << 20)?;
        in_range("suspect_after_ms", self.suspect_after_ms, 100, 10 * MINUTE_MS)?;
        in_range("events_max", self.events_max, 1000, 1 << 30)?;
        self.breaker.validate()
    }

    fn validate_servers(&self) -> Result<()> {
        let servers = self.servers()?;
        if servers.is_empty() {
            // Without a server the other options are of no effect, but an address that is forgotten is.
            return if self.urls.is_empty() { Ok(()) } else { Err(config("url", "set where redis.urls is")) };
        }
        match self.mode {
            RedisMode::Standalone if servers.len() > 1 => {
                return Err(config("urls", "empty unless redis.mode is \"cluster\" or \"sentinel\""));
            }
            RedisMode::Cluster if servers.iter().any(|server| server.redis_settings().db() != 0) => {
                return Err(config("url", "without a database: a cluster has only database 0"));
            }
            RedisMode::Sentinel if self.sentinel_service.as_ref().is_none_or(String::is_empty) => {
                return Err(config(
                    "sentinel_service",
                    "the name of the service that Sentinel watches, such as mymaster",
                ));
            }
            RedisMode::Standalone | RedisMode::Cluster | RedisMode::Sentinel => {}
        }
        let is_tls = |server: &ConnectionInfo| matches!(server.addr(), ConnectionAddr::TcpTls { .. });
        if self.tls_ca_file.is_some() && !servers.iter().any(is_tls) {
            return Err(config("url", "one with rediss:// where redis.tls_ca_file is set"));
        }
        Ok(())
    }

    /// The server of `url`, then those of `urls`; none without `url`.
    pub(super) fn servers(&self) -> Result<Vec<ConnectionInfo>> {
        let Some(url) = &self.url else { return Ok(Vec::new()) };
        let first = url.server("redis.url")?;
        let others = self.urls.iter().enumerate().map(|(at, url)| url.server(&format!("redis.urls[{at}]")));
        std::iter::once(Ok(first)).chain(others).collect()
    }
}

impl BreakerOptions {
    fn validate(&self) -> Result<()> {
        in_range("breaker.window_seconds", self.window_seconds, 1, 3600)?;
        if !(self.error_share > 0.0 && self.error_share <= 1.0) {
            let rule = format!("above 0 and at most 1, got {}", self.error_share);
            return Err(config("breaker.error_share", &rule));
        }
        in_range("breaker.calls_min", self.calls_min.into(), 1, 1 << 20)?;
        in_range("breaker.timeouts_max", self.timeouts_max.into(), 1, 1 << 20)?;
        in_range("breaker.open_ms", self.open_ms, 1, 60 * MINUTE_MS)?;
        in_range("breaker.open_ms_max", self.open_ms_max, self.open_ms, 60 * MINUTE_MS)
    }
}

fn in_range(key: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(config(key, &format!("from {min} to {max}, got {value}")))
}

fn config(key: &str, rule: &str) -> Error {
    Error::new(Kind::Config, format!("redis.{key} must be {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> RedisOptions {
        RedisOptions { url: Some(RedisUrl(url.to_owned())), ..RedisOptions::default() }
    }

    #[test]
    fn addresses_of_every_scheme_are_accepted() {
        RedisOptions::default().validate().unwrap();
        for scheme in SCHEMES {
            with_url(&format!("{scheme}://user:p%40ss@localhost:7000/3")).validate().unwrap();
        }
        let options = with_url("redis://user:p%40ss@localhost/3");
        let server = &options.servers().unwrap()[0];
        assert_eq!(server.redis_settings().password(), Some("p@ss"));
        assert_eq!((server.redis_settings().username(), server.redis_settings().db()), (Some("user"), 3));
    }

    #[test]
    fn a_bad_address_is_refused_without_its_password() {
        for url in [
            "secret",
            "http://:secret@localhost",
            "redis+unix:///secret",
            "redis://:secret@",
            "redis://:secret@localhost:port",
            "redis://:secret@localhost/x",
            "redis://:secret@localhost/-1",
            "rediss://:secret@localhost/#insecure",
        ] {
            let options = with_url(url);
            let error = options.validate().unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            let said = format!("{error} {options:?} {}", serde_json::to_string(&options).unwrap());
            assert!(error.to_string().starts_with("redis.url must "), "{error}");
            assert!(error.to_string().contains("write it as redis://"), "{error}");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn what_belongs_together_is_checked_together() {
        let url = || Some(RedisUrl("redis://localhost".into()));
        let more = || vec![RedisUrl("redis://localhost:1".into())];
        let faults = [
            (RedisOptions { urls: more(), ..RedisOptions::default() }, "redis.url must be set"),
            (
                RedisOptions { url: url(), urls: more(), ..RedisOptions::default() },
                "redis.urls must be empty",
            ),
            (
                RedisOptions { url: url(), mode: RedisMode::Sentinel, ..RedisOptions::default() },
                "redis.sentinel_service must be the name",
            ),
            (
                RedisOptions { mode: RedisMode::Cluster, ..with_url("redis://localhost/1") },
                "redis.url must be without",
            ),
            (
                RedisOptions { url: url(), tls_ca_file: Some("ca.pem".into()), ..RedisOptions::default() },
                "rediss://",
            ),
            (
                RedisOptions { prefix: "a{b}".into(), ..RedisOptions::default() },
                "redis.prefix must be 1 to 64",
            ),
        ];
        for (options, message) in faults {
            let error = options.validate().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn limits_of_zero_are_refused_by_name() {
        let breaker = |breaker| RedisOptions { breaker, ..RedisOptions::default() };
        let faults = [
            (RedisOptions { connect_ms_max: 0, ..RedisOptions::default() }, "redis.connect_ms_max"),
            (RedisOptions { response_ms_max: 0, ..RedisOptions::default() }, "redis.response_ms_max"),
            (RedisOptions { calls_max: 0, ..RedisOptions::default() }, "redis.calls_max"),
            (RedisOptions { value_bytes_max: 0, ..RedisOptions::default() }, "redis.value_bytes_max"),
            (RedisOptions { suspect_after_ms: 0, ..RedisOptions::default() }, "redis.suspect_after_ms"),
            (RedisOptions { events_max: 0, ..RedisOptions::default() }, "redis.events_max"),
            (
                breaker(BreakerOptions { window_seconds: 0, ..BreakerOptions::default() }),
                "redis.breaker.window_seconds",
            ),
            (
                breaker(BreakerOptions { error_share: 0.0, ..BreakerOptions::default() }),
                "redis.breaker.error_share",
            ),
            (
                breaker(BreakerOptions { error_share: f64::NAN, ..BreakerOptions::default() }),
                "redis.breaker.error_share",
            ),
            (
                breaker(BreakerOptions { calls_min: 0, ..BreakerOptions::default() }),
                "redis.breaker.calls_min",
            ),
            (
                breaker(BreakerOptions { timeouts_max: 0, ..BreakerOptions::default() }),
                "redis.breaker.timeouts_max",
            ),
            (
                breaker(BreakerOptions { open_ms: 0, ..BreakerOptions::default() }),
                "redis.breaker.open_ms must",
            ),
            (
                breaker(BreakerOptions { open_ms_max: 1, ..BreakerOptions::default() }),
                "redis.breaker.open_ms_max",
            ),
        ];
        for (options, key) in faults {
            let error = options.validate().unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("must be"), "{error}");
        }
    }
}
