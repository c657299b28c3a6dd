//! A rival server, measured beside ours.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::Connection;

/// How long one may take to start.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);

/// A server in a process of its own, ended with the benchmark.
pub struct Rival {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Rival {
    /// Starts what `command` makes of a free port, and waits until it answers `GET path` with 200; nothing if it is not
    /// there, or does not.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(command: impl FnOnce(u16) -> Command, path: &str) -> Option<Rival> {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let child = command(address.port()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let rival = Rival { child, address };
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let started = Instant::now();
        while !rival.is_ready(request.as_bytes()).await {
            if started.elapsed() > PATIENCE {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
        Some(rival)
    }

    async fn is_ready(&self, request: &[u8]) -> bool {
        match tokio::net::TcpStream::connect(self.address).await {
            Ok(_) => Connection::open(self.address).await.ask(request).await.0 == 200,
            Err(_) => false,
        }
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
