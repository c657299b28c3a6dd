//! `likewise list`: what is cached, in a running server.

use std::io::IsTerminal as _;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use reqwest::Method;
use serde_json::Value;

use super::client::{ServerArgs, answer_when_ready};
use super::terminal;

/// Entries of one page.
const LIMIT: &str = "1000";
/// What stands above entries where a person reads them.
const ENTRY_HEADER: &str = "key\tbytes\tttl\ttags\n";

/// List the namespaces of a running server, the entries of one, or those that carry a tag.
///
/// Entries are read from the disk, in its order. One line each: key or id, bytes, seconds until it expires, tags.
#[derive(Debug, Args)]
pub(super) struct ListCached {
    #[command(flatten)]
    target: ServerArgs,
    /// The namespace, such as `products`; without it, all namespaces.
    namespace: Option<String>,
    /// Only objects whose key begins with this.
    #[arg(long, value_name = "KEY", requires = "namespace")]
    prefix: Option<String>,
    /// Entries of all namespaces that carry this tag.
    #[arg(long, value_name = "TAG", conflicts_with = "namespace")]
    tag: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

impl ListCached {
    pub(super) async fn run(self) -> Result<()> {
        let segments = match (&self.namespace, &self.tag) {
            (Some(namespace), _) => ["v1", "cache", namespace],
            (None, Some(tag)) => ["v1", "tags", tag],
            (None, None) => return self.namespaces().await,
        };
        let mut after: Option<String> = None;
        let mut is_first = true;
        loop {
            let mut fields = vec![("limit", LIMIT)];
            fields.extend(self.prefix.as_deref().map(|prefix| ("prefix", prefix)));
            fields.extend(after.as_deref().map(|after| ("after", after)));
            let page = self.page(&segments, &fields).await?;
            let entries = page["data"].as_array().map_or(&[][..], Vec::as_slice);
            if is_first && !entries.is_empty() {
                is_first = false;
                terminal::say(self.entry_header(std::io::stdout().is_terminal()));
            }
            terminal::say(&entries.iter().map(|entry| self.line(entry, entry_line)).collect::<String>());
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        if is_first {
            eprintln!("likewise: {}", self.nothing_found());
        }
        Ok(())
    }

    /// Scripts read lines of one form, so only a person gets a header.
    fn entry_header(&self, is_terminal: bool) -> &'static str {
        if is_terminal && !self.json { ENTRY_HEADER } else { "" }
    }

    /// What is said instead of no lines. An unknown namespace and an empty one look alike: the server knows neither by name.
    fn nothing_found(&self) -> String {
        match (&self.namespace, &self.prefix, &self.tag) {
            (Some(namespace), Some(prefix), _) => {
                format!("no entry of the namespace `{namespace}` has a key that begins with `{prefix}`")
            }
            (Some(namespace), None, _) => format!(
                "no entries are listed in the namespace `{namespace}`: it is empty, or unknown; `likewise list` lists the namespaces"
            ),
            (None, _, tag) => format!("no entry carries the tag `{}`", tag.as_deref().unwrap_or_default()),
        }
    }

    async fn namespaces(&self) -> Result<()> {
        let page = self.page(&["v1", "namespaces"], &[]).await?;
        if !self.json {
            terminal::say("namespace\tdisk entries\tbytes\tended\tinvalidated\tmemory entries\n");
        }
        let named = page["data"].as_array().map_or(&[][..], Vec::as_slice);
        let others = page.get("others");
        let all = named.iter().chain(others);
        terminal::say(&all.map(|namespace| self.line(namespace, namespace_line)).collect::<String>());
        Ok(())
    }

    async fn page(&self, segments: &[&str], fields: &[(&str, &str)]) -> Result<Value> {
        let request = || Ok(self.target.request(Method::GET, segments)?.query(fields));
        let read = |error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error);
        answer_when_ready(request).await?.json().await.map_err(read)
    }

    fn line(&self, value: &Value, line: fn(&Value) -> String) -> String {
        if self.json { format!("{value}\n") } else { line(value) }
    }
}

fn entry_line(entry: &Value) -> String {
    let name = entry["key"].as_str().or(entry["id"].as_str()).unwrap_or_default();
    let tags: Vec<&str> = entry["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("{}\t{}\t{}\t{}\n", printable(name), entry["bytes"], entry["ttl"], tags.join(","))
}

fn namespace_line(namespace: &Value) -> String {
    let (disk, memory) = (&namespace["disk"], &namespace["memory"]);
    let name = namespace["name"].as_str().unwrap_or("(others)");
    let [entries, bytes, ended, invalidated] =
        ["entries", "bytes", "ended", "invalidated"].map(|count| &disk[count]);
    format!("{name}\t{entries}\t{bytes}\t{ended}\t{invalidated}\t{}\n", memory["entries"])
}

/// A key as one column of one line.
fn printable(key: &str) -> String {
    if key.chars().any(char::is_control) { format!("{key:?}") } else { key.to_owned() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct ListProgram {
        #[command(flatten)]
        list: ListCached,
    }

    fn list(arguments: &[&str]) -> ListCached {
        let arguments = [&["likewise"], arguments].concat();
        ListProgram::try_parse_from(arguments).unwrap().list
    }

    #[test]
    fn a_header_is_printed_for_a_person_only() {
        let columns = entry_line(&serde_json::json!({ "key": "k", "bytes": 1, "ttl": 2, "tags": ["t"] }));
        let header = list(&["products"]).entry_header(true);
        assert_eq!(header.matches('\t').count(), columns.matches('\t').count());
        assert_eq!(list(&["products"]).entry_header(false), "");
        assert_eq!(list(&["products", "--json"]).entry_header(true), "");
    }
}
