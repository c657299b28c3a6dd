//! Namespaces: families of entries with one policy each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::lookup_counters::{CounterId, LookupCounters, OutcomeCounters};
use crate::domain::{KeyHasher, NamespaceId, TenantId, TierName};
use crate::error::{Error, Kind, Result};
use crate::storage::Durability;

/// The namespace whose policy holds for names that have none.
const DEFAULT: &str = "default";
/// Where embeddings are, unless a request names another namespace.
pub const EMBEDDINGS: &str = "embeddings";
/// Where answers of language models are, unless a request names another namespace.
pub const LLM_RESPONSES: &str = "llm_responses";
/// Where results of searches are.
pub const SEARCH_RESULTS: &str = "search_results";
/// Bytes that a namespace's name may have.
const NAME_BYTES_MAX: usize = 128;

/// How values are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// Text of 1 KiB and more by Zstandard, where that saves an eighth or more.
    Zstd,
}

/// How lookups are answered while it is not known whether other nodes have changed or invalidated an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenUnverified {
    /// With a miss.
    Miss,
    /// With the entry, flagged as stale, for as long as the policy lets stale entries stand in for an origin that fails.
    Stale,
}

/// What holds for all entries of a namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Lifetime of an entry that asks for none.
    pub ttl_seconds: u32,
    /// The longest lifetime that an entry may ask for.
    pub ttl_seconds_max: u32,
    /// The share of its lifetime after which an entry is refreshed by one request while others are served it.
    pub soft_share: f64,
    /// The largest share by which a lifetime is shortened at random, so that entries made together do not end together.
    pub jitter_share: f64,
    /// How long an entry may be served after its end when the origin fails.
    pub stale_if_error_seconds: u32,
    /// Where entries are kept, in the order in which they are looked for. Redis is left out where none is configured.
    pub tiers: Vec<TierName>,
    /// What an acknowledged vector survives; the disk tier's own by default. Objects always survive a loss of power.
    pub durability: Option<Durability>,
    /// The longest value.
    pub value_bytes_max: usize,
    /// How values are compressed.
    pub compression: Compression,
    /// How lookups are answered while Redis is not reachable.
    pub unverified: WhenUnverified,
    /// Whether answers that call tools are stored. If absent, `answers.cache_tool_calls` decides.
    pub cache_tool_calls: Option<bool>,
    /// Whether answers that ended at the limit of tokens are stored. If absent, `answers.cache_truncated` decides.
    pub cache_truncated: Option<bool>,
}

/// What the configuration says of a namespace. What it leaves out is as by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyOptions {
    /// Other names of the namespace.
    pub aliases: Vec<String>,
    /// See [`Policy::ttl_seconds`].
    pub ttl_seconds: Option<u32>,
    /// See [`Policy::ttl_seconds_max`].
    pub ttl_seconds_max: Option<u32>,
    /// See [`Policy::soft_share`].
    pub soft_share: Option<f64>,
    /// See [`Policy::jitter_share`].
    pub jitter_share: Option<f64>,
    /// See [`Policy::stale_if_error_seconds`].
    pub stale_if_error_seconds: Option<u32>,
    /// See [`Policy::tiers`].
    pub tiers: Option<Vec<TierName>>,
    /// See [`Policy::durability`].
    pub durability: Option<Durability>,
    /// See [`Policy::value_bytes_max`].
    pub value_bytes_max: Option<usize>,
    /// See [`Policy::compression`].
    pub compression: Option<Compression>,
    /// See [`Policy::unverified`].
    pub unverified: Option<WhenUnverified>,
    /// See [`Policy::cache_tool_calls`].
    pub cache_tool_calls: Option<bool>,
    /// See [`Policy::cache_truncated`].
    pub cache_truncated: Option<bool>,
}

/// A namespace of a tenant.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its own name, never an alias.
    pub name: Arc<str>,
    /// Its tenant and name, as entries and invalidations name them.
    pub id: NamespaceId,
    /// What holds for its entries.
    pub policy: Arc<Policy>,
}

/// All namespaces. Shared by `Arc`.
#[derive(Debug)]
pub struct Namespaces {
    known: HashMap<Arc<str>, Arc<Policy>>,
    aliases: HashMap<String, Arc<str>>,
    /// For names that have no policy of their own; none where such names are refused.
    unknown: Option<Arc<Policy>>,
    lookups: LookupCounters,
}

impl Policy {
    /// The built-in policy of a name, if it has one.
    fn built_in(name: &str) -> Option<Policy> {
        let object = Policy {
            ttl_seconds: 3600,
            ttl_seconds_max: 30 * 86_400,
            soft_share: 0.9,
            jitter_share: 0.05,
            stale_if_error_seconds: 600,
            tiers: vec![TierName::Memory, TierName::Redis, TierName::Disk],
            durability: None,
            value_bytes_max: 1 << 20,
            compression: Compression::Zstd,
            unverified: WhenUnverified::Stale,
            cache_tool_calls: None,
            cache_truncated: None,
        };
        // An embedding is immutable under its key: it does not grow stale, and no origin is flooded when many end.
        let lasting = Policy {
            soft_share: 1.0,
            jitter_share: 0.0,
            stale_if_error_seconds: 0,
            tiers: vec![TierName::Memory, TierName::Disk, TierName::Redis],
            compression: Compression::None,
            ..object.clone()
        };
        match name {
            DEFAULT | "products" => Some(object),
            EMBEDDINGS => Some(Policy { ttl_seconds: 86_400, ..lasting }),
            LLM_RESPONSES => Some(Policy { ttl_seconds: 1800, stale_if_error_seconds: 1800, ..object }),
            SEARCH_RESULTS => Some(Policy { ttl_seconds: 600, tiers: vec![TierName::Memory], ..lasting }),
            _ => None,
        }
    }

    fn with(self, options: &PolicyOptions) -> Policy {
        Policy {
            ttl_seconds: options.ttl_seconds.unwrap_or(self.ttl_seconds),
            ttl_seconds_max: options.ttl_seconds_max.unwrap_or(self.ttl_seconds_max),
            soft_share: options.soft_share.unwrap_or(self.soft_share),
            jitter_share: options.jitter_share.unwrap_or(self.jitter_share),
            stale_if_error_seconds: options.stale_if_error_seconds.unwrap_or(self.stale_if_error_seconds),
            tiers: options.tiers.clone().unwrap_or(self.tiers),
            durability: options.durability.or(self.durability),
            value_bytes_max: options.value_bytes_max.unwrap_or(self.value_bytes_max),
            compression: options.compression.unwrap_or(self.compression),
            unverified: options.unverified.unwrap_or(self.unverified),
            cache_tool_calls: options.cache_tool_calls.or(self.cache_tool_calls),
            cache_truncated: options.cache_truncated.or(self.cache_truncated),
        }
    }

    fn validate(&self, name: &str) -> Result<()> {
        let fault = |key: &str, rule: &str| {
            Err(Error::new(Kind::Config, format!("cache.namespaces.{name}.{key} must be {rule}")))
        };
        if self.ttl_seconds == 0 || self.ttl_seconds > self.ttl_seconds_max {
            return fault("ttl_seconds", "at least 1 and at most ttl_seconds_max");
        }
        if !(0.0..=1.0).contains(&self.soft_share) {
            return fault("soft_share", "from 0 to 1");
        }
        if !(0.0..=0.5).contains(&self.jitter_share) {
            return fault("jitter_share", "from 0 to 0.5");
        }
        let is_repeated = |(at, tier)| self.tiers[..at].contains(tier);
        let memory = self.tiers.iter().position(|&tier| tier == TierName::Memory);
        if self.tiers.is_empty()
            || memory.is_some_and(|at| at > 0)
            || self.tiers.iter().enumerate().any(is_repeated)
        {
            return fault("tiers", "some of \"memory\", \"disk\" and \"redis\", each once, memory first");
        }
        if self.value_bytes_max == 0 {
            return fault("value_bytes_max", "at least 1");
        }
        Ok(())
    }

    /// Whether entries are kept in `tier`.
    pub fn uses(&self, tier: TierName) -> bool {
        self.tiers.contains(&tier)
    }
}

impl PolicyOptions {
    fn spelled_out(aliases: &[&str], policy: Policy) -> PolicyOptions {
        PolicyOptions {
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            ttl_seconds: Some(policy.ttl_seconds),
            ttl_seconds_max: Some(policy.ttl_seconds_max),
            soft_share: Some(policy.soft_share),
            jitter_share: Some(policy.jitter_share),
            stale_if_error_seconds: Some(policy.stale_if_error_seconds),
            tiers: Some(policy.tiers),
            durability: policy.durability,
            value_bytes_max: Some(policy.value_bytes_max),
            compression: Some(policy.compression),
            unverified: Some(policy.unverified),
            cache_tool_calls: policy.cache_tool_calls,
            cache_truncated: policy.cache_truncated,
        }
    }

    /// The built-in namespaces.
    pub fn built_in() -> BTreeMap<String, PolicyOptions> {
        [DEFAULT, "products", EMBEDDINGS, LLM_RESPONSES, SEARCH_RESULTS]
            .into_iter()
            .filter_map(|name| {
                let aliases: &[&str] = if name == "products" { &["productos"] } else { &[] };
                Some((name.to_owned(), PolicyOptions::spelled_out(aliases, Policy::built_in(name)?)))
            })
            .collect()
    }
}

impl Namespaces {
    /// The namespaces of `options`, which change what is built in; names without a policy are served by that of
    /// `default` if `is_open`, and refused otherwise.
    ///
    /// # Errors
    /// `Config` for values out of range and for a name that two namespaces claim.
    pub fn new(options: &BTreeMap<String, PolicyOptions>, is_open: bool) -> Result<Namespaces> {
        let built_in = PolicyOptions::built_in();
        let nothing = PolicyOptions::default();
        let base = Policy::built_in(DEFAULT).expect("the default is built in: this is a bug");
        let base = base.with(options.get(DEFAULT).unwrap_or(&nothing));
        let mut known: HashMap<Arc<str>, Arc<Policy>> = HashMap::new();
        for name in built_in.keys().chain(options.keys()) {
            check_name(name)
                .map_err(|error| Error::new(Kind::Config, "cannot read cache.namespaces").source(error))?;
            let policy = Policy::built_in(name).unwrap_or_else(|| base.clone());
            let policy = policy.with(options.get(name).unwrap_or(&nothing));
            policy.validate(name)?;
            known.insert(name.as_str().into(), Arc::new(policy));
        }
        let mut aliases = HashMap::new();
        for (name, said) in built_in.iter().filter(|(name, _)| !options.contains_key(*name)).chain(options) {
            for alias in &said.aliases {
                if known.contains_key(alias.as_str())
                    || aliases.insert(alias.clone(), name.as_str().into()).is_some()
                {
                    let message =
                        format!("cache.namespaces.{name}.aliases: `{alias}` is another namespace's name");
                    return Err(Error::new(Kind::Config, message));
                }
            }
        }
        let lookups = LookupCounters::default();
        for name in known.keys() {
            // From the start on, so that no other name takes its place.
            lookups.of(CounterId::of_namespace(NamespaceId::of(&TenantId::default(), name)), name);
        }
        Ok(Namespaces { known, aliases, unknown: is_open.then(|| Arc::new(base)), lookups })
    }

    /// The namespace called `name`, or that of which it is an alias.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be a name, `NotFound` for one without a policy where namespaces are closed.
    pub fn resolve(&self, tenant: &TenantId, name: &str) -> Result<Namespace> {
        check_name(name)?;
        let name = self.aliases.get(name).map_or(name, |own| own);
        let (name, policy) = match self.known.get_key_value(name) {
            Some((name, policy)) => (Arc::clone(name), policy),
            None => (Arc::from(name), self.unknown.as_ref().ok_or_else(|| unknown(name))?),
        };
        let id = NamespaceId::of(tenant, &name);
        Ok(Namespace { name, id, policy: Arc::clone(policy) })
    }

    /// The namespace of entries that were found in memory. One without a policy of its own has the name of the default one. `None`
    /// if such namespaces are refused.
    pub fn of_id(&self, id: NamespaceId, is_of_embeddings: bool) -> Option<Namespace> {
        let has_id = |name: &str| NamespaceId::of(&TenantId::default(), name) == id;
        let (name, policy) = match self.known.iter().find(|(name, _)| has_id(name)) {
            Some((name, policy)) => (Arc::clone(name), policy),
            None if is_of_embeddings => (DEFAULT.into(), &self.known[EMBEDDINGS]),
            None => (DEFAULT.into(), self.unknown.as_ref()?),
        };
        Some(Namespace { name, id, policy: Arc::clone(policy) })
    }

    /// Of the tiers of all namespaces: another number if entries of one of them are kept elsewhere.
    pub(super) fn tiers_hash(&self) -> u64 {
        let mut known: Vec<(&str, &Policy)> =
            self.known.iter().map(|(name, policy)| (&**name, &**policy)).collect();
        known.sort_unstable_by_key(|(name, _)| *name);
        let mut hasher = KeyHasher::new("likewise/namespace-tiers/v1");
        // No name of a namespace is empty.
        for (name, policy) in known.into_iter().chain(self.unknown.as_deref().map(|policy| ("", policy))) {
            let tiers: Vec<&str> = policy.tiers.iter().map(|tier| tier.as_str()).collect();
            hasher.field(name.as_bytes()).field(tiers.join(",").as_bytes());
        }
        hasher.finish().prefix()
    }

    /// Counts the lookups in a namespace.
    pub fn lookups_in(&self, namespace: &Namespace) -> &OutcomeCounters {
        self.lookups.of(CounterId::of_namespace(namespace.id), &namespace.name)
    }

    /// The lookups in each namespace.
    pub fn lookups(&self) -> &LookupCounters {
        &self.lookups
    }

    /// The names of the namespaces that have a policy of their own, in no order, with their aliases.
    pub fn declared(&self) -> impl Iterator<Item = (Arc<str>, Vec<String>)> {
        self.known.keys().map(|name| {
            let is_own = |alias: &(&String, &Arc<str>)| alias.1 == name;
            let mut aliases: Vec<String> =
                self.aliases.iter().filter(is_own).map(|(alias, _)| alias.clone()).collect();
            aliases.sort();
            (Arc::clone(name), aliases)
        })
    }

    /// The namespace of embeddings that a request names; one without a policy of its own is kept as embeddings are.
    ///
    /// # Errors
    /// As [`Namespaces::resolve`].
    pub fn of_embeddings(&self, tenant: &TenantId, name: Option<&str>) -> Result<Namespace> {
        self.of_family(tenant, name, EMBEDDINGS)
    }

    /// The namespace of answers that a request names; one without a policy of its own is kept as answers are.
    ///
    /// # Errors
    /// As [`Namespaces::resolve`].
    pub fn of_answers(&self, tenant: &TenantId, name: Option<&str>) -> Result<Namespace> {
        self.of_family(tenant, name, LLM_RESPONSES)
    }

    fn of_family(&self, tenant: &TenantId, name: Option<&str>, family: &str) -> Result<Namespace> {
        let mut namespace = self.resolve(tenant, name.unwrap_or(family))?;
        if !self.known.contains_key(&namespace.name) {
            namespace.policy = Arc::clone(&self.known[family]);
        }
        Ok(namespace)
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    let message =
        format!("a namespace has 1 to {NAME_BYTES_MAX} bytes, without spaces and control characters");
    Err(Error::invalid("namespace", message))
}

fn unknown(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no namespace `{name}`")).param("namespace")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(is_open: bool) -> Namespaces {
        let shop = PolicyOptions {
            aliases: vec!["tienda".into()],
            ttl_seconds: Some(5),
            ..PolicyOptions::default()
        };
        Namespaces::new(&BTreeMap::from([("shop".to_owned(), shop)]), is_open).unwrap()
    }

    #[test]
    fn an_alias_is_the_namespace_itself() {
        let tenant = TenantId::default();
        let namespaces = namespaces(false);
        let products = namespaces.resolve(&tenant, "products").unwrap();
        let productos = namespaces.resolve(&tenant, "productos").unwrap();
        assert_eq!((&products.name, products.id), (&productos.name, productos.id));
        let shop = namespaces.resolve(&tenant, "tienda").unwrap();
        assert_eq!((&*shop.name, shop.policy.ttl_seconds), ("shop", 5));
        assert_eq!(shop.policy.stale_if_error_seconds, 600, "what is left out is as by default");
    }

    #[test]
    fn an_unknown_namespace_is_served_by_default_or_refused() {
        let tenant = TenantId::default();
        assert_eq!(namespaces(true).resolve(&tenant, "new").unwrap().policy.ttl_seconds, 3600);
        let refused = namespaces(false).resolve(&tenant, "new").unwrap_err();
        assert_eq!((refused.kind(), refused.param_name()), (Kind::NotFound, Some("namespace")));
        for bad in ["", "a b", "a\n", &"x".repeat(129)] {
            assert_eq!(namespaces(true).resolve(&tenant, bad).unwrap_err().kind(), Kind::InvalidInput);
        }
    }

    #[test]
    fn the_hash_of_tiers_changes_with_a_tier_and_with_nothing_else() {
        let hash = |options: PolicyOptions, is_open| {
            let options = BTreeMap::from([("products".to_owned(), options)]);
            Namespaces::new(&options, is_open).unwrap().tiers_hash()
        };
        let none = PolicyOptions::default;
        let as_built_in = hash(none(), true);
        assert_eq!(as_built_in, hash(PolicyOptions { ttl_seconds: Some(7), ..none() }, true));
        assert_ne!(as_built_in, hash(PolicyOptions { tiers: Some(vec![TierName::Disk]), ..none() }, true));
        assert_ne!(as_built_in, hash(none(), false));
    }

    #[test]
    fn a_policy_out_of_range_names_its_key() {
        let refused = |options: PolicyOptions| {
            let error = Namespaces::new(&BTreeMap::from([("shop".to_owned(), options)]), true).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            error.to_string()
        };
        let none = PolicyOptions::default;
        assert!(refused(PolicyOptions { ttl_seconds: Some(0), ..none() }).contains("shop.ttl_seconds"));
        assert!(refused(PolicyOptions { soft_share: Some(1.5), ..none() }).contains("shop.soft_share"));
        assert!(refused(PolicyOptions { jitter_share: Some(f64::NAN), ..none() }).contains("jitter_share"));
        let tiers = Some(vec![TierName::Disk, TierName::Memory]);
        assert!(refused(PolicyOptions { tiers, ..none() }).contains("shop.tiers"));
        assert!(refused(PolicyOptions { aliases: vec!["products".into()], ..none() }).contains("aliases"));
    }
}
