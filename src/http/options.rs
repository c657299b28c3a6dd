//! The options of the HTTP server.

use serde::{Deserialize, Serialize};

use super::api_key::ApiKey;

/// Options of the HTTP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address to listen on. An address that others can reach needs API keys.
    pub listen: String,
    /// Largest body of a request.
    pub body_bytes_max: usize,
    /// Bytes that all requests in flight may hold together: bodies, streams that are held for several readers, answers that are
    /// not sent yet. 0 takes an eighth of the memory of the machine or of its control group, at most 512 MiB.
    pub inflight_bytes_max: usize,
    /// Requests worked on at the same time, those not counted that wait for an upstream; one more gets 429.
    pub requests_max: usize,
    /// Connections open at the same time; for one more, the one that has been idle for longest makes room.
    pub connections_max: usize,
    /// Longest time that a request may take.
    pub request_timeout_seconds: u64,
    /// Longest time that a client may stay idle and take for the next head.
    pub header_timeout_seconds: u64,
    /// Longest time from the begin of a connection to the end of its first head.
    pub first_header_timeout_seconds: u64,
    /// Least rate at which a client sends a body and reads an answer.
    pub bytes_per_second_min: u64,
    /// How long requests under way may go on after the signal to stop.
    pub drain_seconds: u64,
    /// Keys that clients may present; without any, every client that reaches the address is served.
    pub api_keys: Vec<ApiKey>,
    /// A file with one key a line.
    pub api_keys_file: Option<std::path::PathBuf>,
    /// Origins whose pages may ask, such as `https://app.example`; `*` stands for all.
    pub cors: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: "127.0.0.1:8420".into(),
            body_bytes_max: 32 * 1024 * 1024,
            inflight_bytes_max: 0,
            requests_max: 1024,
            connections_max: 4096,
            request_timeout_seconds: 600,
            header_timeout_seconds: 75,
            first_header_timeout_seconds: 10,
            bytes_per_second_min: 1024,
            drain_seconds: 30,
            api_keys: Vec::new(),
            api_keys_file: None,
            cors: Vec::new(),
        }
    }
}

/// What `inflight_bytes_max` is at most where it follows the memory of the machine.
const INFLIGHT_BYTES_AUTO_MAX: u64 = 512 << 20;
/// The share of the memory that it is.
const INFLIGHT_DIVISOR: u64 = 8;

impl Options {
    /// Bytes that all requests in flight may hold on a machine of `memory_bytes`.
    pub fn inflight_bytes(&self, memory_bytes: u64) -> usize {
        match self.inflight_bytes_max {
            0 => (memory_bytes / INFLIGHT_DIVISOR).min(INFLIGHT_BYTES_AUTO_MAX) as usize,
            bytes => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_flight_follow_the_memory_up_to_a_limit() {
        let auto = Options::default();
        assert_eq!(auto.inflight_bytes(1 << 30), 128 << 20);
        assert_eq!(auto.inflight_bytes(64 << 30), 512 << 20);
        assert_eq!(Options { inflight_bytes_max: 7, ..auto }.inflight_bytes(1 << 30), 7);
    }
}
