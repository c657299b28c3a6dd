//! The fingerprint of a request, by which a remembered one that differs in one member is found without a comparison.

use std::hash::{BuildHasher as _, Hash, RandomState};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::request_identity::{IdentityParts, Json};

/// Members deeper than so are part of the member around them.
const DEPTH_MAX: usize = 5;
/// Members of a request that are distinguished; further ones are part of the member around them.
const NODES_MAX: usize = 96;

/// Hashes what fingerprints are made of, with a secret of this process.
#[derive(Debug)]
pub(super) struct LeafHasher {
    short: RandomState,
    seed: u64,
}

impl LeafHasher {
    pub(super) fn random() -> LeafHasher {
        let short = RandomState::new();
        let seed = short.hash_one("texts");
        LeafHasher { short, seed }
    }

    pub(super) fn of(&self, value: impl Hash) -> u64 {
        self.short.hash_one(value)
    }

    /// A request is mostly text, for which SipHash takes ten times as long.
    fn of_text(&self, text: &str) -> u64 {
        xxh3_64_with_seed(text.as_bytes(), self.seed)
    }
}

/// The fingerprint of a request.
///
/// Every leaf has a hash of its path and value, and a member the sum of the hashes within it. The sum of a request without that of one of
/// its members is the same for all requests that are equal but for this member, so that one lookup for each member finds them. Sums wrap.
#[derive(Debug, Clone)]
pub(super) struct RequestFingerprint {
    /// The sums of the request without one member each, the smallest members first, and the sum of the whole request.
    pub(super) rests: Vec<u64>,
    /// The sum without the question, if there is one: the request's scope.
    pub(super) scope: Option<u64>,
    /// The hash of the question alone.
    pub(super) question: Option<u64>,
    /// The sums of the members and of the question, in ascending order.
    members: Vec<u64>,
}

impl RequestFingerprint {
    /// The fingerprint of a request of the caller called `caller`.
    pub(super) fn of(hasher: &LeafHasher, caller: u64, parts: &IdentityParts<'_>) -> RequestFingerprint {
        let mut sums = Sums { hasher, nodes: Vec::new() };
        let scope = sums.of_value(caller, 0, &parts.scope);
        let of_question = |text| hasher.of((caller, "question", hasher.of_text(text)));
        let question = parts.question.as_ref().map(|question| of_question(&question.text));
        let total = scope.wrapping_add(question.unwrap_or_default());
        // Of the members that explain a miss the smallest says the most.
        sums.nodes.sort_unstable_by_key(|node| std::cmp::Reverse(node.depth));
        let mut rests: Vec<u64> = sums.nodes.iter().map(|node| total.wrapping_sub(node.sum)).collect();
        rests.push(total);
        let mut members: Vec<u64> = sums.nodes.iter().map(|node| node.sum).chain(question).collect();
        members.sort_unstable();
        RequestFingerprint { rests, scope: question.map(|_| scope), question, members }
    }

    /// How many members two requests have in common.
    pub(super) fn members_alike(&self, other: &RequestFingerprint) -> usize {
        let mut others = other.members.iter().peekable();
        let is_common = |member: &&u64| {
            while others.next_if(|other| other < member).is_some() {}
            others.next_if_eq(member).is_some()
        };
        self.members.iter().filter(is_common).count()
    }
}

struct MemberSum {
    depth: usize,
    sum: u64,
}

struct Sums<'h> {
    hasher: &'h LeafHasher,
    nodes: Vec<MemberSum>,
}

impl Sums<'_> {
    /// The sum of the hashes of the leaves of a value at `path`.
    fn of_value(&mut self, path: u64, depth: usize, value: &Json<'_>) -> u64 {
        match value {
            Json::Object(members) if !members.is_empty() => {
                members.iter().fold(0, |sum: u64, (name, value)| {
                    sum.wrapping_add(self.of_member(path, depth, &**name, value))
                })
            }
            Json::List(elements) if !elements.is_empty() => elements
                .iter()
                .enumerate()
                .fold(0, |sum: u64, (at, value)| sum.wrapping_add(self.of_member(path, depth, at, value))),
            Json::Null
            | Json::Bool(_)
            | Json::Integer(_)
            | Json::Float(_)
            | Json::Text(_)
            | Json::List(_)
            | Json::Object(_) => self.of_leaf(path, value),
        }
    }

    fn of_member(&mut self, path: u64, depth: usize, name: impl Hash, value: &Json<'_>) -> u64 {
        let sum = self.of_value(self.hasher.of((path, name)), depth + 1, value);
        if depth < DEPTH_MAX && self.nodes.len() < NODES_MAX {
            self.nodes.push(MemberSum { depth, sum });
        }
        sum
    }

    fn of_leaf(&self, path: u64, leaf: &Json<'_>) -> u64 {
        let hasher = self.hasher;
        match leaf {
            Json::Null => hasher.of((path, 0_u8)),
            Json::Bool(value) => hasher.of((path, 1_u8, value)),
            Json::Integer(number) => hasher.of((path, 2_u8, number)),
            Json::Float(number) => hasher.of((path, 3_u8, number.to_bits())),
            Json::Text(text) => hasher.of((path, 4_u8, hasher.of_text(text))),
            // Empty ones.
            Json::List(_) => hasher.of((path, 5_u8)),
            Json::Object(_) => hasher.of((path, 6_u8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hasher: &LeafHasher, scope: &str) -> RequestFingerprint {
        let scope = Json::parse(scope.as_bytes()).unwrap();
        RequestFingerprint::of(hasher, 1, &IdentityParts { scope, question: None })
    }

    #[test]
    fn requests_that_differ_in_one_member_have_a_rest_in_common() {
        let hasher = LeafHasher::random();
        let base = r#"{"a":1,"b":{"c":"x","d":[1,2]},"e":[{"f":1}]}"#;
        let base = of(&hasher, base);
        for near in [
            r#"{"a":2,"b":{"c":"x","d":[1,2]},"e":[{"f":1}]}"#,
            r#"{"b":{"c":"x","d":[1,2]},"e":[{"f":1}]}"#,
            r#"{"a":1,"b":{"c":"y","d":[1,2]},"e":[{"f":1}]}"#,
            r#"{"a":1,"b":{"c":"x","d":[1,2]},"e":[{"f":1},{"f":2}]}"#,
            r#"{"a":1,"b":{"c":"y","d":[2,1]},"e":[{"f":1}]}"#,
            r#"{"a":1,"b":{"c":"x","d":[1,2]},"e":[{"f":1}],"g":{}}"#,
        ] {
            let near = of(&hasher, near);
            assert!(near.rests.iter().any(|rest| base.rests.contains(rest)));
        }
        let far = of(&hasher, r#"{"a":2,"b":{"c":"y","d":[1,2]},"e":[{"f":1}]}"#);
        assert!(!far.rests.iter().any(|rest| base.rests.contains(rest)));
    }

    #[test]
    fn many_and_deep_members_are_bounded() {
        let hasher = LeafHasher::random();
        let many: Vec<String> = (0..1000).map(|n| format!("\"m{n}\":{n}")).collect();
        assert!(of(&hasher, &format!("{{{}}}", many.join(","))).rests.len() <= NODES_MAX + 1);
        let deep = "[".repeat(100) + "1" + &"]".repeat(100);
        assert!(of(&hasher, &deep).rests.len() <= DEPTH_MAX + 1);
    }
}
