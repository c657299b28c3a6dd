//! How an operator names a model: by a directory, by a repository of the hub, or not at all.

use std::fmt;
use std::path::{Path, PathBuf};

use super::package::Package;
use crate::error::{Error, Kind, Result};

/// A repository of the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRepo {
    owner: String,
    name: String,
}

impl HubRepo {
    /// The repository that `text` names as `owner/name`, if it does.
    pub fn parse(text: &str) -> Option<HubRepo> {
        let (owner, name) = text.split_once('/')?;
        let is_name = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                && part.len() <= 96
        };
        (is_name(owner) && is_name(name)).then(|| HubRepo { owner: owner.into(), name: name.into() })
    }
}

impl fmt::Display for HubRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A model as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelReference {
    /// A directory on this machine.
    Directory(PathBuf),
    /// The model that is served if none is named.
    Default,
    /// A model of the hub.
    Hub(HubRepo),
}

impl ModelReference {
    /// Reads `--model`. A directory that exists goes before a repository of the same name.
    ///
    /// # Errors
    /// `Model` if `named` is neither, with what to give instead.
    pub fn parse(named: Option<&Path>) -> Result<ModelReference> {
        let Some(path) = named else { return Ok(ModelReference::Default) };
        if path.is_dir() {
            return Ok(ModelReference::Directory(path.to_owned()));
        }
        let refuse = |what: &str, advice: &str| {
            let message = format!("cannot use the model `{}`: {what}; {advice}", path.display());
            Err(Error::new(Kind::Model, message))
        };
        if path.exists() {
            return refuse("it is a file", "give the directory that contains it: --model DIRECTORY");
        }
        let text = path.to_string_lossy();
        if text == Package::DEFAULT.model {
            return Ok(ModelReference::Default);
        }
        if let Some(repo) = HubRepo::parse(&text) {
            return Ok(ModelReference::Hub(repo));
        }
        refuse(
            "there is no such directory",
            "give --model DIRECTORY, --model OWNER/NAME for a model of the Hugging Face hub, or no --model for the \
             default one",
        )
    }

    /// Another name under which clients ask for the model, if it has one.
    pub fn alias(&self) -> Option<String> {
        match self {
            ModelReference::Directory(_) => None,
            ModelReference::Default => Some(format!("sentence-transformers/{}", Package::DEFAULT.model)),
            ModelReference::Hub(repo) => Some(repo.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_directory_a_repository_or_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let parse = |text: &str| ModelReference::parse(Some(Path::new(text)));
        assert_eq!(ModelReference::parse(None).unwrap(), ModelReference::Default);
        assert_eq!(parse("all-MiniLM-L6-v2").unwrap(), ModelReference::Default);
        let hub = parse("intfloat/multilingual-e5-small").unwrap();
        assert_eq!(hub.alias().as_deref(), Some("intfloat/multilingual-e5-small"));
        assert!(matches!(hub, ModelReference::Hub(_)));
        let path = dir.path().to_str().unwrap();
        assert_eq!(parse(path).unwrap(), ModelReference::Directory(path.into()));
        let file = dir.path().join("model.safetensors");
        fs_err::write(&file, "").unwrap();
        assert!(parse(file.to_str().unwrap()).unwrap_err().message().contains("directory that contains it"));
        for wrong in ["", "e5", "./a/b", "../b", "/no/where", "a/b/c", "~/m", "a/.b", "ä/b"] {
            assert!(parse(wrong).unwrap_err().message().contains("--model OWNER/NAME"), "{wrong}");
        }
    }
}
