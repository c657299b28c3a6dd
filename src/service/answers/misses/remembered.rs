//! The requests that are remembered, and the one that a request is nearest to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::fingerprint::RequestFingerprint;
use crate::domain::EntryMeta;
use crate::request_identity::{IdentityParts, QuestionPart};

/// Of so many that were remembered last one is looked for that resembles a request in more than one member.
const RECENT: usize = 32;
/// They are looked for among so many, those of other callers included.
const SEARCHED_MAX: usize = 512;
/// What an entry takes beside its bytes and keys.
const ENTRY_BYTES: usize = 256;
/// What a key takes: in its entry, and in the map, of which an eighth and up to half is free.
const KEY_BYTES: usize = 56;

/// Remembered requests, the oldest of which make room for new ones.
#[derive(Debug)]
pub(super) struct RememberedRequests {
    bytes_max: usize,
    /// What `entries` take.
    bytes: usize,
    /// The number of the first of `entries`.
    first: u64,
    entries: VecDeque<Remembered>,
    /// The last stored request by each of its rests, and by its question.
    by_rest: HashMap<u64, u64>,
    by_question: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Remembered {
    request: Arc<RememberedRequest>,
    /// What decides whether its answer may still be served. `None` until that is stored.
    answer: Option<EntryMeta>,
}

/// A remembered request.
#[derive(Debug)]
pub(super) struct RememberedRequest {
    /// Of the same callers only it is compared with others.
    caller: u64,
    fingerprint: RequestFingerprint,
    /// What its identity is made of.
    pub(super) parts: IdentityParts<'static>,
}

impl RememberedRequest {
    pub(super) fn new(
        caller: u64,
        fingerprint: RequestFingerprint,
        parts: IdentityParts<'_>,
    ) -> RememberedRequest {
        RememberedRequest { caller, fingerprint, parts: parts.into_owned() }
    }
}

impl Remembered {
    fn bytes(&self) -> usize {
        let RememberedRequest { fingerprint, parts, .. } = &*self.request;
        let question = |question: &QuestionPart<'_>| question.text.len() + question.path.len();
        let tags = self.answer.as_ref().map_or(0, |answer| size_of_val(&*answer.tags));
        ENTRY_BYTES
            + parts.scope.owned_bytes()
            + parts.question.as_ref().map_or(0, question)
            + (fingerprint.rests.len() + 2) * KEY_BYTES
            + tags
    }
}

impl RememberedRequests {
    pub(super) fn new(bytes_max: usize) -> RememberedRequests {
        RememberedRequests {
            bytes_max,
            bytes: 0,
            first: 0,
            entries: VecDeque::new(),
            by_rest: HashMap::new(),
            by_question: HashMap::new(),
        }
    }

    /// Remembers a request whose answer is not stored yet, and returns its number.
    pub(super) fn add(&mut self, request: RememberedRequest) -> u64 {
        let remembered = Remembered { request: Arc::new(request), answer: None };
        self.bytes += remembered.bytes();
        self.entries.push_back(remembered);
        self.make_room();
        self.first + self.entries.len() as u64 - 1
    }

    fn make_room(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.forget_keys(self.first, &oldest.request.fingerprint);
            self.first += 1;
        }
    }

    /// The answer to a request is stored: from now on others are compared with it.
    pub(super) fn stored(&mut self, number: u64, answer: EntryMeta) {
        let Some(at) = self.place(number) else { return };
        self.bytes -= self.entries[at].bytes();
        self.entries[at].answer = Some(answer);
        self.bytes += self.entries[at].bytes();
        let RequestFingerprint { rests, scope, question, .. } = &self.entries[at].request.fingerprint;
        rests.iter().chain(scope).for_each(|rest| _ = self.by_rest.insert(*rest, number));
        question.iter().for_each(|question| _ = self.by_question.insert(*question, number));
        self.make_room();
    }

    /// The stored request that another one of the same caller is nearest to: one that differs in one member other than the question, else
    /// one with the same question, else one that differs in the question alone, else the most alike of the last ones. Only a request whose
    /// answer `is_servable` is taken.
    pub(super) fn nearest(
        &self,
        caller: u64,
        fingerprint: &RequestFingerprint,
        is_servable: impl Fn(&EntryMeta) -> bool,
    ) -> Option<Arc<RememberedRequest>> {
        let is_live = |entry: &&Remembered| {
            entry.request.caller == caller && entry.answer.as_ref().is_some_and(&is_servable)
        };
        let live = |number: &u64| Some(&self.entries[self.place(*number)?]).filter(is_live);
        let in_one = |rests: &[u64]| rests.iter().find_map(|rest| live(self.by_rest.get(rest)?));
        let most_alike = || {
            let recent = self.entries.iter().rev().take(SEARCHED_MAX).filter(is_live).take(RECENT);
            recent.max_by_key(|entry| fingerprint.members_alike(&entry.request.fingerprint))
        };
        let nearest = in_one(&fingerprint.rests)
            .or_else(|| live(self.by_question.get(&fingerprint.question?)?))
            .or_else(|| in_one(&[fingerprint.scope?]))
            .or_else(most_alike);
        nearest.map(|entry| Arc::clone(&entry.request))
    }

    fn place(&self, number: u64) -> Option<usize> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    fn forget_keys(&mut self, number: u64, fingerprint: &RequestFingerprint) {
        let forget = |map: &mut HashMap<u64, u64>, key: u64| {
            if map.get(&key) == Some(&number) {
                map.remove(&key);
            }
        };
        fingerprint.rests.iter().chain(&fingerprint.scope).for_each(|key| forget(&mut self.by_rest, *key));
        fingerprint.question.iter().for_each(|key| forget(&mut self.by_question, *key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::LazyLock;

    use super::super::fingerprint::LeafHasher;
    use crate::domain::{Codec, UnixSeconds};
    use crate::request_identity::Json;

    const NOW: UnixSeconds = UnixSeconds(100);
    static HASHER: LazyLock<LeafHasher> = LazyLock::new(LeafHasher::random);

    /// Of an answer that may be served until then.
    fn until(expires: u32) -> EntryMeta {
        EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds(expires))
    }

    fn parts(scope: &str) -> IdentityParts<'_> {
        IdentityParts { scope: Json::parse(scope.as_bytes()).unwrap(), question: None }
    }

    fn remember(requests: &mut RememberedRequests, caller: u64, scope: &str) -> u64 {
        let fingerprint = RequestFingerprint::of(&HASHER, caller, &parts(scope));
        requests.add(RememberedRequest::new(caller, fingerprint, parts(scope)))
    }

    fn nearest(requests: &RememberedRequests, caller: u64, scope: &str) -> Option<String> {
        let fingerprint = RequestFingerprint::of(&HASHER, caller, &parts(scope));
        let nearest = requests.nearest(caller, &fingerprint, |answer| answer.expires > NOW)?;
        Some(String::from_utf8(nearest.parts.scope.canonical()).unwrap())
    }

    #[test]
    fn a_request_is_compared_with_stored_ones_of_its_caller() {
        let mut requests = RememberedRequests::new(1 << 20);
        let number = remember(&mut requests, 1, r#"{"a":1,"b":1}"#);
        let asked = r#"{"a":1,"b":2}"#;
        assert_eq!(nearest(&requests, 1, asked), None, "its answer is not stored yet");
        requests.stored(number, until(101));
        assert_eq!(nearest(&requests, 1, asked).unwrap(), r#"{"a":1,"b":1}"#);
        assert_eq!(nearest(&requests, 2, asked), None, "it is of another caller");
        requests.stored(number, until(100));
        assert_eq!(nearest(&requests, 1, asked), None, "its answer has expired");
    }

    #[test]
    fn one_other_member_is_nearer_than_two() {
        let mut requests = RememberedRequests::new(1 << 20);
        let near = r#"{"a":1,"b":1,"c":[1,2]}"#;
        let number = remember(&mut requests, 1, near);
        requests.stored(number, until(200));
        for n in 0..100 {
            let far = format!(r#"{{"a":1,"b":1,"c":[3,4],"d":{n}}}"#);
            let number = remember(&mut requests, 1, &far);
            requests.stored(number, until(200));
        }
        assert_eq!(nearest(&requests, 1, r#"{"a":1,"b":2,"c":[1,2]}"#).unwrap(), near);
        assert!(nearest(&requests, 1, r#"{"e":1,"b":1,"c":[3,4]}"#).unwrap().contains(r#""c":[3,4]"#));
    }

    #[test]
    fn old_requests_make_room_and_leave_nothing_behind() {
        let mut requests = RememberedRequests::new(100 * 1024);
        for n in 0..10_000 {
            let number = remember(&mut requests, 1, &format!(r#"{{"a":{n},"b":"{n}"}}"#));
            requests.stored(number, until(200));
        }
        assert!(requests.bytes <= 100 * 1024 && requests.entries.len() < 300);
        let keys: usize = requests.entries.iter().map(|entry| entry.request.fingerprint.rests.len()).sum();
        assert!(requests.by_rest.len() <= keys, "{} of {keys}", requests.by_rest.len());
        requests.stored(0, until(200));
        assert!(nearest(&requests, 1, r#"{"a":0,"b":"1"}"#).is_some(), "another recent one");
        let number = remember(&mut requests, 1, &format!(r#"{{"a":"{}"}}"#, "x".repeat(200 * 1024)));
        requests.stored(number, until(200));
        assert_eq!((requests.bytes, requests.entries.len(), requests.by_rest.len()), (0, 0, 0));
    }
}
