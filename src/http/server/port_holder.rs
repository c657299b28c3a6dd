//! Which process listens on a port, as far as this user may know (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;

/// The number and the name of the process that listens on an address, or on all addresses of its port.
pub fn port_holder(listen: &str) -> Option<(u32, String)> {
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().ok()?.collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let listeners: Vec<(SocketAddr, String)> = tables
        .iter()
        .flat_map(|table| parse_listeners(&fs_err::read_to_string(table).unwrap_or_default()))
        .collect();
    let with = |matches: fn(&SocketAddr, &SocketAddr) -> bool| -> Vec<String> {
        let conflicting =
            listeners.iter().filter(|(own, _)| addresses.iter().any(|wanted| matches(own, wanted)));
        conflicting.map(|(_, socket)| socket.clone()).collect()
    };
    // One of all addresses may leave this one to another process (IPV6_V6ONLY).
    let same = with(|own, wanted| {
        own.port() == wanted.port() && own.ip().to_canonical() == wanted.ip().to_canonical()
    });
    let sockets = if same.is_empty() { with(conflicts) } else { same };
    let pids = fs_err::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|pid| has_socket(*pid, &sockets))?;
    let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

/// Whether one socket that listens on `a` keeps another one from `b`.
fn conflicts(a: &SocketAddr, b: &SocketAddr) -> bool {
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let (own, wanted) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port() && (own == wanted || covers(own, wanted) || covers(wanted, own))
}

/// The sockets of a table that listen: their addresses, and how links to them are called.
fn parse_listeners(table: &str) -> Vec<(SocketAddr, String)> {
    const LISTENS: &str = "0A";
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.rsplit_once(':')?;
        let address = SocketAddr::new(parse_ip(address)?, u16::from_str_radix(port, 16).ok()?);
        let socket = format!("socket:[{}]", fields.get(9)?);
        (fields.get(3) == Some(&LISTENS)).then_some((address, socket))
    };
    table.lines().filter_map(read).collect()
}

/// An address of a table: words of 32 bits in the byte order of the machine.
fn parse_ip(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = digits.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
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
        let own = Some(std::process::id());
        assert_eq!(port_holder(&address).map(|(pid, _)| pid), own);
        let port = listener.local_addr().unwrap().port();
        for all in [format!("0.0.0.0:{port}"), format!("[::]:{port}"), format!("[::ffff:127.0.0.1]:{port}")] {
            assert_eq!(port_holder(&all).map(|(pid, _)| pid), own, "{all}");
        }
        assert_eq!(port_holder(&format!("127.0.0.2:{port}")), None);
        assert_eq!(port_holder(&format!("[::1]:{port}")), None);
        drop(listener);
        assert_eq!(port_holder("nonsense"), None);
    }

    #[test]
    fn addresses_of_a_table_are_read() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let word = |bytes| match u32::from_le_bytes(bytes) {
            word if cfg!(target_endian = "big") => word.swap_bytes(),
            word => word,
        };
        assert_eq!(parse_ip(&format!("{:08X}", word([127, 0, 0, 1]))), Some(ip("127.0.0.1")));
        assert_eq!(parse_ip(&format!("{:024}{:08X}", 0, word([0, 0, 0, 1]))), Some(ip("::1")));
        assert_eq!(parse_ip("local_address"), None);
    }
}
