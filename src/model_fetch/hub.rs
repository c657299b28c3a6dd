//! Models of the Hugging Face hub: `/api/models/OWNER/NAME/revision/main` lists the files of the newest commit, and
//! `/OWNER/NAME/resolve/COMMIT/FILE` sends one (huggingface_hub, `hf_api.py` and `file_download.py`).

use std::path::Path;

use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::digest::FileDigest;
use super::download::{RemoteFile, download};
use super::model_cache::{ModelSlot, not_writable};
use super::progress::FetchProgress;
use super::reference::HubRepo;
use super::remote_source::RemoteSource;
use super::settings::FetchSettings;
use crate::embed;
use crate::error::{Error, Kind, Result};

/// Bytes of a list of files.
const LIST_BYTES_MAX: usize = 16 << 20;
/// Bytes of a file beside the weights: the largest vocabularies have 20 MB.
const SMALL_FILE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of weights. The largest encoders of the supported families have 2.3 GB.
const WEIGHTS_BYTES_MAX: u64 = 16 << 30;

const WEIGHTS: &str = "model.safetensors";

#[derive(Deserialize)]
struct RevisionJson {
    sha: String,
    siblings: Vec<SiblingJson>,
}

#[derive(Deserialize)]
struct SiblingJson {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<LfsJson>,
}

#[derive(Deserialize)]
struct LfsJson {
    size: Option<u64>,
    #[serde(alias = "oid")]
    sha256: Option<String>,
}

impl SiblingJson {
    fn bytes(&self) -> Option<u64> {
        self.lfs.as_ref().and_then(|lfs| lfs.size).or(self.size)
    }

    fn digest(&self) -> Option<FileDigest> {
        match &self.lfs {
            Some(lfs) => lfs.sha256.as_deref().and_then(FileDigest::of_etag),
            None => self.blob_id.as_deref().and_then(FileDigest::of_etag),
        }
    }

    fn is_weights(&self) -> bool {
        self.name.rsplit('/').next() == Some(WEIGHTS)
    }
}

pub(super) async fn fetch(
    settings: &FetchSettings,
    repo: &HubRepo,
    slot: &ModelSlot,
    progress: &dyn FetchProgress,
) -> Result<()> {
    let source = RemoteSource::new(&settings.hub, settings.hub_token.as_deref(), settings.hub_idle)?;
    let hub = Hub { source, repo, has_token: settings.hub_token.is_some() };
    let revision = hub.revision().await.map_err(|error| hub.unreachable(error))?;
    let files = hub.needed(&revision)?;
    let bytes = files.iter().map(|file| file.bytes()).sum::<Option<u64>>();
    let work = slot.work_dir(&revision.sha)?;
    slot.require_room(bytes.unwrap_or(0), &work)?;
    progress.started(&repo.to_string(), hub.source.name(), bytes);
    let (weights, small): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.is_weights());
    for file in &small {
        hub.download(&revision.sha, file, &work, progress).await?;
    }
    // A model that cannot be used is refused before its weights are fetched.
    embed::check_model_dir(&work, &repo.to_string())?;
    for file in &weights {
        hub.download(&revision.sha, file, &work, progress).await?;
    }
    tokio::task::block_in_place(|| slot.install(&work))
}

struct Hub<'a> {
    source: RemoteSource,
    repo: &'a HubRepo,
    has_token: bool,
}

impl Hub<'_> {
    /// The newest commit and its files.
    async fn revision(&self) -> Result<RevisionJson> {
        let path = format!("api/models/{}/revision/main?blobs=true", self.repo);
        let reply = self.source.get(self.source.url(&path)?, Some("application/json"), 0).await?;
        let response = reply.response;
        if !response.status().is_success() {
            return Err(self.refused(response.status(), response.headers()));
        }
        let body = self.source.text(response, LIST_BYTES_MAX).await?;
        let unexpected_answer = || {
            let message = format!("{} does not answer like the hub; correct HF_ENDPOINT", self.source.name());
            Error::new(Kind::Upstream, message)
        };
        let revision: RevisionJson =
            serde_json::from_str(&body).map_err(|error| unexpected_answer().source(error))?;
        // It becomes a part of addresses and of the name of a directory.
        let is_commit = (7..=64).contains(&revision.sha.len())
            && revision.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_commit { Ok(revision) } else { Err(unexpected_answer()) }
    }

    /// The files that the server reads.
    fn needed<'a>(&self, revision: &'a RevisionJson) -> Result<Vec<&'a SiblingJson>> {
        let files: Vec<_> = revision.siblings.iter().filter(|file| is_needed(&file.name)).collect();
        if files.iter().any(|file| file.is_weights()) {
            return Ok(files);
        }
        let has = |ending: &str| revision.siblings.iter().any(|file| file.name.ends_with(ending));
        let what = if has(".safetensors.index.json") {
            "its weights are in several files, which is not supported"
        } else if has(".bin") {
            "its weights are in PyTorch's format only"
        } else {
            "it has no weights"
        };
        let message = format!(
            "cannot use {}: {what}; give a model with one model.safetensors, such as \
             --model sentence-transformers/all-MiniLM-L6-v2",
            self.repo
        );
        Err(Error::new(Kind::Model, message))
    }

    async fn download(
        &self,
        commit: &str,
        file: &SiblingJson,
        work: &Path,
        progress: &dyn FetchProgress,
    ) -> Result<()> {
        let path = work.join(&file.name);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).map_err(not_writable)?;
        }
        let remote = RemoteFile {
            url: self.url(commit, &file.name)?,
            name: file.name.clone(),
            bytes: file.bytes(),
            bytes_max: if file.is_weights() { WEIGHTS_BYTES_MAX } else { SMALL_FILE_BYTES_MAX },
            digest: file.digest(),
        };
        let refused =
            |status: StatusCode, headers: &HeaderMap| self.refused(status, headers).with("file", &file.name);
        download(&self.source, &remote, &path, progress, &refused)
            .await
            .map_err(|error| self.unreachable(error))
    }

    fn url(&self, commit: &str, file: &str) -> Result<Url> {
        self.source.url(&format!("{}/resolve/{commit}/{file}", self.repo))
    }

    /// What to do about a status. The hub answers 401 about a repository that does not exist, and says which in a header.
    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Error {
        let (repo, hub) = (self.repo, self.source.name());
        let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let (kind, message) = match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") => (
                Kind::Model,
                format!(
                    "{repo} is gated: accept its terms at {hub}/{repo}, then set HF_TOKEN to a token of your account"
                ),
            ),
            (401 | 403, _) if self.has_token => (
                Kind::Model,
                format!("{hub} does not give {repo} to the owner of HF_TOKEN: check the name and the token"),
            ),
            (401 | 403 | 404 | 410, _) => (
                Kind::Model,
                format!(
                    "there is no model {repo} at {hub}, or it is private: check the name, or set HF_TOKEN; a directory \
                     of that name does not exist either"
                ),
            ),
            _ => (Kind::Unavailable, format!("{hub} failed; try again later")),
        };
        Error::new(kind, message).with("status", status.as_u16())
    }

    fn unreachable(&self, error: Error) -> Error {
        if error.kind() != Kind::Unavailable {
            return error;
        }
        let message = format!(
            "cannot fetch {} from {}; without a network copy the model's directory here and give --model DIRECTORY; set \
             HF_ENDPOINT for a mirror, HTTPS_PROXY for a proxy, SSL_CERT_FILE for certificates of your own",
            self.repo,
            self.source.name()
        );
        Error::new(Kind::Unavailable, message).source(error)
    }
}

/// Whether the server reads a file: JSON, vocabularies and weights, of the model itself and of its modules' folders, as
/// `1_Pooling`. Only such names reach the disk.
fn is_needed(name: &str) -> bool {
    let is_plain = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let is_module = |folder: &str| {
        folder.split_once('_').is_some_and(|(number, _)| number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let is_read = |file: &str| file == WEIGHTS || file.ends_with(".json") || file.ends_with(".txt");
    match name.split_once('/') {
        None => is_plain(name) && is_read(name),
        Some((folder, file)) => is_plain(folder) && is_module(folder) && is_plain(file) && is_read(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_the_server_reads_are_fetched() {
        for name in [
            "config.json",
            "vocab.txt",
            "model.safetensors",
            "1_Pooling/config.json",
            "0_Transformer/model.safetensors",
        ] {
            assert!(is_needed(name), "{name}");
        }
        for name in [
            "README.md",
            "pytorch_model.bin",
            "onnx/model.json",
            "openvino/config.json",
            "../config.json",
            "1_Pooling/../../x.json",
            "/etc/x.json",
            ".verified.json",
            "1_a/b/c.json",
            "_/x.json/",
            "1_Pooling/..json/",
            "a\\b.json",
        ] {
            assert!(!is_needed(name), "{name}");
        }
    }
}
