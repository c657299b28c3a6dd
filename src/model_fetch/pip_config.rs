//! The index that pip is configured to use, from its configuration files (pip's documentation, "Configuration").

use std::path::PathBuf;

/// `index-url` of pip's configuration, the most specific file first.
pub(super) fn index_url(set: impl Fn(&str) -> Option<String>) -> Option<String> {
    files(set).into_iter().filter_map(|path| fs_err::read_to_string(path).ok()).find_map(|text| parse(&text))
}

/// The files that pip reads: the one that the environment names (`/dev/null` says that there is none), that of the virtual
/// environment, the user's two, and those of the machine.
fn files(set: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let named = set("PIP_CONFIG_FILE");
    if named.as_deref() == Some("/dev/null") {
        return Vec::new();
    }
    let home = set("HOME").map(PathBuf::from);
    let of_user =
        set("XDG_CONFIG_HOME").map(PathBuf::from).or(home.as_ref().map(|home| home.join(".config")));
    let of_machine = set("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    let places = [
        named.map(PathBuf::from),
        set("VIRTUAL_ENV").map(|venv| PathBuf::from(venv).join("pip.conf")),
        of_user.map(|config| config.join("pip/pip.conf")),
        home.map(|home| home.join(".pip/pip.conf")),
        Some("/etc/pip.conf".into()),
    ];
    let of_machine =
        of_machine.split(':').map(|dir| PathBuf::from(dir).join("pip/pip.conf")).collect::<Vec<_>>();
    places.into_iter().flatten().chain(of_machine).collect()
}

/// `index-url` of the section of `pip download`, else of the global one.
fn parse(text: &str) -> Option<String> {
    let (mut section, mut global, mut of_download) = ("", None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        if line.starts_with(['#', ';']) || !matches!(key.trim(), "index-url" | "index_url") {
            continue;
        }
        match section {
            "global" => global = Some(value.trim().to_owned()),
            "download" => of_download = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    of_download.or(global).filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_file_and_section_win() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        let index = || {
            index_url(|name| match name {
                "HOME" => Some(dir.path().to_str().unwrap().to_owned()),
                _ => None,
            })
        };
        write(".pip/pip.conf", "[global]\n# index-url = http://no/\nindex-url: http://a/simple\n");
        assert_eq!(index().as_deref(), Some("http://a/simple"));
        write(
            ".config/pip/pip.conf",
            "[global]\ntimeout = 3\nindex-url = https://u:p@b/simple\n[install]\nindex-url=c\n",
        );
        assert_eq!(index().as_deref(), Some("https://u:p@b/simple"));
        write(".config/pip/pip.conf", "[download]\nindex-url=https://d/\n[global]\nindex-url = https://b/\n");
        assert_eq!(index().as_deref(), Some("https://d/"));
    }
}
