//! Servers that belong together: a cluster, a primary with Sentinels, a server with TLS, one with users.

use std::process::Command;

use tempfile::TempDir;

use super::servers::{Program, RedisServer, until};

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Three masters with a replica each.
pub(crate) struct RedisCluster {
    /// The masters first; replica n is of master n.
    pub(crate) nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub(crate) fn start(program: Program) -> RedisCluster {
        let node = |_| {
            RedisServer::start_with(program, |_, _| {
                let bus = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                let bus = bus.to_string();
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-port", bus.as_str()]
                    .map(String::from)
                    .into()
            })
        };
        let cluster = RedisCluster { nodes: (0..2 * MASTERS).map(node).collect() };
        cluster.join();
        cluster
    }

    fn join(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            node.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
            let bus = |node: &RedisServer| {
                let port: Vec<String> = node.ask("CONFIG GET cluster-port");
                format!("CLUSTER MEET 127.0.0.1 {} {}", node.port(), port[1])
            };
            self.nodes[0].ask::<()>(&bus(node));
        }
        for (n, master) in self.nodes[..MASTERS].iter().enumerate() {
            let (from, to) = (SLOTS * n / MASTERS, SLOTS * (n + 1) / MASTERS - 1);
            master.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
        }
        until("all nodes know each other", || {
            self.nodes
                .iter()
                .all(|node| node.ask::<String>("CLUSTER NODES").lines().count() == self.nodes.len())
        });
        for n in 0..MASTERS {
            let master: String = self.nodes[n].ask("CLUSTER MYID");
            self.nodes[MASTERS + n].ask::<()>(&format!("CLUSTER REPLICATE {master}"));
        }
        until("the cluster is whole", || self.nodes.iter().all(|node| self.is_whole_at(node)));
    }

    fn is_whole_at(&self, node: &RedisServer) -> bool {
        let is_ok = node.ask::<String>("CLUSTER INFO").contains("cluster_state:ok");
        let replicas = node.ask::<String>("CLUSTER NODES").matches("slave").count();
        let replication = node.ask::<String>("INFO replication");
        let is_linked = replication.contains("role:master") || replication.contains("master_link_status:up");
        is_ok && is_linked && replicas == MASTERS
    }

    /// Addresses of all nodes.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url().to_owned()).collect()
    }

    /// The number of the master that has a slot.
    pub(crate) fn master_of(&self, slot: usize) -> usize {
        (0..MASTERS).find(|n| slot < SLOTS * (n + 1) / MASTERS).unwrap()
    }

    /// Moves a slot with its keys to another master, and calls `meanwhile` once its keys have moved and the slot has not.
    pub(crate) async fn move_slot(&self, slot: usize, to: usize, meanwhile: impl AsyncFnOnce()) {
        let (source, target) = (&self.nodes[self.master_of(slot)], &self.nodes[to]);
        let id = |node: &RedisServer| node.ask::<String>("CLUSTER MYID");
        target.ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(source)));
        source.ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(target)));
        for key in source.ask::<Vec<String>>(&format!("CLUSTER GETKEYSINSLOT {slot} 1000")) {
            source.ask::<()>(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", target.port()));
        }
        meanwhile().await;
        for node in [target, source] {
            node.ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {}", id(target)));
        }
    }
}

/// A primary, a replica, and three Sentinels that watch them.
pub(crate) struct WatchedServers {
    pub(crate) primary: RedisServer,
    pub(crate) replica: RedisServer,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl WatchedServers {
    /// The name under which they are watched.
    pub(crate) const SERVICE: &str = "mymaster";

    pub(crate) fn start() -> WatchedServers {
        let primary = RedisServer::start(Program::Redis);
        let port = primary.port();
        let replica = RedisServer::start_with(Program::Redis, |_, _| {
            vec!["--replicaof".into(), "127.0.0.1".into(), port.to_string()]
        });
        until("the replica follows", || {
            replica.ask::<String>("INFO replication").contains("master_link_status:up")
        });
        let sentinel = |_| {
            RedisServer::start_with(Program::Sentinel, |own, dir| {
                let service = WatchedServers::SERVICE;
                let text = format!(
                    "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor {service} 127.0.0.1 {port} 2\n\
                     sentinel down-after-milliseconds {service} 1000\nsentinel failover-timeout {service} 10000\n",
                    dir.display()
                );
                let file = dir.join("sentinel.conf");
                fs_err::write(&file, text).unwrap();
                vec![file.display().to_string()]
            })
        };
        let watched = WatchedServers { primary, replica, sentinels: (0..3).map(sentinel).collect() };
        until("the Sentinels know all servers", || watched.sentinels.iter().all(knows_all));
        watched
    }
}

fn knows_all(sentinel: &RedisServer) -> bool {
    let text: String = sentinel.ask("INFO sentinel");
    text.contains("slaves=1") && text.contains("sentinels=3") && text.contains("status=ok")
}

/// Certificates of a server on this machine, and of who has signed them.
pub(crate) struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Certificates {
        let dir = TempDir::new().unwrap();
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key \
                          -out ca.pem -subj /CN=ca && \
                      openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key \
                          -out server.csr -subj /CN=server && \
                      printf 'subjectAltName=IP:127.0.0.1' > san && \
                      openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san \
                          -out server.pem";
        let output = Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl fails ({said}); type scripts/setup.sh test");
        Certificates { dir }
    }

    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A server that speaks TLS only.
    pub(crate) fn server(&self) -> RedisServer {
        let root_cert = fs_err::read(self.file("ca.pem")).unwrap();
        let url = |port| format!("rediss://127.0.0.1:{port}/");
        RedisServer::start_guarded(Program::Redis, url, Some(root_cert), |port, _| {
            let file = |name: &str| self.file(name).display().to_string();
            let port = port.to_string();
            let files = [file("server.pem"), file("server.key"), file("ca.pem")];
            let options = ["--tls-port", "--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"];
            let mut arguments: Vec<String> = options
                .into_iter()
                .map(String::from)
                .zip([port].into_iter().chain(files))
                .flat_map(|(o, v)| [o, v])
                .collect();
            arguments.extend(["--tls-auth-clients".into(), "no".into()]);
            arguments
        })
    }
}

/// A server whose users are `admin`, who may do all, and `node` with rights as the rules say. Both have the password `se:cret`.
pub(crate) fn server_with_user(rules: &str) -> RedisServer {
    let url = |port| format!("redis://admin:se%3Acret@127.0.0.1:{port}/");
    RedisServer::start_guarded(Program::Valkey, url, None, |_, dir| {
        let file = dir.join("users.acl");
        let text =
            format!("user default off\nuser admin on >se:cret ~* &* +@all\nuser node on >se:cret {rules}\n");
        fs_err::write(&file, text).unwrap();
        vec!["--aclfile".into(), file.display().to_string()]
    })
}
