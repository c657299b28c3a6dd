//! `likewise doctor`: what a server would find on this machine, and what to do about it.
//!
//! Contains: one file for each kind of check. Must not contain: a change of anything. The one idea: each check reads what the server
//! reads, and writes nothing: neither to the data directory, nor to the cache of models, nor over the network.

mod data;
mod machine;
mod model;
mod network;

use std::process::ExitCode;

use clap::Args;
use likewise::config::Overrides;
use likewise::error::{Error, Result};
use serde::Serialize;

use super::sources::Sources;
use super::terminal;

/// Check machine, model, address, data directory and upstreams, and say what to do. Changes nothing.
///
/// Exit code: 0 if a server would start and find everything, with or without warnings; 1 if something fails.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    sources: Sources,
    /// Address that the server would listen on.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where chat completions would be answered.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckVerdict {
    Ok,
    /// The server starts, and something will go wrong or slowly.
    Warn,
    /// The server does not start, or a part of it does not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    verdict: CheckVerdict,
    what: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(what: &'static str, detail: impl Into<String>) -> Check {
        Check { verdict: CheckVerdict::Ok, what, detail: detail.into(), advice: None }
    }

    fn warn(what: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { verdict: CheckVerdict::Warn, what, detail: detail.into(), advice: Some(advice.into()) }
    }

    fn fail(what: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { verdict: CheckVerdict::Fail, what, detail: detail.into(), advice: Some(advice.into()) }
    }

    /// A fault that the server would report too.
    fn fault(what: &'static str, error: &Error) -> Check {
        let advice = error.advice().map(str::to_owned);
        let text = error.to_string();
        let end = advice.as_ref().map_or(text.len(), |advice| text.len() - " -> ".len() - advice.len());
        Check { verdict: CheckVerdict::Fail, what, detail: text[..end].to_owned(), advice }
    }

    /// `ok    clock     2026-11-28`, then `-> ` and what to do.
    fn line(&self) -> String {
        let verdict = match self.verdict {
            CheckVerdict::Ok => "ok",
            CheckVerdict::Warn => "warn",
            CheckVerdict::Fail => "fail",
        };
        let advice = self.advice.as_ref().map(|advice| format!(" -> {advice}")).unwrap_or_default();
        // An error of a parser may have several lines.
        let detail = self.detail.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{verdict:<5} {:<9} {detail}{advice}\n", self.what)
    }
}

impl Doctor {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let overrides = Overrides {
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            ..Overrides::default()
        };
        let mut checks = machine::checks();
        match self.sources.load_with(overrides) {
            Err(error) => checks.push(Check::fault("config", &error)),
            Ok(config) => {
                checks.push(Check::ok("config", "every option is known and in its range"));
                checks.extend(machine::checks_of(&config));
                // The server of this configuration is the process that has both its directory and its address.
                let server = data::holder(&config.data.dir);
                checks.extend(data::checks(&config.data.dir, &config.cache, network::listener(&config)));
                checks.extend(network::checks(&config, server).await);
                checks.extend(model::checks(config).await);
            }
        }
        Ok(self.report(&checks))
    }

    fn report(&self, checks: &[Check]) -> ExitCode {
        let has_failed = checks.iter().any(|check| check.verdict == CheckVerdict::Fail);
        if self.json {
            let json = serde_json::json!({ "ok": !has_failed, "checks": checks });
            terminal::say(&format!("{json}\n"));
        } else {
            terminal::say(&checks.iter().map(Check::line).collect::<String>());
        }
        if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

#[cfg(test)]
mod tests {
    use likewise::error::Kind;

    use super::*;

    #[test]
    fn a_line_has_the_verdict_first_and_what_to_do_last() {
        let error = Error::new(Kind::Config, "cannot bind").with("listen", "x").advise("give another");
        let check = Check::fault("listen", &error);
        assert_eq!(check.line(), "fail  listen    cannot bind (listen: x) -> give another\n");
        assert_eq!(Check::fault("a", &Error::new(Kind::Io, "b")).line(), "fail  a         b\n");
        assert_eq!(Check::ok("clock", "1\n 2").line(), "ok    clock     1 2\n");
    }
}
