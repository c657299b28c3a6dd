//! Whether a connection leads to the server of the one before, with all that it had.

use std::time::Duration;

use super::link::Link;

/// The process of a server, and its history of replication: a primary that was demoted and promoted again has another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerIdentity {
    run_id: String,
    replication_id: String,
}

/// The server that is connected to.
#[derive(Debug, Default)]
pub(super) struct ConnectedServer {
    /// 0 before the first connection.
    pub(super) number: u64,
    identity: Option<ServerIdentity>,
}

impl ServerIdentity {
    /// That of the server at the end of a connection. `None` if it does not say, or if there are many.
    pub(super) async fn of(link: &Link, limit: Duration) -> Option<ServerIdentity> {
        if matches!(link, Link::Cluster(_)) {
            return None;
        }
        let info = async |section: &str| {
            let mut command = redis::cmd("INFO");
            command.arg(section);
            let reply = tokio::time::timeout(limit, link.clone().command(&command)).await.ok()?.ok()?;
            redis::from_redis_value::<String>(reply).ok()
        };
        let run_id = field(&info("server").await?, "run_id")?;
        let replication_id = field(&info("replication").await?, "master_replid")?;
        Some(ServerIdentity { run_id, replication_id })
    }
}

impl ConnectedServer {
    /// There is a new connection, to a server with this identity.
    pub(super) fn connected(&mut self, identity: Option<ServerIdentity>) {
        if identity.is_none() || identity != self.identity {
            self.number += 1;
        }
        self.identity = identity;
    }
}

fn field(info: &str, name: &str) -> Option<String> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned());
    info.lines().find_map(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_another_number_unless_it_says_that_it_is_the_same() {
        let identity = |run_id: &str, replication_id: &str| {
            Some(ServerIdentity { run_id: run_id.into(), replication_id: replication_id.into() })
        };
        let mut server = ConnectedServer::default();
        let mut number_after = |identity| {
            server.connected(identity);
            server.number
        };
        assert_eq!(number_after(identity("a", "x")), 1);
        assert_eq!(number_after(identity("a", "x")), 1);
        assert_eq!(number_after(identity("a", "y")), 2, "demoted and promoted again");
        assert_eq!(number_after(identity("b", "y")), 3, "restarted");
        assert_eq!(number_after(None), 4);
        assert_eq!(number_after(None), 5, "it does not say");
    }

    #[test]
    fn fields_are_read_of_what_a_server_says() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\ntcp_port:1\r\nempty:\r\n";
        assert_eq!(field(info, "run_id").as_deref(), Some("abc"));
        assert_eq!((field(info, "run"), field(info, "empty")), (None, None));
    }
}
