//! Headers by which clients of other caches say what they want of the cache, where that is said here too.
//!
//! The table [`HEADERS`] is also in `docs/reference/headers.md`, with the source of each row. A header that is not in it means nothing
//! here.

use axum::http::HeaderMap;

use super::headers;
use crate::error::{Error, Result};
use crate::service::Directives;

/// A header of another cache.
struct OtherHeader {
    name: &'static str,
    meaning: Meaning,
}

/// How its value is read.
enum Meaning {
    /// The lifetime of what is stored, in whole seconds. More than is allowed here is as much as is allowed.
    Lifetime,
    /// A word, in any case.
    Words(&'static [(&'static str, CacheUse)]),
    /// The identity of the answer.
    Key,
}

/// How a request uses the cache.
#[derive(Clone, Copy)]
enum CacheUse {
    ReadAndStore,
    ReadOnly,
    StoreOnly,
    None,
}

const ENABLED: &[(&str, CacheUse)] = &[("true", CacheUse::ReadAndStore), ("false", CacheUse::None)];
const SKIPPED: &[(&str, CacheUse)] = &[("true", CacheUse::None), ("false", CacheUse::ReadAndStore)];
const REFRESHED: &[(&str, CacheUse)] = &[("true", CacheUse::StoreOnly), ("false", CacheUse::ReadAndStore)];
const MODES: &[(&str, CacheUse)] = &[
    ("readWrite", CacheUse::ReadAndStore),
    ("readOnly", CacheUse::ReadOnly),
    ("writeOnly", CacheUse::StoreOnly),
    ("off", CacheUse::None),
];
/// The older name of the same also takes flags.
const MODES_AND_FLAGS: &[(&str, CacheUse)] = &[
    ("readWrite", CacheUse::ReadAndStore),
    ("readOnly", CacheUse::ReadOnly),
    ("writeOnly", CacheUse::StoreOnly),
    ("true", CacheUse::ReadAndStore),
    ("false", CacheUse::None),
];

const HEADERS: [OtherHeader; 12] = [
    // Cloudflare's AI Gateway. Two have an older name that still works there.
    OtherHeader { name: "cf-aig-cache-ttl", meaning: Meaning::Lifetime },
    OtherHeader { name: "cf-cache-ttl", meaning: Meaning::Lifetime },
    OtherHeader { name: "cf-aig-skip-cache", meaning: Meaning::Words(SKIPPED) },
    OtherHeader { name: "cf-skip-cache", meaning: Meaning::Words(SKIPPED) },
    OtherHeader { name: "cf-aig-cache-key", meaning: Meaning::Key },
    // Helicone. There the cache is off without it, here it is on.
    OtherHeader { name: "helicone-cache-enabled", meaning: Meaning::Words(ENABLED) },
    // Portkey.
    OtherHeader { name: "x-portkey-cache-force-refresh", meaning: Meaning::Words(REFRESHED) },
    // OpenRouter.
    OtherHeader { name: "x-openrouter-cache", meaning: Meaning::Words(ENABLED) },
    OtherHeader { name: "x-openrouter-cache-ttl", meaning: Meaning::Lifetime },
    OtherHeader { name: "x-openrouter-cache-clear", meaning: Meaning::Words(REFRESHED) },
    // Weights & Biases, and OpenPipe before.
    OtherHeader { name: "wandb-cache-mode", meaning: Meaning::Words(MODES) },
    OtherHeader { name: "op-cache", meaning: Meaning::Words(MODES_AND_FLAGS) },
];

/// Adds the headers of other caches to `directives`. If several speak, the stricter holds.
///
/// # Errors
/// `InvalidInput` naming a header that cannot be read, is given twice, or names another key than a header before it.
pub(in crate::http) fn apply(headers: &HeaderMap, directives: &mut Directives) -> Result<()> {
    // Most requests have few headers, and none of these.
    for name in headers.keys() {
        if let Some(known) = HEADERS.iter().find(|known| known.name == name.as_str()) {
            known.apply(headers, directives)?;
        }
    }
    Ok(())
}

/// Whether one of the headers says that nothing of the request is stored.
pub(in crate::http) fn forbid_storing(headers: &HeaderMap) -> bool {
    let mut directives = Directives::default();
    apply(headers, &mut directives).is_ok_and(|()| directives.no_store)
}

impl OtherHeader {
    fn apply(&self, headers: &HeaderMap, directives: &mut Directives) -> Result<()> {
        match self.meaning {
            Meaning::Lifetime => {
                let Some(seconds) = headers::seconds(headers, self.name)? else { return Ok(()) };
                let before = directives.lenient_ttl_seconds.unwrap_or(u32::MAX);
                directives.lenient_ttl_seconds = Some(before.min(seconds));
            }
            Meaning::Words(words) => {
                let Some(text) = headers::text(headers, self.name)? else { return Ok(()) };
                let known = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
                let (_, cache_use) = known.ok_or_else(|| self.unknown_word(words, text))?;
                cache_use.apply(directives);
            }
            Meaning::Key => {
                let Some(key) = headers::cache_key(headers, self.name)? else { return Ok(()) };
                if directives.cache_key.as_ref().is_some_and(|before| *before != key) {
                    let message =
                        format!("the header {} names another key than a header before it", self.name);
                    return Err(Error::invalid(self.name, message));
                }
                directives.cache_key = Some(key);
            }
        }
        Ok(())
    }

    fn unknown_word(&self, words: &[(&str, CacheUse)], text: &str) -> Error {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("the header {} must be one of {}, got {text:?}", self.name, words.join(", "));
        Error::invalid(self.name, message)
    }
}

impl CacheUse {
    fn apply(self, directives: &mut Directives) {
        match self {
            CacheUse::ReadAndStore => {}
            CacheUse::ReadOnly => directives.no_store = true,
            CacheUse::StoreOnly => directives.no_cache = true,
            CacheUse::None => (directives.no_cache, directives.no_store) = (true, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn read(lines: &[(&'static str, &'static str)]) -> Result<Directives> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut directives = Directives::default();
        apply(&headers, &mut directives).map(|()| directives)
    }

    #[test]
    fn each_header_means_what_it_means_to_its_own_cache() {
        // Whether the cache is read, and whether the answer is stored.
        for (name, value, reads, stores) in [
            ("cf-aig-skip-cache", "true", false, false),
            ("cf-aig-skip-cache", "false", true, true),
            ("cf-skip-cache", "true", false, false),
            ("helicone-cache-enabled", "true", true, true),
            ("helicone-cache-enabled", "False", false, false),
            ("x-portkey-cache-force-refresh", "True", false, true),
            ("x-portkey-cache-force-refresh", "false", true, true),
            ("x-openrouter-cache", "true", true, true),
            ("x-openrouter-cache", "false", false, false),
            ("x-openrouter-cache-clear", "true", false, true),
            ("wandb-cache-mode", "readWrite", true, true),
            ("wandb-cache-mode", "readOnly", true, false),
            ("wandb-cache-mode", "writeOnly", false, true),
            ("wandb-cache-mode", "off", false, false),
            ("op-cache", "true", true, true),
            ("op-cache", "false", false, false),
            ("helicone-cache-seed", "a", true, true),
            ("x-portkey-cache", "simple", true, true),
        ] {
            let said = read(&[(name, value)]).unwrap();
            assert_eq!((!said.no_cache, !said.no_store), (reads, stores), "{name}: {value}");
        }
        for name in ["cf-aig-cache-ttl", "cf-cache-ttl", "x-openrouter-cache-ttl"] {
            let ttl = |value| read(&[(name, value)]).unwrap().lenient_ttl_seconds;
            assert_eq!((ttl("3600"), ttl("99999999999")), (Some(3600), Some(u32::MAX)), "{name}");
        }
        assert_eq!(read(&[("cf-aig-cache-key", "a b")]).unwrap_err().param_name(), Some("cf-aig-cache-key"));
        let key = read(&[("cf-aig-cache-key", "responseA")]).unwrap().cache_key;
        assert_eq!(key.as_deref(), Some("responseA"));
    }

    #[test]
    fn if_several_speak_the_stricter_holds() {
        let said = read(&[
            ("x-openrouter-cache", "true"),
            ("x-openrouter-cache-ttl", "90"),
            ("cf-aig-cache-ttl", "60"),
            ("x-portkey-cache-force-refresh", "true"),
            ("wandb-cache-mode", "readOnly"),
        ])
        .unwrap();
        assert_eq!((said.no_cache, said.no_store, said.lenient_ttl_seconds), (true, true, Some(60)));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_a_fault_of_its_header() {
        for (name, value) in [
            ("cf-aig-cache-ttl", "0"),
            ("cf-aig-cache-ttl", "1h"),
            ("cf-aig-cache-ttl", "-1"),
            ("x-openrouter-cache-ttl", ""),
            ("cf-aig-skip-cache", "yes"),
            ("cf-aig-cache-key", ""),
            ("helicone-cache-enabled", "1"),
            ("x-portkey-cache-force-refresh", ""),
            ("x-openrouter-cache", "on"),
            ("wandb-cache-mode", "read"),
        ] {
            assert_eq!(read(&[(name, value)]).unwrap_err().param_name(), Some(name), "{value:?}");
        }
        let twice = read(&[("x-openrouter-cache", "true"), ("x-openrouter-cache", "true")]);
        assert_eq!(twice.unwrap_err().param_name(), Some("x-openrouter-cache"));
    }

    #[test]
    fn the_reference_lists_every_header() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/headers.md");
        let page = fs_err::read_to_string(page).unwrap().to_ascii_lowercase();
        for OtherHeader { name, .. } in &HEADERS {
            let is_listed = page.contains(&format!("`{name}`"));
            assert!(is_listed, "docs/reference/headers.md does not list {name}");
        }
    }
}
