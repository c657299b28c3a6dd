//! What a job is to do, by its kind.

use serde::{Deserialize, Serialize};

use crate::labels::label_enum;
use crate::service::collections::ReembedSpec;
use crate::service::warming::WarmSpec;

label_enum! {
    /// What a job does.
    pub enum JobKind {
        /// Embeds a collection by another model.
        Reembed = "reembed",
        /// Fills the caches from files. The server begins it at its start.
        Warm = "warm",
        /// Builds the index of a collection. The server begins it by itself; it is listed while it runs.
        IndexBuild = "index_build",
        /// Takes a snapshot of the index of a collection, which a client has asked for; it is listed while it runs.
        Snapshot = "snapshot",
        /// Rewrites segments of a store without what is gone. The server begins it by itself; it is listed while it runs.
        Compaction = "compaction",
    }
}

/// What a job is to do. The fields of a record say of which kind it is: a job that embeds has a collection, one that warms has files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JobSpec {
    /// To embed a collection by another model.
    Reembed(ReembedSpec),
    /// To fill the caches from files.
    Warm(WarmSpec),
}

impl JobSpec {
    /// What it does.
    pub fn kind(&self) -> JobKind {
        match self {
            JobSpec::Reembed(_) => JobKind::Reembed,
            JobSpec::Warm(_) => JobKind::Warm,
        }
    }

    /// What is to be embedded; `None` for another kind.
    pub fn reembed(&self) -> Option<&ReembedSpec> {
        match self {
            JobSpec::Reembed(spec) => Some(spec),
            JobSpec::Warm(_) => None,
        }
    }

    /// The collection that it works on, if it does on one: no other job may meanwhile.
    pub fn collection(&self) -> Option<&str> {
        self.reembed().map(|spec| spec.collection.as_str())
    }

    /// The model that it asks, if it is one for all items.
    pub fn model(&self) -> Option<&str> {
        self.reembed()?.model.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_by_its_fields_what_is_to_be_done() {
        let read = |text: &str| serde_json::from_str::<JobSpec>(text).unwrap();
        // As earlier versions have written it.
        let reembed =
            read(r#"{"collection":"shop","model":"e5","rollback":false,"dry_run":true,"keep_old_hours":3}"#);
        assert_eq!((reembed.kind(), reembed.collection()), (JobKind::Reembed, Some("shop")));
        assert_eq!((reembed.model(), reembed.reembed().unwrap().keep_old_hours), (Some("e5"), 3));
        let warm = read(r#"{"files":["/a/warm.jsonl"],"text_model":null}"#);
        assert_eq!((warm.kind(), warm.collection(), warm.model()), (JobKind::Warm, None, None));
        for spec in [reembed, warm] {
            assert_eq!(read(&serde_json::to_string(&spec).unwrap()), spec);
        }
    }
}
