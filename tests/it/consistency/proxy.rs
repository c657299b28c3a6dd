//! A TCP proxy whose network fails as a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::kill::splitmix;

/// Bytes that are read at once, and lost or delayed as one.
const CHUNK_BYTES: usize = 16 * 1024;
/// Delayed chunks of one direction; a sender waits for a place.
const DELAYED_CHUNKS_MAX: usize = 1024;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    Pass,
    /// Each chunk arrives `fixed` and up to `jitter` later, in order.
    Delay {
        fixed: Duration,
        jitter: Duration,
    },
    /// Of a thousand connections, and of a thousand chunks, so many are lost: the connection is reset.
    Lossy {
        per_mille: u64,
    },
    /// Connections are accepted and what arrives is swallowed: neither side sees an end, until after it.
    HalfOpen,
    /// All connections are reset, new ones at once.
    Cut,
}

/// A proxy in front of one server. It ends with its owner.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    path: watch::Sender<Path>,
    draws: AtomicU64,
    resets: AtomicU64,
    swallowed: AtomicU64,
}

/// Where the connections of a moment lead. Those of another generation are reset.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Path {
    fault: Fault,
    target: SocketAddr,
    generation: u64,
}

impl Proxy {
    pub(super) async fn start(target: SocketAddr, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let path = watch::Sender::new(Path { fault: Fault::Pass, target, generation: 0 });
        let count = || AtomicU64::new(0);
        let state = State { path, draws: AtomicU64::new(seed), resets: count(), swallowed: count() };
        let state = Arc::new(state);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Proxy { address, state, accepting }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set(&self, fault: Fault) {
        self.state.path.send_modify(|path| path.fault = fault);
    }

    /// Leads to another server from now on; connections to the one before are reset.
    pub(super) fn lead_to(&self, target: SocketAddr) {
        self.state.path.send_modify(|path| {
            path.target = target;
            path.generation += 1;
        });
    }

    /// Connections that it has reset.
    pub(super) fn resets(&self) -> u64 {
        self.state.resets.load(Ordering::Relaxed)
    }

    /// Bytes that it has swallowed.
    pub(super) fn swallowed(&self) -> u64 {
        self.state.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn path(&self) -> Path {
        *self.path.borrow()
    }

    fn draw(&self) -> u64 {
        splitmix(self.draws.fetch_add(1, Ordering::Relaxed))
    }

    fn is_lost(&self) -> bool {
        matches!(self.path().fault, Fault::Lossy { per_mille } if self.draw() % 1000 < per_mille)
    }

    /// How much later a chunk arrives.
    fn delay(&self) -> Duration {
        let Fault::Delay { fixed, jitter } = self.path().fault else { return Duration::ZERO };
        let jitter_us = u64::try_from(jitter.as_micros()).expect("a short time");
        fixed + Duration::from_micros(self.draw() % (jitter_us + 1))
    }

    fn reset(&self, stream: &TcpStream) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        // A socket that is gone already cannot be reset.
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(connection(client, Arc::clone(&state)));
    }
}

async fn connection(client: TcpStream, state: Arc<State>) {
    let path = state.path();
    if path.fault == Fault::Cut || state.is_lost() {
        return state.reset(&client);
    }
    let server = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(path.target)).await;
    let Ok(Ok(server)) = server else { return state.reset(&client) };
    // Chunks are already what was written at once.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client, mut server) = (client, server);
    let is_reset = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let mut watched = state.path.subscribe();
        tokio::select! {
            is_reset = relay(from_client, to_server, &state) => is_reset,
            is_reset = relay(from_server, to_client, &state) => is_reset,
            _ = watched.wait_for(|now| now.fault == Fault::Cut || now.generation != path.generation) => true,
        }
    };
    if is_reset {
        state.reset(&client);
        state.reset(&server);
    }
}

/// Carries one direction until its end, which is true if the connection is to be reset.
async fn relay(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &State,
) -> bool {
    let (sender, mut delayed) = mpsc::channel::<(Instant, Vec<u8>)>(DELAYED_CHUNKS_MAX);
    let read = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let Ok(count) = from.read(&mut chunk).await else { return true };
            if count == 0 {
                return false;
            }
            if state.is_lost() {
                return true;
            }
            let due = Instant::now() + state.delay();
            if sender.send((due, chunk[..count].to_vec())).await.is_err() {
                return true;
            }
        }
    };
    let write = async {
        let mut has_swallowed = false;
        while let Some((due, chunk)) = delayed.recv().await {
            tokio::time::sleep_until(due).await;
            if state.path().fault == Fault::HalfOpen {
                state.swallowed.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                has_swallowed = true;
            } else if has_swallowed {
                // TCP loses no bytes of a connection that goes on.
                return true;
            } else if to.write_all(&chunk).await.is_err() {
                return true;
            }
        }
        false
    };
    tokio::select! { end = read => end, end = write => end }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what it gets.
    async fn echo(prefix: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut chunk = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
                        let reply = [prefix, &chunk[..count]].concat();
                        if stream.write_all(&reply).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    /// The reply; none if the connection is refused or ends.
    async fn ask(stream: &mut TcpStream, question: &[u8], reply_bytes: usize) -> Option<Vec<u8>> {
        let mut reply = vec![0; reply_bytes];
        stream.write_all(question).await.ok()?;
        stream.read_exact(&mut reply).await.ok()?;
        Some(reply)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    async fn is_silent(stream: &mut TcpStream) -> bool {
        let wait = Duration::from_millis(100);
        tokio::time::timeout(wait, ask(stream, b"hello", 5)).await.is_err()
    }

    #[tokio::test]
    async fn bytes_pass_and_a_delay_holds_them_in_order() {
        let proxy = Proxy::start(echo(b"").await, 1).await;
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, b"hello", 5).await.unwrap(), b"hello");
        let fixed = Duration::from_millis(30);
        proxy.set(Fault::Delay { fixed, jitter: Duration::from_millis(20) });
        let (sent, mut expected) = (Instant::now(), Vec::new());
        for n in 0..20_u8 {
            stream.write_all(&[n]).await.unwrap();
            expected.push(n);
        }
        assert_eq!(ask(&mut stream, &[20], 21).await.unwrap(), [expected, vec![20]].concat());
        assert!(sent.elapsed() >= 2 * fixed, "both ways are slow");
    }

    #[tokio::test]
    async fn a_half_open_connection_says_nothing_and_a_new_one_neither() {
        let proxy = Proxy::start(echo(b"").await, 1).await;
        let mut old = connect(&proxy).await;
        assert!(ask(&mut old, b"hello", 5).await.is_some());
        proxy.set(Fault::HalfOpen);
        assert!(is_silent(&mut old).await);
        assert!(is_silent(&mut connect(&proxy).await).await);
        assert_eq!(proxy.swallowed(), 10);
        proxy.set(Fault::Pass);
        assert!(ask(&mut old, b"again", 5).await.is_none(), "bytes are missing, so it is reset");
        assert!(ask(&mut connect(&proxy).await, b"hello", 5).await.is_some());
    }

    #[tokio::test]
    async fn a_cut_resets_old_and_new_connections() {
        let proxy = Proxy::start(echo(b"").await, 1).await;
        let mut stream = connect(&proxy).await;
        assert!(ask(&mut stream, b"hello", 5).await.is_some());
        proxy.set(Fault::Cut);
        let end = stream.read(&mut [0; 1]).await;
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert!(ask(&mut connect(&proxy).await, b"hello", 5).await.is_none());
        proxy.set(Fault::Pass);
        assert!(ask(&mut connect(&proxy).await, b"hello", 5).await.is_some());
        assert!(proxy.resets() >= 2);
    }

    #[tokio::test]
    async fn connections_lead_to_another_server() {
        let proxy = Proxy::start(echo(b"one ").await, 1).await;
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, b"hello", 9).await.unwrap(), b"one hello");
        proxy.lead_to(echo(b"two ").await);
        assert!(stream.read(&mut [0; 1]).await.is_err(), "the old one is reset");
        assert_eq!(ask(&mut connect(&proxy).await, b"hello", 9).await.unwrap(), b"two hello");
    }

    #[tokio::test]
    async fn a_share_of_connections_and_chunks_is_lost() {
        let proxy = Proxy::start(echo(b"").await, 7).await;
        proxy.set(Fault::Lossy { per_mille: 100 });
        let (mut answered, mut lost) = (0, 0);
        for _ in 0..300 {
            match ask(&mut connect(&proxy).await, b"hello", 5).await {
                Some(_) => answered += 1,
                None => lost += 1,
            }
        }
        // Three draws each, at the connection and both ways: 27 % in the mean.
        assert!((45..120).contains(&lost) && answered + lost == 300, "{lost} of 300 were lost");
        // The last reset may still be on its way.
        assert!(proxy.resets() >= lost);
    }
}
