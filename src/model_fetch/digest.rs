//! The hashes by which a source announces its files.

use std::io::Read as _;
use std::path::Path;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use crate::error::{Error, Result};

/// What a file must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileDigest {
    Sha256(String),
    /// The name of the file in git, which the hub has for small files: the SHA-1 of its length and its bytes.
    GitBlob(String),
}

impl FileDigest {
    /// The digest in a header: an entity tag of 64 hexadecimal digits is a SHA-256, one of 40 is a git blob.
    pub(super) fn of_etag(etag: &str) -> Option<FileDigest> {
        let digits = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match digits.len() {
            64 if is_hex => Some(FileDigest::Sha256(digits)),
            40 if is_hex => Some(FileDigest::GitBlob(digits)),
            _ => None,
        }
    }

    /// Its hexadecimal digits.
    pub(super) fn digits(&self) -> &str {
        match self {
            FileDigest::Sha256(digits) | FileDigest::GitBlob(digits) => digits,
        }
    }

    /// What the file at `path` hashes to, if that is another digest.
    pub(super) fn mismatch(&self, path: &Path) -> Result<Option<String>> {
        let mut context = match self {
            FileDigest::Sha256(_) => Context::new(&SHA256),
            FileDigest::GitBlob(_) => {
                let bytes =
                    fs_err::metadata(path).map_err(|error| Error::io("cannot read a download", error))?.len();
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {bytes}\0").as_bytes());
                context
            }
        };
        update(&mut context, path)?;
        let found = hex(context.finish().as_ref());
        Ok((!found.eq_ignore_ascii_case(self.digits())).then_some(found))
    }
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let mut context = Context::new(&SHA256);
    update(&mut context, path)?;
    Ok(hex(context.finish().as_ref()))
}

fn update(context: &mut Context, path: &Path) -> Result<()> {
    let failed = |error| Error::io("cannot read a download", error);
    let mut file = fs_err::File::open(path).map_err(failed)?;
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(()),
            bytes => context.update(&block[..bytes]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hash_as_sha256sum_and_git_say() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), "{}\n").unwrap();
        let sha256_of_file = "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356";
        assert_eq!(sha256(file.path()).unwrap(), sha256_of_file);
        let digests =
            [format!("\"{sha256_of_file}\""), "W/\"0967ef424bce6791893e9a57bb952f80fd536e93\"".into()];
        for digest in digests.iter().map(|etag| FileDigest::of_etag(etag).unwrap()) {
            assert_eq!(digest.mismatch(file.path()).unwrap(), None, "{digest:?}");
        }
        assert_eq!(FileDigest::of_etag("\"abc\""), None);
        let other = FileDigest::Sha256("0".repeat(64)).mismatch(file.path()).unwrap();
        assert_eq!(other.as_deref(), Some(sha256_of_file));
    }
}
