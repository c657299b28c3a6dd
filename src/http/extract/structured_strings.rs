//! Lists of strings as structured fields (RFC 9651, section 4.2.1), whose parameters are read over.

/// The strings of a list that is written in these lines; `None` if it cannot be read, or has a member that is no string.
///
/// Cost: reads each byte once.
pub(in crate::http) fn strings<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<String>> {
    let lines: Vec<&[u8]> = lines.into_iter().collect();
    // Section 4.2: several lines are one, joined by commas.
    let mut rest = FieldReader(&lines.join(&b", "[..]));
    let mut strings = Vec::new();
    rest.skip(b" ");
    if rest.0.is_empty() {
        return Some(strings);
    }
    loop {
        strings.push(rest.string()?);
        rest.parameters()?;
        rest.skip(b" \t");
        if rest.0.is_empty() {
            return Some(strings);
        }
        rest.take(b',')?;
        // A comma at the end has no member behind it.
        rest.skip(b" \t");
    }
}

/// The strings as a list. `None` if one of them cannot be written: only printable ASCII can.
pub(in crate::http) fn written<'a>(strings: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut list = String::new();
    for string in strings {
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push('"');
        for character in string.chars() {
            match character {
                '"' | '\\' => list.extend(['\\', character]),
                ' '..='~' => list.push(character),
                _ => return None,
            }
        }
        list.push('"');
    }
    Some(list)
}

/// What is still to be read.
struct FieldReader<'a>(&'a [u8]);

impl FieldReader<'_> {
    fn skip(&mut self, bytes: &[u8]) {
        while self.0.first().is_some_and(|byte| bytes.contains(byte)) {
            self.0 = &self.0[1..];
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    /// Reads bytes while they are of a kind; returns how many.
    fn take_while(&mut self, is_of_kind: impl Fn(u8) -> bool) -> usize {
        let length = self.0.iter().position(|byte| !is_of_kind(*byte)).unwrap_or(self.0.len());
        self.0 = &self.0[length..];
        length
    }

    /// Section 4.2.5.
    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut string = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(string),
                b'\\' => match self.next()? {
                    escaped @ (b'"' | b'\\') => string.push(char::from(escaped)),
                    _ => return None,
                },
                byte @ b' '..=b'~' => string.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    /// Section 4.2.3.2.
    fn parameters(&mut self) -> Option<()> {
        while self.0.first() == Some(&b';') {
            self.next();
            self.skip(b" ");
            self.next().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
            self.take_while(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            });
            if self.0.first() == Some(&b'=') {
                self.next();
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// Section 4.2.3.1. The value is not of interest, only its end.
    fn bare_item(&mut self) -> Option<()> {
        match *self.0.first()? {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b'?' => {
                self.next();
                self.next().filter(|byte| matches!(byte, b'0' | b'1')).map(drop)
            }
            b':' => {
                self.next();
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.take(b':')
            }
            // A date is whole seconds.
            b'@' => {
                self.next();
                self.number().filter(|is_whole| *is_whole).map(drop)
            }
            b'%' => {
                self.next();
                self.take(b'"')?;
                self.take_while(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
                self.take(b'"')
            }
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(())
            }
            _ => None,
        }
    }

    /// Section 4.2.4. Returns whether it is an integer.
    fn number(&mut self) -> Option<bool> {
        if self.0.first() == Some(&b'-') {
            self.next();
        }
        let is_digit = |byte: u8| byte.is_ascii_digit();
        let whole = self.take_while(is_digit);
        if self.0.first() != Some(&b'.') {
            return (1..=15).contains(&whole).then_some(true);
        }
        self.next();
        let part = self.take_while(is_digit);
        ((1..=12).contains(&whole) && (1..=3).contains(&part)).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        strings([text.as_bytes()])
    }

    #[test]
    fn strings_are_read_and_their_parameters_read_over() {
        for (text, expected) in [
            ("", &[][..]),
            ("  ", &[]),
            (r#""a""#, &["a"]),
            (r#" "product:42" ,	"brand 7,8"  "#, &["product:42", "brand 7,8"]),
            (r#""a\"b\\c", """#, &["a\"b\\c", ""]),
            (r#""a";x;y=1;z="q,\"";t=tok/en:*;b=?1;d=-1.5;e=:YQ==:;f=@17;g=%"h%c3";*h, "b""#, &["a", "b"]),
            (r#""a"; x, "b";  y"#, &["a", "b"]),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        let lines = [r#""a""#, r#""b", "c""#].map(str::as_bytes);
        assert_eq!(strings(lines).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn a_list_that_breaks_the_grammar_is_none() {
        for text in [
            "a",
            "a, b",
            "1",
            "(\"a\")",
            "\"a",
            "\"a\",",
            ",\"a\"",
            "\"a\" \"b\"",
            "\"\\a\"",
            "\"\\",
            "\"\u{e9}\"",
            "\"\t\"",
            "\"a\";",
            "\"a\";X",
            "\"a\";x=",
            "\"a\";x=?2",
            "\"a\";x=:a",
            "\"a\";x=1.",
            "\"a\";x=-",
            "\"a\";x=1.2345",
            "\"a\";x=1234567890123456",
            "\"a\";x=%\"a",
            "\"a\" ;x",
            "\"a\"; y = 1",
            "\"a\";x=@1.5",
            "\"a\";x=(1)",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for list in [&[][..], &["a"], &["a b", "c\"d\\e", ""]] {
            let text = written(list.iter().copied()).unwrap();
            assert_eq!(read(&text).unwrap(), list, "{text}");
        }
        assert_eq!(written(["año"]), None);
    }
}
