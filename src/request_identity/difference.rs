//! In which members two requests differ.

use std::fmt::{self, Write as _};

use super::json::Json;
use super::parts::IdentityParts;

/// Longer lists are not searched for each other's elements.
const REORDERED_MAX: usize = 64;
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

/// The members in which `one` differs from `two`, in the order of `one`, and at most so many.
pub fn differences(
    one: &IdentityParts<'_>,
    two: &IdentityParts<'_>,
    count_max: usize,
) -> Vec<MemberDifference> {
    let mut search = DifferenceSearch { path: String::new(), found: Vec::new(), count_max };
    search.compare(&one.scope, &two.scope);
    let place = match (&one.question, &two.question) {
        (Some(one), Some(two)) if one.text == two.text => None,
        (Some(one), Some(two)) => Some((&one.path, Some(letters_alike(&one.text, &two.text)))),
        (Some(question), None) | (None, Some(question)) => Some((&question.path, None)),
        (None, None) => None,
    };
    if let Some((path, place)) = place {
        search.path.clone_from(path);
        search.add(place, true);
    }
    search.found
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
}

impl DifferenceSearch {
    fn compare(&mut self, one: &Json<'_>, two: &Json<'_>) {
        if one == two || self.found.len() >= self.count_max {
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
        let value = |members: &'_ [(N, Json<'a>)], name: &str| {
            members.iter().position(|(known, _)| known.as_ref() == name)
        };
        let before = self.found.len();
        for (name, one) in ones {
            self.within_member(name.as_ref(), |search| match value(twos, name.as_ref()) {
                Some(at) => search.compare(one, &twos[at].1),
                None => search.add(None, false),
            });
        }
        for (name, _) in twos.iter().filter(|(name, _)| value(ones, name.as_ref()).is_none()) {
            self.within_member(name.as_ref(), |search| search.add(None, false));
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
        }
        for at in ones.len()..twos.len() {
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
        if self.found.len() < self.count_max {
            self.found.push(MemberDifference { path: self.path.clone(), place, is_question });
        }
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
    one.chars().zip(two.chars()).take_while(|(one, two)| one == two).count()
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
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
        let expected =
            MemberDifference { path: "messages[1].content".to_owned(), place: Some(6), is_question: true };
        assert_eq!(found, [expected]);
        assert_eq!(differences(&parts(scope, Some("a")), &parts(scope, None), 4)[0].place, None);
        assert!(differences(&parts(scope, Some("a")), &parts(scope, Some("a")), 4).is_empty());
    }
}
