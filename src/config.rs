//! The configuration: the options of every module, from defaults, a file, the environment and flags, in that order.
//!
//! Every key of the file can be given by the environment as `LIKEWISE__SECTION__KEY`. An unknown key is
//! an error that names the nearest known key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::{cache, embed, http, nodes, search, service, storage, upstream};

/// Everything that can be configured. `examples/config.toml` documents the defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory.
    pub data: Data,
    /// The embedding model.
    pub model: Model,
    /// How the model runs.
    pub embed: embed::Options,
    /// More embedding models.
    pub models: Vec<embed::ModelOptions>,
    /// The tiers.
    pub cache: CacheConfig,
    /// Limits of requests for embeddings.
    pub embeddings: service::embeddings::Options,
    /// Limits of requests for objects, and of leases.
    pub objects: service::objects::Options,
    /// Collections.
    pub search: search::Options,
    /// Limits and sampling of searches.
    pub collections: service::collections::Options,
    /// Long work in the background.
    pub jobs: service::jobs::Options,
    /// What is warmed with at the start.
    pub warm: service::warming::Options,
    /// The tier that nodes share.
    pub redis: cache::redis::RedisOptions,
    /// The nodes that share it.
    pub nodes: nodes::Options,
    /// Upstreams of answers.
    pub upstream: upstream::Options,
    /// Which answers are stored, and which requests share them.
    pub answers: service::answers::Options,
    /// The HTTP server.
    pub http: http::Options,
}

/// The lists that the environment can give, separated by commas.
pub const LISTS: [&str; 10] = [
    "answers.cached_features",
    "answers.ignored_members",
    "answers.semantic.namespaces",
    "http.api_keys",
    "http.cors",
    "model.aliases",
    "redis.urls",
    "upstream.forwarded_headers",
    "upstream.forwards",
    "warm.files",
];

/// The data directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// The data directory; one process at a time.
    pub dir: PathBuf,
}

impl Default for Data {
    fn default() -> Data {
        Data { dir: "data".into() }
    }
}

/// The embedding model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// The model's directory; `none` for a server without a model.
    pub dir: Option<PathBuf>,
    /// The name in requests; by default that of the directory.
    pub name: Option<String>,
    /// Other names of the model in requests.
    pub aliases: Vec<String>,
}

impl Model {
    /// Whether the server shall not have this model.
    fn is_none(&self) -> bool {
        self.dir.as_deref() == Some(Path::new("none"))
    }
}

/// The tiers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// The memory tier.
    pub memory: cache::MemoryOptions,
    /// The disk tier of vectors.
    pub disk: storage::Options,
    /// The disk tier of objects.
    pub objects: storage::objects::Options,
    /// Whether a namespace without a policy of its own may be used, with that of `default`.
    pub allow_unknown_namespaces: bool,
    /// The policies of namespaces.
    pub namespaces: BTreeMap<String, cache::PolicyOptions>,
    /// Tags and namespaces whose invalidations are remembered one by one, at most as many as fit into a quarter of the
    /// memory tier's budget; past it, everything is invalidated once.
    pub invalidated_tags_max: usize,
    /// What is read into memory after a restart.
    pub warm_restart: cache::warm_restart::WarmRestartOptions,
}

/// The least number of tags that are remembered: as many as one request may name.
const TAGS_MIN: usize = 1024;
/// About the memory of a tag that was invalidated: its row in a table that may be half empty, and the tokens
/// that soft invalidations have replaced.
const TAG_BYTES: u64 = 128;
/// The part of the memory tier's budget that such tags may take, whatever their number is set to.
const TAGS_SHARE: u64 = 4;

/// Each is looked for in every request.
const IGNORED_MEMBERS_MAX: u64 = 64;

/// With more, most answers would be refreshed long before their end.
const EARLY_REFRESH_BETA_MAX: f64 = 10.0;

impl CacheConfig {
    /// The number of invalidated tags that are remembered on a machine: the configured one, if they fit beside its entries.
    pub fn tags_max(&self, machine: &cache::Machine) -> usize {
        let fitting = self.memory.budget.bytes(machine) / TAGS_SHARE / TAG_BYTES;
        self.invalidated_tags_max.min(usize::try_from(fitting).unwrap_or(usize::MAX)).max(TAGS_MIN)
    }
}

impl Default for CacheConfig {
    fn default() -> CacheConfig {
        CacheConfig {
            memory: cache::MemoryOptions::default(),
            disk: storage::Options::default(),
            objects: storage::objects::Options::default(),
            allow_unknown_namespaces: true,
            namespaces: cache::PolicyOptions::built_in(),
            invalidated_tags_max: 1_000_000,
            warm_restart: cache::warm_restart::WarmRestartOptions::default(),
        }
    }
}

/// The options of the command line. They override file and environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `http.listen`.
    pub listen: Option<String>,
    /// `data.dir`.
    pub data_dir: Option<PathBuf>,
    /// `model.dir`.
    pub model: Option<PathBuf>,
    /// `upstream.base_url`.
    pub upstream: Option<String>,
    /// `redis.url`.
    pub redis: Option<String>,
}

impl Config {
    /// Whether `[model]` or `[embed]` has a model. Without any other it is the one that is served if none is named.
    pub fn has_default_model(&self) -> bool {
        let is_named = self.model.dir.is_some() || self.embed.remote.base_url.is_some();
        !self.model.is_none() && (is_named || self.models.is_empty())
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// `Config`, naming the key and what is wrong with it.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config> {
        Config::read(file, overrides).map_err(|error| {
            let file = file.map_or_else(|| "the file of --config".into(), |path| path.display().to_string());
            error.advise(format!(
                "correct the option in {file}, in its variable LIKEWISE__SECTION__KEY or on the command line; \
                 examples/config.toml has every option"
            ))
        })
    }

    fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Config> {
        let environment = config::Environment::with_prefix("LIKEWISE")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .list_separator(",");
        let environment =
            LISTS.iter().fold(environment, |environment, key| environment.with_list_parse_key(key));
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let text = fs_err::read_to_string(path).map_err(|error| {
                let advice =
                    "give --config (or LIKEWISE_CONFIG) the name of a readable file, or leave it out";
                Error::new(Kind::Config, "cannot read the configuration file").source(error).advise(advice)
            })?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        builder = builder.add_source(environment);
        for (key, value) in overrides.pairs() {
            builder = builder.set_override(key, value).map_err(bad_value)?;
        }
        let merged = builder.build().map_err(bad_value)?;
        refuse_unknown(&merged)?;
        let config: Config = merged.try_deserialize().map_err(bad_value)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        at_least("embed.queue_texts_max", self.embed.queue_texts_max as u64, 2048)?;
        at_least("embed.batch_tokens_max", self.embed.batch_tokens_max as u64, 1)?;
        at_least("embeddings.text_bytes_max", self.embeddings.text_bytes_max as u64, 1)?;
        at_least("http.requests_max", self.http.requests_max as u64, 1)?;
        at_least("http.connections_max", self.http.connections_max as u64, 1)?;
        at_least("http.body_bytes_max", self.http.body_bytes_max as u64, 1024)?;
        if self.http.inflight_bytes_max != 0 {
            at_least("http.inflight_bytes_max", self.http.inflight_bytes_max as u64, 4 << 20)?;
        }
        at_least("http.request_timeout_seconds", self.http.request_timeout_seconds, 1)?;
        at_most("http.connections_max", self.http.connections_max as u64, 1 << 20)?;
        at_least("http.header_timeout_seconds", self.http.header_timeout_seconds, 1)?;
        at_least("http.first_header_timeout_seconds", self.http.first_header_timeout_seconds, 1)?;
        at_least("http.bytes_per_second_min", self.http.bytes_per_second_min, 1)?;
        at_least("objects.leases_max", self.objects.leases_max as u64, 1)?;
        at_least("objects.lease_seconds_max", self.objects.lease_seconds_max.into(), 1)?;
        at_least("cache.objects.bytes_max", self.cache.objects.bytes_max, 1 << 20)?;
        at_least("cache.invalidated_tags_max", self.cache.invalidated_tags_max as u64, TAGS_MIN as u64)?;
        at_least("jobs.running_max", self.jobs.running_max as u64, 1)?;
        at_least("jobs.active_max", self.jobs.active_max as u64, 1)?;
        // The number of the last job tells the next one its own.
        at_least("jobs.ended_max", self.jobs.ended_max as u64, 1)?;
        self.cache.warm_restart.validate()?;
        self.warm.validate()?;
        self.redis.validate()?;
        self.nodes.validate()?;
        self.upstream.validate()?;
        // Otherwise the request would time out first, and no stale answer could replace that of a silent upstream.
        let timeout_ms = self.http.request_timeout_seconds.saturating_mul(1000);
        if self.upstream.is_configured() && self.upstream.total_ms >= timeout_ms {
            let message = format!(
                "upstream.total_ms must be less than http.request_timeout_seconds, which is {timeout_ms} ms, got {}",
                self.upstream.total_ms
            );
            return Err(Error::new(Kind::Config, message));
        }
        if !(0.0..=f64::INFINITY).contains(&self.answers.temperature_max) {
            let message =
                format!("answers.temperature_max must be at least 0, got {}", self.answers.temperature_max);
            return Err(Error::new(Kind::Config, message));
        }
        for (name, beta) in [
            ("answers.early_refresh_beta", self.answers.early_refresh_beta),
            ("objects.early_refresh_beta", self.objects.early_refresh_beta),
        ] {
            if !(0.0..=EARLY_REFRESH_BETA_MAX).contains(&beta) {
                let message = format!("{name} must be 0 to {EARLY_REFRESH_BETA_MAX}, got {beta}");
                return Err(Error::new(Kind::Config, message));
            }
        }
        self.answers.semantic.validate()?;
        at_most("answers.ignored_members", self.answers.ignored_members.len() as u64, IGNORED_MEMBERS_MAX)?;
        at_most("answers.concurrent_refreshes_max", self.answers.concurrent_refreshes_max as u64, 1 << 20)?;
        let has_keys = !self.http.api_keys.is_empty() || self.http.api_keys_file.is_some();
        if has_keys && self.upstream.forwards_any_client_key() {
            let message = "upstream.forward_client_key must be false with http.api_keys: the keys of clients are keys of this \
                           server";
            return Err(Error::new(Kind::Config, message));
        }
        let namespaces = cache::Namespaces::new(&self.cache.namespaces, self.cache.allow_unknown_namespaces)?;
        service::answers::check_cached_routes(&self.answers.routes, &namespaces)?;
        http::check_cached_paths(&self.answers.routes)
    }
}

impl Overrides {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        [
            ("http.listen", self.listen.clone()),
            ("data.dir", self.data_dir.as_ref().map(path)),
            ("model.dir", self.model.as_ref().map(path)),
            ("upstream.base_url", self.upstream.clone()),
            ("redis.url", self.redis.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

fn at_least(key: &'static str, value: u64, min: u64) -> Result<()> {
    if value >= min {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("{key} must be at least {min}, got {value}")))
}

fn at_most(key: &'static str, value: u64, max: u64) -> Result<()> {
    if value <= max {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("{key} must be at most {max}, got {value}")))
}

fn bad_value(error: config::ConfigError) -> Error {
    Error::new(Kind::Config, "cannot read the configuration").source(error)
}

/// Refuses keys that no module defines.
fn refuse_unknown(merged: &config::Config) -> Result<()> {
    let known = known_keys();
    let given: serde_json::Value = merged.clone().try_deserialize().map_err(bad_value)?;
    let mut keys = BTreeSet::new();
    collect_keys("", &given, &mut keys);
    for given in keys {
        let (key, namespace) = as_of_default_namespace(&given);
        if known.iter().any(|known| *known == key || known.starts_with(&format!("{key}."))) {
            continue;
        }
        let nearest = known
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, &key).total_cmp(&strsim::jaro_winkler(b, &key)))
            .map_or("", String::as_str);
        let nearest = match (nearest.strip_prefix(DEFAULT_NAMESPACE), namespace) {
            (Some(last), Some(namespace)) => format!("{NAMESPACES}{namespace}.{last}"),
            _ => nearest.to_owned(),
        };
        return Err(Error::new(Kind::Config, format!("unknown key `{given}`; did you mean `{nearest}`?")));
    }
    Ok(())
}

const NAMESPACES: &str = "cache.namespaces.";
const DEFAULT_NAMESPACE: &str = "cache.namespaces.default.";

/// The key of the same option of the namespace `default`, and the namespace's own name. Operators may choose any name for
/// a namespace, and each namespace takes the options of `default`.
fn as_of_default_namespace(key: &str) -> (String, Option<&str>) {
    match key.strip_prefix(NAMESPACES).and_then(|rest| rest.rsplit_once('.')) {
        Some((namespace, last)) => (format!("{DEFAULT_NAMESPACE}{last}"), Some(namespace)),
        None => (key.to_owned(), None),
    }
}

/// Every key with its default, as the modules declare them.
fn known_keys() -> BTreeSet<String> {
    let defaults =
        serde_json::to_value(Config::default()).expect("options are made of plain values: this is a bug");
    let mut keys = BTreeSet::new();
    collect_keys("", &defaults, &mut keys);
    keys
}

fn collect_keys(prefix: &str, value: &serde_json::Value, keys: &mut BTreeSet<String>) {
    let Some(fields) = value.as_object().filter(|fields| prefix.is_empty() || !fields.is_empty()) else {
        keys.insert(prefix.to_owned());
        return;
    };
    for (name, value) in fields {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        collect_keys(&key, value, keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        fs_err::write(file.path(), text).unwrap();
        Config::load(Some(file.path()), &Overrides::default())
    }

    #[test]
    fn invalidated_tags_fit_beside_the_entries() {
        let machine = cache::Machine { total: 1 << 40, available: 1 << 40 };
        let tags_max = |bytes, invalidated_tags_max| {
            let memory = cache::MemoryOptions { budget: cache::Budget::Bytes(bytes), ..Default::default() };
            CacheConfig { memory, invalidated_tags_max, ..CacheConfig::default() }.tags_max(&machine)
        };
        assert_eq!(tags_max(512 << 20, 1_000_000), 1_000_000, "the defaults");
        assert_eq!(tags_max(64 << 20, 1_000_000), 131_072);
        assert_eq!(tags_max(64 << 20, 5_000), 5_000);
        assert_eq!(tags_max(1 << 16, 5_000), TAGS_MIN);
    }

    #[test]
    fn the_documented_example_is_the_default() {
        let example = load(include_str!("../examples/config.toml")).unwrap();
        assert_eq!(example, Config::default());
    }

    #[test]
    fn every_key_is_documented_in_the_example() {
        let example = include_str!("../examples/config.toml");
        for key in known_keys() {
            let name = key.rsplit('.').next().unwrap();
            assert!(example.contains(name), "examples/config.toml does not mention {key}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_nearest_named() {
        let error = load("[cache.memory]\nbudgt = 5").unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("did you mean `cache.memory.budget`"), "{error}");
    }

    #[test]
    fn a_wrong_type_and_a_value_out_of_range_name_their_key() {
        let error = load("[http]\nrequests_max = \"many\"").unwrap_err();
        assert!(error.to_string().contains("http.requests_max"), "{error}");
        let error = load("[http]\nrequests_max = 0").unwrap_err();
        assert!(error.to_string().contains("http.requests_max must be at least 1, got 0"), "{error}");
    }

    #[test]
    fn a_namespace_may_be_added_and_its_keys_are_checked() {
        let config = load("[cache.namespaces.shop]\nttl_seconds = 60\naliases = [\"tienda\"]").unwrap();
        assert_eq!(config.cache.namespaces["shop"].ttl_seconds, Some(60));
        let error = load("[cache.namespaces.shop]\nttl_second = 60").unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`cache.namespaces.shop.ttl_second`"), "{message}");
        assert!(message.contains("`cache.namespaces.shop.ttl_seconds`"), "{message}");
        let error = load("[cache.namespaces.products]\nttl_seconds = 0").unwrap_err();
        assert!(error.to_string().contains("cache.namespaces.products.ttl_seconds"), "{error}");
    }

    #[test]
    fn routes_and_prices_are_lists_whose_keys_are_checked() {
        let config = load(
            "[[upstream.routes]]\nmodels = [\"a\"]\nbase_urls = [\"http://a/v1\"]\n\
             [[upstream.prices]]\nmodels = [\"a\"]\nprompt_usd_per_million = 1.5",
        );
        let upstream = config.unwrap().upstream;
        assert_eq!((upstream.routes.len(), upstream.prices[0].prompt_usd_per_million), (1, 1.5));
        let error = load("[[upstream.routes]]\nmodel = \"a\"").unwrap_err();
        assert!(error.to_string().contains("model"), "{error}");
        let silent = "[upstream]\nbase_url = \"http://a/v1\"\n[http]\nrequest_timeout_seconds = 30";
        let error = load(silent).unwrap_err();
        assert!(error.to_string().contains("upstream.total_ms must be less"), "{error}");
        let error =
            load("[upstream]\nforward_client_key = true\n[http]\napi_keys = [\"secret-one\"]").unwrap_err();
        assert!(error.to_string().contains("upstream.forward_client_key"), "{error}");
    }

    #[test]
    fn the_list_prices_load_alone_and_behind_a_configuration() {
        let prices = include_str!("../examples/prices.toml");
        let listed = load(prices).unwrap().upstream.prices;
        let own = "[upstream]\nbase_url = \"http://a/v1\"\n[[upstream.prices]]\nmodels = [\"a\"]\n";
        let appended = load(&format!("{own}{prices}")).unwrap().upstream;
        assert_eq!((&appended.prices[1..], appended.prices[0].models[0].as_str()), (&listed[..], "a"));
        let mut known: Vec<&str> = Vec::new();
        for price in &listed {
            let (prompt, completion) = (price.prompt_usd_per_million, price.completion_usd_per_million);
            let (cached, written) =
                (price.cached_prompt_usd_per_million, price.written_prompt_usd_per_million);
            let is_embedding = completion == 0.0;
            assert!(prompt > 0.0 && (is_embedding || completion >= prompt), "{price:?}");
            assert!(cached.is_none_or(|cached| cached > 0.0 && cached <= prompt), "{price:?}");
            assert!(written.is_none_or(|written| written >= prompt && written <= 2.0 * prompt), "{price:?}");
            // Only the first entry that names a model counts.
            for name in &price.models {
                let names_it = |earlier: &str| match earlier.strip_suffix('*') {
                    Some(beginning) => name.starts_with(beginning),
                    None => name == earlier,
                };
                assert!(!known.iter().any(|earlier| names_it(earlier)), "{name} is listed twice");
            }
            known.extend(price.models.iter().map(String::as_str));
        }
    }

    #[test]
    fn cached_routes_are_checked() {
        let load_path =
            |path: &str| load(&format!("[[answers.routes]]\npath = \"{path}\"\nttl_seconds = 60"));
        let loaded = load_path("/v1/moderations").unwrap();
        assert_eq!(
            (loaded.answers.routes[0].path.as_str(), loaded.answers.routes[0].ttl_seconds),
            ("/v1/moderations", Some(60))
        );
        for own in ["/v1/embeddings", "/v1/cache/a/b", "/v1/answers/unknown", "/v1/models/m"] {
            let message = load_path(own).unwrap_err().to_string();
            assert!(message.contains("answers.routes[0].path") && message.contains(own), "{message}");
        }
        let error = load("[[answers.routes]]\npath = \"/v1/moderations\"").unwrap_err();
        assert!(error.to_string().contains("answers.routes[0].ttl_seconds"), "{error}");
        let error = load("[[answers.routes]]\nttl = 5").unwrap_err();
        assert!(error.to_string().contains("ttl"), "{error}");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(load("").unwrap(), Config::default());
    }

    #[test]
    fn flags_override_the_file() {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        fs_err::write(file.path(), "[http]\nlisten = \"127.0.0.1:1\"").unwrap();
        let overrides = Overrides { listen: Some("127.0.0.1:2".into()), ..Overrides::default() };
        let config = Config::load(Some(file.path()), &overrides).unwrap();
        assert_eq!(config.http.listen, "127.0.0.1:2");
    }
}
