//! `likewise invalidate`: hides what is no longer true, in a running server.

use clap::Args;
use likewise::error::{Error, Kind, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{ServerArgs, answer};
use super::terminal;

/// Hide entries of a running server: by tags, by entity, by namespace and keys, or all.
#[derive(Debug, Args)]
pub(super) struct Invalidate {
    #[command(flatten)]
    target: ServerArgs,
    #[command(flatten)]
    what: InvalidationArgs,
    /// Objects of the namespace, instead of all of it.
    #[arg(long = "key", value_name = "KEY", requires = "namespace")]
    keys: Vec<String>,
    /// Serve the entries stale while one request refreshes each, instead of hiding them at once.
    #[arg(long)]
    soft: bool,
    /// Count what would be hidden, and hide nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct InvalidationArgs {
    /// Entries that carry this tag; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Entries made from an entity, such as `product:42`.
    #[arg(long, value_name = "TYPE:ID")]
    entity: Option<String>,
    /// Entries of a namespace.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// All entries.
    #[arg(long)]
    all: bool,
}

impl Invalidate {
    pub(super) async fn run(self) -> Result<()> {
        let request = self.target.request(Method::POST, &["v1", "invalidate"])?;
        let said = answer(request.body(self.body()?.to_string())).await?.text().await;
        let said = said
            .map_err(|error| Error::new(Kind::Upstream, "cannot read the server's answer").source(error))?;
        terminal::say(&format!("{said}\n"));
        Ok(())
    }

    fn body(&self) -> Result<Value> {
        let InvalidationArgs { tags, entity, namespace, all } = &self.what;
        let mut body = match (entity, namespace) {
            (Some(entity), _) => {
                let (kind, id) = entity.split_once(':').ok_or_else(|| {
                    Error::new(Kind::InvalidInput, "--entity must be TYPE:ID").with("entity", entity)
                })?;
                json!({ "entity": { "type": kind, "id": id } })
            }
            (None, Some(namespace)) if self.keys.is_empty() => json!({ "namespace": namespace }),
            (None, Some(namespace)) => json!({ "namespace": namespace, "keys": self.keys }),
            (None, None) if *all => json!({ "all": true }),
            (None, None) => json!({ "tags": tags }),
        };
        body["mode"] = if self.soft { "soft" } else { "hard" }.into();
        body["dry_run"] = self.dry_run.into();
        Ok(body)
    }
}
