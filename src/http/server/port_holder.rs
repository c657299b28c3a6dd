//! Which process listens on a port, as far as this user may know (proc(5)).

use std::path::Path;

/// The number and the name of the process that listens on the port of an address.
pub(super) fn of_address(listen: &str) -> Option<(u32, String)> {
    let port = listen.rsplit(':').next()?.parse().ok()?;
    let sockets: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|table| listeners(table, port)).collect();
    let pids = fs_err::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|pid| has_socket(*pid, &sockets))?;
    let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

/// The sockets that listen on a port, as links to them are called.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTENS: &str = "0A";
    let text = fs_err::read_to_string(table).unwrap_or_default();
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, given) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(given, 16) == Ok(port) && fields.get(3) == Some(&LISTENS);
        is_it.then(|| Some(format!("socket:[{}]", fields.get(9)?)))?
    };
    text.lines().filter_map(read).collect()
}

fn has_socket(pid: u32, sockets: &[String]) -> bool {
    let handles = Path::new("/proc").join(pid.to_string()).join("fd");
    let links = fs_err::read_dir(handles).into_iter().flatten().flatten();
    links
        .filter_map(|entry| fs_err::read_link(entry.path()).ok())
        .any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(of_address(&address).map(|(pid, _)| pid), Some(std::process::id()));
        drop(listener);
        assert_eq!(of_address("nonsense"), None);
    }
}
