//! In which members two requests differ.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use super::json::Json;
use super::parts::IdentityParts;

/// Longer lists are not searched for each other's elements.
const REORDERED_MAX: usize = 32;
/// Objects with more members are searched by a map of their names.
const SEARCHED_MAX: usize = 8;
/// The longest path, in bytes; the rest of a longer one is an ellipsis.
const PATH_BYTES_MAX: usize = 200;
/// The longest name of a member that is written whole, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A member in which two requests differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDifference {
    /// Its path, such as `messages[0].content`, in visible ASCII: other letters of names are percent-encoded.
    pub path: String,
    /// How many letters two texts begin with alike.
    pub place: Option<usize>,
    /// Whether it is the question.
    pub is_question: bool,
}

/// The members in which two requests differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MemberDifferences {
    /// The first of them: those of the scope in the order of their names, and the question behind them.
    pub named: Vec<MemberDifference>,
    /// Whether these are all.
    pub is_complete: bool,
}

/// The members in which `one` differs from `two`, of which at most so many are named. Cost: reads both once, and each list of up to 32
/// elements so many times more.
pub fn differences(one: &IdentityParts<'_>, two: &IdentityParts<'_>, count_max: usize) -> MemberDifferences {
    let mut search =
        DifferenceSearch { path: String::new(), found: Vec::new(), count_max, is_complete: true };
    search.compare(&one.scope, &two.scope);
    let differing = match (&one.question, &two.question) {
        (Some(one), Some(two)) if one.text == two.text => None,
        (Some(one), Some(two)) => Some((&one.path, Some(letters_alike(&one.text, &two.text)))),
        (Some(question), None) | (None, Some(question)) => Some((&question.path, None)),
        (None, None) => None,
    };
    if let Some((path, place)) = differing {
        // Where one of the two has no question there, its place differs too.
        search.found.retain(|found| found.path != *path);
        search.path.clone_from(path);
        search.add(place, true);
    }
    MemberDifferences { named: search.found, is_complete: search.is_complete }
}

/// As `messages[0].content@118`.
impl fmt::Display for MemberDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.place.map_or(Ok(()), |place| write!(f, "@{place}"))
    }
}

/// A search through two values at once.
struct DifferenceSearch {
    path: String,
    found: Vec<MemberDifference>,
    count_max: usize,
    /// Whether all differences so far were found.
    is_complete: bool,
}

impl DifferenceSearch {
    fn compare(&mut self, one: &Json<'_>, two: &Json<'_>) {
        if one == two || !self.is_complete {
            return;
        }
        match (one, two) {
            (Json::Object(ones), Json::Object(twos)) => self.compare_members(ones, twos),
            (Json::List(ones), Json::List(twos)) => self.compare_elements(ones, twos),
            (Json::Text(one), Json::Text(two)) => self.add(Some(letters_alike(one, two)), false),
            _ => self.add(None, false),
        }
    }

    fn compare_members<'a, N: AsRef<str>>(&mut self, ones: &[(N, Json<'a>)], twos: &[(N, Json<'a>)]) {
        let (in_ones, in_twos) = (MemberIndex::of(ones), MemberIndex::of(twos));
        let before = self.found.len();
        for (name, one) in ones {
            self.within_member(name.as_ref(), |search| match in_twos.get(name.as_ref()) {
                Some(two) => search.compare(one, two),
                None => search.add(None, false),
            });
            if !self.is_complete {
                return;
            }
        }
        for (name, _) in twos.iter().filter(|(name, _)| in_ones.get(name.as_ref()).is_none()) {
            self.within_member(name.as_ref(), |search| search.add(None, false));
            if !self.is_complete {
                return;
            }
        }
        if self.found.len() == before {
            // The same members in another order, which may have a meaning here.
            self.add(None, false);
        }
    }

    fn compare_elements(&mut self, ones: &[Json<'_>], twos: &[Json<'_>]) {
        let is_reordered = ones.len() == twos.len()
            && ones.len() <= REORDERED_MAX
            && ones.iter().all(|one| twos.contains(one));
        if is_reordered {
            return self.add(None, false);
        }
        for (at, one) in ones.iter().enumerate() {
            self.within_element(at, |search| match twos.get(at) {
                Some(two) => search.compare(one, two),
                None => search.add(None, false),
            });
            if !self.is_complete {
                return;
            }
        }
        for at in (ones.len()..twos.len()).take(self.count_max + 1) {
            self.within_element(at, |search| search.add(None, false));
        }
    }

    fn within_member(&mut self, name: &str, compare: impl FnOnce(&mut DifferenceSearch)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        push_name(&mut self.path, name);
        compare(self);
        self.path.truncate(length);
    }

    fn within_element(&mut self, at: usize, compare: impl FnOnce(&mut DifferenceSearch)) {
        let length = self.path.len();
        let _ = write!(self.path, "[{at}]");
        compare(self);
        self.path.truncate(length);
    }

    fn add(&mut self, place: Option<usize>, is_question: bool) {
        if self.found.len() == self.count_max {
            self.is_complete = false;
            return;
        }
        let mut path = self.path.clone();
        if path.len() > PATH_BYTES_MAX {
            path.truncate(PATH_BYTES_MAX);
            path.push_str("...");
        }
        self.found.push(MemberDifference { path, place, is_question });
    }
}

/// The members of an object by their names.
struct MemberIndex<'m, 'a, N> {
    members: &'m [(N, Json<'a>)],
    places: HashMap<&'m str, usize>,
}

impl<'m, 'a, N: AsRef<str>> MemberIndex<'m, 'a, N> {
    fn of(members: &'m [(N, Json<'a>)]) -> MemberIndex<'m, 'a, N> {
        let names = members.iter().enumerate().map(|(at, (name, _))| (name.as_ref(), at));
        let places = if members.len() > SEARCHED_MAX { names.collect() } else { HashMap::new() };
        MemberIndex { members, places }
    }

    fn get(&self, name: &str) -> Option<&'m Json<'a>> {
        let at = if self.members.len() > SEARCHED_MAX {
            self.places.get(name).copied()
        } else {
            self.members.iter().position(|(known, _)| known.as_ref() == name)
        };
        at.map(|at| &self.members[at].1)
    }
}

fn push_name(path: &mut String, name: &str) {
    for byte in name.bytes().take(NAME_BYTES_MAX) {
        if byte.is_ascii_alphanumeric() || b"_-$:/".contains(&byte) {
            path.push(byte as char);
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

fn letters_alike(one: &str, two: &str) -> usize {
    let bytes = one.bytes().zip(two.bytes()).take_while(|(one, two)| one == two).count();
    // The first bytes of two letters may be alike.
    one[..one.floor_char_boundary(bytes)].chars().count()
}

#[cfg(test)]
mod tests {
    use super::super::parts::QuestionPart;
    use super::*;

    fn parts<'a>(scope: &'a str, question: Option<&'a str>) -> IdentityParts<'a> {
        let question =
            question.map(|text| QuestionPart::new("messages[1].content".to_owned(), text.into(), None));
        IdentityParts { scope: Json::parse(scope.as_bytes()).unwrap(), question }
    }

    fn differing(one: &str, two: &str) -> String {
        let found = differences(&parts(one, None), &parts(two, None), 4);
        found.named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_difference_is_named_by_its_path_and_place() {
        for (one, two, expected) in [
            (r#"{"a":1}"#, r#"{"a":1}"#, ""),
            (r#"{"a":1}"#, r#"{"a":2}"#, "a"),
            (r#"{"a":1,"b":2}"#, r#"{"b":2}"#, "a"),
            (r#"{"b":2}"#, r#"{"a":1,"b":2}"#, "a"),
            (r#"{"a":"xy"}"#, r#"{"a":"xz"}"#, "a@1"),
            (r#"{"a":"ñy "}"#, r#"{"a":"ñy"}"#, "a@2"),
            (r#"{"a":"1"}"#, r#"{"a":1}"#, "a"),
            (
                r#"{"m":[{"content":"It is 10:31","role":"system"}]}"#,
                r#"{"m":[{"content":"It is 11:02","role":"system"}]}"#,
                "m[0].content@7",
            ),
            (r#"{"m":[1,2,3]}"#, r#"{"m":[1]}"#, "m[1], m[2]"),
            (r#"{"m":[1]}"#, r#"{"m":[1,2]}"#, "m[1]"),
            (r#"{"tools":[{"name":"a"},{"name":"b"}]}"#, r#"{"tools":[{"name":"b"},{"name":"a"}]}"#, "tools"),
            (r#"{"s":{"p":{"a":1,"b":2}}}"#, r#"{"s":{"p":{"b":2,"a":1}}}"#, "s.p"),
            (r#"{"a b.ñ":1}"#, r#"{"a b.ñ":2}"#, "a%20b%2E%C3%B1"),
            (r#"{"a":1,"b":1,"c":1,"d":1,"e":1}"#, r#"{"a":2,"b":2,"c":2,"d":2,"e":2}"#, "a, b, c, d"),
        ] {
            assert_eq!(differing(one, two), expected, "{one} / {two}");
        }
    }

    #[test]
    fn the_question_is_named_as_such() {
        let scope = r#"{"model":"m"}"#;
        let found = differences(&parts(scope, Some("red shoes")), &parts(scope, Some("red shirts")), 4);
        assert!(found.is_complete);
        let expected =
            MemberDifference { path: "messages[1].content".to_owned(), place: Some(6), is_question: true };
        assert_eq!(found.named, [expected]);
        assert_eq!(differences(&parts(scope, Some("a")), &parts(scope, None), 4).named[0].place, None);
        assert!(differences(&parts(scope, Some("a")), &parts(scope, Some("a")), 4).named.is_empty());
        let (words, list) = (r#"{"input":null}"#, r#"{"input":["abc"]}"#);
        let question = Some(QuestionPart::new("input".to_owned(), "abc".into(), None));
        let words = IdentityParts { scope: Json::parse(words.as_bytes()).unwrap(), question };
        let found = differences(&words, &parts(list, None), 4).named;
        assert_eq!(
            found.iter().map(|found| (&*found.path, found.is_question)).collect::<Vec<_>>(),
            [("input", true)]
        );
    }

    #[test]
    fn many_differences_and_long_paths_are_bounded() {
        let scope = |value: u32| {
            let members: Vec<String> = (0..5000).map(|n| format!("\"m{n}\":{value}")).collect();
            format!("{{{}}}", members.join(","))
        };
        let (one, two) = (scope(1), scope(2));
        let found = differences(&parts(&one, Some("a")), &parts(&two, Some("b")), 4);
        assert_eq!((found.named.len(), found.is_complete), (4, false));
        let deep = |value: u32| "{\"name-of-a-member\":".repeat(100) + &value.to_string() + &"}".repeat(100);
        let (one, two) = (deep(1), deep(2));
        let path = &differences(&parts(&one, None), &parts(&two, None), 4).named[0].path;
        assert!(path.len() <= PATH_BYTES_MAX + 3 && path.ends_with("..."), "{path}");
    }
}
