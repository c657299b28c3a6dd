//! Which servers there are, and how connections to them are opened.

use std::future::Future;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, from_redis_value,
};

use super::link::Link;
use super::options::{RedisMode, RedisOptions};
use crate::error::{Error, Kind, Result};

/// How long a call within a cluster may take with all its redirections, if its caller waits for so long.
const CLUSTER_RESPONSE_MAX: Duration = Duration::from_secs(5);
/// Opening connections to all servers of a cluster takes so many times that of one.
const CLUSTER_CONNECT_FACTOR: u32 = 8;
/// Waits of a cluster's client before it tries a server again, in milliseconds.
const CLUSTER_RETRY_MS: (u64, u64) = (5, 50);

/// The servers of the configuration.
pub(super) struct Servers {
    mode: RedisMode,
    /// The server, the seeds of the cluster, or the Sentinels.
    nodes: Vec<ConnectionInfo>,
    /// User, password and database for servers that hold data.
    credentials: RedisConnectionInfo,
    sentinel_service: String,
    certificates: Option<TlsCertificates>,
    connect_max: Duration,
}

impl Servers {
    /// `None` if no server is configured.
    ///
    /// # Errors
    /// `Config` if the file of certificates cannot be used.
    pub(super) fn new(options: &RedisOptions) -> Result<Option<Servers>> {
        let mut nodes = options.servers()?;
        let Some(first) = nodes.first() else { return Ok(None) };
        let credentials = first.redis_settings().clone();
        match options.mode {
            RedisMode::Standalone | RedisMode::Cluster => {
                nodes = nodes.into_iter().map(|node| node.set_redis_settings(credentials.clone())).collect();
            }
            // Those of the first address are for the servers that Sentinels name.
            RedisMode::Sentinel => {
                nodes[0] = nodes[0].clone().set_redis_settings(RedisConnectionInfo::default())
            }
        }
        let servers = Servers {
            mode: options.mode,
            nodes,
            credentials,
            sentinel_service: options.sentinel_service.clone().unwrap_or_default(),
            certificates: certificates(options)?,
            connect_max: Duration::from_millis(options.connect_ms_max),
        };
        servers.check()?;
        Ok(Some(servers))
    }

    /// Certificates and seeds that cannot be used are found at the start.
    fn check(&self) -> Result<()> {
        let fault = |error: RedisError| {
            Error::new(Kind::Config, "cannot use the servers of redis.url and redis.urls").source(error)
        };
        if self.mode == RedisMode::Cluster {
            return self.cluster().map(|_| ()).map_err(fault);
        }
        self.nodes.iter().try_for_each(|node| self.client(node.clone()).map(|_| ())).map_err(fault)
    }

    /// How the servers belong together.
    pub(super) fn mode(&self) -> RedisMode {
        self.mode
    }

    /// How many seeds a dedicated connection may be opened to.
    pub(super) fn seeds(&self) -> usize {
        if self.mode == RedisMode::Cluster { self.nodes.len() } else { 1 }
    }

    /// A connection for many calls, on which a server has answered, and the server's address if it may change.
    pub(super) async fn connect(&self) -> RedisResult<(Link, Option<ConnectionAddr>)> {
        match self.mode {
            RedisMode::Standalone => Ok((Link::Single(self.open(self.nodes[0].clone()).await?), None)),
            RedisMode::Cluster => {
                let limit = self.connect_max * CLUSTER_CONNECT_FACTOR;
                let connection = within(limit, self.cluster()?.get_async_connection()).await?;
                Ok((Link::Cluster(connection), None))
            }
            RedisMode::Sentinel => {
                let address = self.primary().await?;
                let connection = self.open_primary(&address).await?;
                Ok((Link::Single(connection), Some(address)))
            }
        }
    }

    /// A connection for one caller, to `address` if a server has named it, otherwise to the seed of this number, of which there are
    /// as many as there are and then again.
    pub(super) async fn connect_dedicated(
        &self,
        address: Option<&ConnectionAddr>,
        seed: usize,
    ) -> RedisResult<MultiplexedConnection> {
        match (self.mode, address) {
            (RedisMode::Standalone, _) => self.open(self.nodes[0].clone()).await,
            (RedisMode::Sentinel, _) => self.open_primary(&self.primary().await?).await,
            (RedisMode::Cluster, Some(address)) => self.open(self.data_server(address.clone())).await,
            (RedisMode::Cluster, None) => self.open(self.nodes[seed % self.nodes.len()].clone()).await,
        }
    }

    /// The address that a cluster's server has named in a redirection, `host:port`. Without a host it is that of `asked`.
    pub(super) fn redirected(
        &self,
        named: &str,
        asked: Option<&ConnectionAddr>,
        seed: usize,
    ) -> Option<ConnectionAddr> {
        let (host, port) = named.rsplit_once(':')?;
        let asked = asked.unwrap_or_else(|| self.nodes[seed % self.nodes.len()].addr());
        let host = match (host, asked) {
            ("", ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) => host,
            (host, _) => host,
        };
        Some(like(self.nodes[0].addr(), host.to_owned(), port.parse().ok()?))
    }

    /// The address of the primary, from the first Sentinel that knows it.
    pub(super) async fn primary(&self) -> RedisResult<ConnectionAddr> {
        let mut fault = RedisError::from((ErrorKind::EmptySentinelList, "no Sentinel is configured"));
        for node in &self.nodes {
            match self.ask_sentinel(node).await {
                Ok(address) => return Ok(address),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    async fn ask_sentinel(&self, node: &ConnectionInfo) -> RedisResult<ConnectionAddr> {
        let ask = async {
            let mut sentinel = self.open(node.clone()).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.sentinel_service);
            let address: Option<(String, u16)> = command.query_async(&mut sentinel).await?;
            let unknown =
                (ErrorKind::MasterNameNotFoundBySentinel, "Sentinel does not know redis.sentinel_service");
            let (host, port) = address.ok_or(unknown)?;
            Ok(like(self.nodes[0].addr(), host, port))
        };
        within(self.connect_max, ask).await
    }

    /// Right after a failover a Sentinel may still name the former primary, which is a replica now.
    async fn open_primary(&self, address: &ConnectionAddr) -> RedisResult<MultiplexedConnection> {
        let mut connection = self.open(self.data_server(address.clone())).await?;
        let role = within(self.connect_max, Cmd::new().arg("ROLE").query_async(&mut connection)).await;
        let role = match role {
            Ok(role) => from_redis_value::<Vec<redis::Value>>(role)?.into_iter().next(),
            // A user without the right to ask learns it from the first write.
            Err(error) if error.code() == Some("NOPERM") => None,
            Err(error) => return Err(error),
        };
        match role {
            Some(redis::Value::BulkString(role)) if role != b"master" => {
                Err((ErrorKind::MasterNameNotFoundBySentinel, "the primary that Sentinel names is a replica")
                    .into())
            }
            Some(_) | None => Ok(connection),
        }
    }

    /// A connection on which the server has answered.
    async fn open(&self, node: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_max))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let client = self.client(node)?;
        let open = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            redis::cmd("PING").query_async::<()>(&mut connection).await.or_else(allowing_no_permission)?;
            Ok(connection)
        };
        within(self.connect_max, open).await
    }

    fn data_server(&self, address: ConnectionAddr) -> ConnectionInfo {
        self.nodes[0].clone().set_addr(address).set_redis_settings(self.credentials.clone())
    }

    fn client(&self, node: ConnectionInfo) -> RedisResult<Client> {
        let node = node.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        match (&self.certificates, node.addr()) {
            (Some(certificates), ConnectionAddr::TcpTls { .. }) => {
                Client::build_with_tls(node, certificates.clone())
            }
            _ => Client::open(node),
        }
    }

    fn cluster(&self) -> RedisResult<ClusterClient> {
        let builder = ClusterClient::builder(self.nodes.clone())
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .connection_timeout(self.connect_max)
            .response_timeout(CLUSTER_RESPONSE_MAX)
            .min_retry_wait(CLUSTER_RETRY_MS.0)
            .max_retry_wait(CLUSTER_RETRY_MS.1);
        match &self.certificates {
            Some(certificates) => builder.certs(certificates.clone()).build(),
            None => builder.build(),
        }
    }
}

/// Requests that may wait to be written to a connection.
const PIPELINE_BUFFER: usize = 256;

/// A server that lets its user not even PING has answered, too.
fn allowing_no_permission(error: RedisError) -> RedisResult<()> {
    if error.code() == Some("NOPERM") { Ok(()) } else { Err(error) }
}

async fn within<T>(limit: Duration, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let timeout = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(timeout()))
}

/// An address with TLS where `pattern` has it.
fn like(pattern: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    if let ConnectionAddr::TcpTls { .. } = pattern {
        return ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
    }
    ConnectionAddr::Tcp(host, port)
}

fn certificates(options: &RedisOptions) -> Result<Option<TlsCertificates>> {
    // The first to need TLS chooses its cryptography for the process; all of them choose the same.
    _ = rustls::crypto::ring::default_provider().install_default();
    let Some(file) = &options.tls_ca_file else { return Ok(None) };
    let root_cert = fs_err::read(file).map_err(|error| {
        Error::new(Kind::Config, "cannot read redis.tls_ca_file")
            .source(error)
            .advise("give it the name of a readable file with certificates in PEM format")
    })?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) }))
}
