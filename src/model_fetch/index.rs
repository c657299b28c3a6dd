//! The pages of a Python package index: the simple API, as JSON (PEP 691) or as HTML (PEP 503).

use reqwest::Url;
use serde::Deserialize;

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WheelFile {
    pub(super) url: Url,
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<u64>,
}

#[derive(Deserialize)]
struct PageJson {
    files: Vec<FileJson>,
}

#[derive(Deserialize)]
struct FileJson {
    filename: String,
    url: String,
    size: Option<u64>,
    #[serde(default)]
    hashes: std::collections::BTreeMap<String, String>,
}

/// The file called `filename` on a page of an index that was read at `page_url`.
pub(super) fn find(body: &str, page_url: &Url, filename: &str) -> Option<WheelFile> {
    if let Ok(page) = serde_json::from_str::<PageJson>(body) {
        let file = page.files.into_iter().find(|file| file.filename == filename)?;
        let sha256 = file.hashes.get("sha256").cloned();
        return Some(WheelFile { url: page_url.join(&file.url).ok()?, sha256, bytes: file.size });
    }
    links(body).find_map(|link| {
        let url = page_url.join(&link.replace("&amp;", "&")).ok()?;
        let is_file = url.path_segments()?.next_back() == Some(filename);
        let sha256 = url.fragment().and_then(|fragment| fragment.strip_prefix("sha256=")).map(str::to_owned);
        is_file.then_some(WheelFile { url, sha256, bytes: None })
    })
}

/// The values of all `href`, in either kind of quotes.
fn links(html: &str) -> impl Iterator<Item = &str> {
    html.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        rest[1..].split(quote).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_json_and_in_html() {
        let page = Url::parse("https://mirror.example/simple/some-model/").unwrap();
        let json = r#"{"meta":{},"name":"m","files":[{"filename":"m-0.1-py3-none-any.whl","url":"../../m.whl",
            "size":7,"hashes":{"sha256":"ab"}},{"filename":"m.tar.gz","url":"x"}]}"#;
        let file = find(json, &page, "m-0.1-py3-none-any.whl").unwrap();
        assert_eq!((file.url.as_str(), file.bytes), ("https://mirror.example/m.whl", Some(7)));
        assert_eq!(file.sha256.as_deref(), Some("ab"));
        assert_eq!(find(json, &page, "m-0.2-py3-none-any.whl"), None);
        let html = "<a href='https://files.example/a/m-0.1.tar.gz#sha256=0'>m</a><a\n\
                    href=\"/f/m-0.1-py3-none-any.whl?a=1&amp;b#sha256=cd\" data-requires-python=\"&gt;=3\">m</a>";
        let file = find(html, &page, "m-0.1-py3-none-any.whl").unwrap();
        assert_eq!(file.url.as_str(), "https://mirror.example/f/m-0.1-py3-none-any.whl?a=1&b#sha256=cd");
        assert_eq!(file.sha256.as_deref(), Some("cd"));
        assert_eq!(find("<a href=m-0.1-py3-none-any.whl>", &page, "m-0.1-py3-none-any.whl"), None);
        assert_eq!(find("", &page, "m"), None);
    }
}
