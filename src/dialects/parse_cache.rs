//! What requests say that were read before.
//!
//! An application that asks the same asks it with the same bytes. Reading a body, ordering its members and hashing them
//! costs more than everything else that a hit does, so what was read is remembered under the bytes themselves, all of which
//! are compared. Tenants share no parsed request: the time of a response would show a tenant which bodies another one sends.
//! Requests with cache directives are not remembered: it may be that nothing of them is to be.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Dialect, ParsedRequest};
use crate::domain::TenantId;
use crate::error::Result;
use crate::request_identity::IdentityRules;

/// Places for bodies; one whose place is taken replaces what was there. With the longest bodies they are 40 MiB.
const PLACES: usize = 4096;
/// Longer bodies are read each time: they are whole conversations, and seldom come twice.
const BODY_BYTES_MAX: usize = 4096;

/// Requests that were read before. Readers never wait.
#[derive(Debug)]
pub struct ParseCache {
    places: Box<[ArcSwapOption<Parsed>]>,
    hasher: RandomState,
    dialect: &'static dyn Dialect,
    rules: IdentityRules,
}

#[derive(Debug)]
struct Parsed {
    tenant: TenantId,
    body: Box<[u8]>,
    request: Arc<ParsedRequest>,
}

impl ParseCache {
    /// An empty cache for requests of one dialect.
    pub fn new(dialect: &'static dyn Dialect, rules: IdentityRules) -> ParseCache {
        let places = (0..PLACES).map(|_| ArcSwapOption::empty()).collect();
        ParseCache { places, hasher: RandomState::new(), dialect, rules }
    }

    /// Parses a request without the cache.
    ///
    /// # Errors
    /// As [`Dialect::parse`].
    pub fn read_once(&self, body: &[u8]) -> Result<Arc<ParsedRequest>> {
        self.dialect.parse(body, &self.rules).map(Arc::new)
    }

    /// Parses a request, or returns what the same bytes of the tenant were parsed to.
    ///
    /// # Errors
    /// As [`Dialect::parse`]. What is faulty is not remembered.
    pub fn read(&self, tenant: &TenantId, body: &[u8]) -> Result<Arc<ParsedRequest>> {
        if body.len() > BODY_BYTES_MAX {
            return self.read_once(body);
        }
        let place = &self.places[self.hasher.hash_one((tenant, body)) as usize % PLACES];
        if let Some(parsed) = &*place.load()
            && *parsed.body == *body
            && parsed.tenant == *tenant
        {
            return Ok(Arc::clone(&parsed.request));
        }
        let request = self.read_once(body)?;
        if request.has_directives {
            return Ok(request);
        }
        place.store(Some(Arc::new(Parsed {
            tenant: tenant.clone(),
            body: body.into(),
            request: Arc::clone(&request),
        })));
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::chat_completions::ChatCompletions;

    fn body(question: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{question}"}}]}}"#)
    }

    fn own() -> TenantId {
        TenantId::default()
    }

    fn question(request: &ParsedRequest) -> &str {
        request.question.as_deref().unwrap()
    }

    #[test]
    fn equal_bytes_are_read_once_and_no_others_are_taken_for_them() {
        let cache = ParseCache::new(&ChatCompletions, IdentityRules::default());
        let first = cache.read(&own(), body("one").as_bytes()).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.read(&own(), body("one").as_bytes()).unwrap()));
        // More bodies than there are places: each place is replaced, and no body is taken for another.
        for n in 0..2 * PLACES {
            let words = format!("number {n}");
            assert_eq!(question(&cache.read(&own(), body(&words).as_bytes()).unwrap()), words);
        }
        assert_eq!(question(&cache.read(&own(), body("one").as_bytes()).unwrap()), "one");
    }

    #[test]
    fn tenants_share_no_parsed_request() {
        let cache = ParseCache::new(&ChatCompletions, IdentityRules::default());
        let acme = TenantId::named("acme").unwrap();
        let [ours, theirs] =
            [&own(), &acme].map(|tenant| cache.read(tenant, body("one").as_bytes()).unwrap());
        assert!(!Arc::ptr_eq(&ours, &theirs));
    }

    #[test]
    fn faults_long_bodies_and_directives_are_not_remembered() {
        let cache = ParseCache::new(&ChatCompletions, IdentityRules::default());
        for _ in 0..2 {
            assert_eq!(cache.read(&own(), b"{}").unwrap_err().param_name(), Some("model"));
        }
        let directed = body("a").replacen('{', r#"{"cache":{"no-store":true},"#, 1);
        for body in [body(&"a".repeat(BODY_BYTES_MAX)), directed] {
            let [one, two] = [(); 2].map(|()| cache.read(&own(), body.as_bytes()).unwrap());
            assert!(!Arc::ptr_eq(&one, &two) && one.question == two.question);
        }
    }
}
