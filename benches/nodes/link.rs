//! A TCP proxy between a node and Redis that can be cut: what is sent meanwhile arrives once it is mended, as after a lost route.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A link. It ends with the benchmark.
pub(crate) struct Link {
    port: u16,
    is_cut: watch::Sender<bool>,
}

impl Link {
    /// A link to a server on this machine.
    pub(crate) async fn to(port: u16) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let (is_cut, seen) = watch::channel(false);
        tokio::spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], port)), seen));
        Link { port: own, is_cut }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts or mends it, in both directions.
    pub(crate) fn set_cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, is_cut: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        let is_cut = is_cut.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::join!(pass(from_client, to_server, is_cut.clone()), pass(from_server, to_client, is_cut));
        });
    }
}

/// Passes bytes on until one side closes.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if is_cut.wait_for(|is_cut| !is_cut).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
