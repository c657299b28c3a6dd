//! The address to listen on, the keys, and the upstreams.

use std::time::SystemTime;

use likewise::config::Config;
use likewise::error::Kind;
use likewise::http::{Server, check_keys, port_holder};
use likewise::upstream::{UpstreamProbe, probe};

use super::Check;

/// By how many seconds the clock of an upstream may differ.
const SKEW_SECONDS_MAX: u64 = 120;

/// `server` is the process that uses the data directory of this configuration.
pub(super) async fn checks(config: &Config, server: Option<u32>) -> Vec<Check> {
    let mut checks = vec![listen(config, server).await, keys(config)];
    match probe(&config.upstream).await {
        Err(error) => checks.push(Check::fault("upstream", &error)),
        Ok(probes) if probes.is_empty() => {
            checks.push(Check::ok("upstream", "none: chat completions are not served (--upstream URL)"));
        }
        Ok(probes) => checks.extend(probes.iter().flat_map(of_probe)),
    }
    checks
}

/// The process that listens on the address.
pub(super) fn listener(config: &Config) -> Option<u32> {
    port_holder(&config.http.listen).map(|(process, _)| process)
}

async fn listen(config: &Config, server: Option<u32>) -> Check {
    match Server::bind(&config.http).await {
        Ok(server) => Check::ok("listen", format!("{} is free", server.address())),
        Err(_) if server.is_some() && listener(config) == server => {
            let process = server.unwrap_or_default();
            let listen = &config.http.listen;
            let detail = format!("{listen} is in use by process {process}, the server of this configuration");
            Check::warn("listen", detail, "nothing: it runs; a second server needs another --listen")
        }
        Err(error) => Check::fault("listen", &error),
    }
}

fn keys(config: &Config) -> Check {
    match check_keys(&config.http) {
        Ok(0) => Check::ok("keys", "none: only this machine reaches the server"),
        Ok(keys) => Check::ok("keys", format!("{keys} API keys")),
        Err(error) => Check::fault("keys", &error),
    }
}

fn of_probe(probe: &UpstreamProbe) -> Vec<Check> {
    let url = &probe.base_url;
    let mut checks = Vec::new();
    if let Some(advice) = &probe.advice {
        checks.push(Check::warn(
            "upstream",
            format!("{url}: the address is probably mistaken"),
            advice.as_str(),
        ));
    }
    checks.push(match &probe.status {
        Err(error) if error.kind() == Kind::Unavailable => Check::fault(
            "upstream",
            &error.clone().advise("start the upstream, or correct --upstream; HTTPS_PROXY sets a proxy"),
        ),
        Err(error) => Check::fault("upstream", error),
        Ok(200..=299) if probe.lists_models => Check::ok("upstream", format!("{url} lists its models")),
        Ok(status @ 200..=299) => Check::warn(
            "upstream",
            format!("{url} answers {status} to GET /models with what is no list of models"),
            "correct --upstream, which usually ends in /v1; if it is right, clients see only the models of upstream.routes",
        ),
        Ok(401 | 403) if probe.asks_with_client_keys => {
            Check::ok("upstream", format!("{url} asks for a key, which clients bring"))
        }
        Ok(status @ (401 | 403)) if !probe.has_key => {
            let advice =
                "type `export OPENAI_API_KEY=...`, or name the variable of the key in upstream.api_key_env";
            Check::fail("upstream", format!("{url} asks for a key ({status}), and there is none"), advice)
        }
        Ok(status @ (401 | 403)) => {
            let detail = format!("{url} refuses the key ({status})");
            Check::fail(
                "upstream",
                detail,
                "correct the key in OPENAI_API_KEY or in the variable of upstream.api_key_env",
            )
        }
        Ok(404) if probe.advice.is_some() => Check::fail(
            "upstream",
            format!("{url} has no /models (404)"),
            "correct the address as said above",
        ),
        Ok(status) => {
            let detail = format!("{url} answers {status} to GET /models");
            Check::warn(
                "upstream",
                detail,
                "not every upstream lists its models; if this one does, correct --upstream",
            )
        }
    });
    checks.extend(skew(probe));
    checks
}

/// A warning if the clock of the upstream differs.
fn skew(probe: &UpstreamProbe) -> Option<Check> {
    let theirs = probe.date?;
    let now = SystemTime::now();
    let seconds = now.duration_since(theirs).or_else(|_| theirs.duration_since(now)).ok()?.as_secs();
    (seconds > SKEW_SECONDS_MAX).then(|| {
        let detail = format!("{} differs by {seconds} s", probe.base_url);
        Check::warn("clock", detail, "set the clock of this machine, for instance with systemd-timesyncd")
    })
}
