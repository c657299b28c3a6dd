//! A proxy that puts a bug into a node: the node's follower of events sees that there are none.
//!
//! What the node asks its follower's connection is answered with the reply to the same question of before, which says
//! that nothing has changed. All other connections reach Redis. So the node reads and writes, believes that it is up to date,
//! and neither applies events nor notices a gap.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::program::until;

/// What only a follower sends.
const MARK: &[u8] = b"XREAD";
/// About as long as Redis waits for an event.
const WAIT: Duration = Duration::from_millis(50);

/// The proxy. It ends with its owner.
pub(super) struct ReplayingProxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    replies: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// Whether a follower has asked twice for the same.
    has_repeated: AtomicBool,
    is_replaying: AtomicBool,
    replayed: AtomicU64,
}

impl ReplayingProxy {
    pub(super) async fn start(target: SocketAddr) -> ReplayingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<State>::default();
        let accepting = tokio::spawn(accept(listener, target, Arc::clone(&state)));
        ReplayingProxy { address, state, accepting }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the follower has nothing to do, and keeps it there.
    pub(super) async fn freeze(&self) {
        let has_repeated = async || self.state.has_repeated.load(Ordering::Relaxed);
        until("the follower repeats its question", has_repeated).await;
        self.state.is_replaying.store(true, Ordering::Relaxed);
        // The question that was under way has its real answer by then.
        until("the follower is answered by the proxy", async || self.replayed() > 0).await;
    }

    /// Replies that were given again.
    pub(super) fn replayed(&self) -> u64 {
        self.state.replayed.load(Ordering::Relaxed)
    }
}

impl Drop for ReplayingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    /// Remembers the reply to a question that has been answered to its end.
    fn remember(&self, question: Vec<u8>, reply: Vec<u8>) {
        if !self.is_replaying.load(Ordering::Relaxed) {
            self.replies.lock().unwrap().insert(question, reply);
        }
    }

    fn replay(&self, question: &[u8]) -> Option<Vec<u8>> {
        let reply = self.replies.lock().unwrap().get(question).cloned()?;
        self.has_repeated.store(true, Ordering::Relaxed);
        self.is_replaying.load(Ordering::Relaxed).then_some(reply)
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            if let Ok(server) = TcpStream::connect(target).await {
                // A connection ends as either side ends it.
                let _ = relay(client, server, &state).await;
            }
        });
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, state: &State) -> std::io::Result<()> {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // The question that is being answered, and what was answered so far.
    let mut open: Option<(Vec<u8>, Vec<u8>)> = None;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let question = match read? { 0 => return Ok(()), count => &from_client[..count] };
                if let Some((question, reply)) = open.take() {
                    state.remember(question, reply);
                }
                if question.windows(MARK.len()).any(|bytes| bytes == MARK) {
                    if let Some(reply) = state.replay(question) {
                        tokio::time::sleep(WAIT).await;
                        state.replayed.fetch_add(1, Ordering::Relaxed);
                        client.write_all(&reply).await?;
                        continue;
                    }
                    open = Some((question.to_vec(), Vec::new()));
                }
                server.write_all(question).await?;
            }
            read = server.read(&mut from_server) => {
                let reply = match read? { 0 => return Ok(()), count => &from_server[..count] };
                if let Some((_, replied)) = &mut open {
                    replied.extend_from_slice(reply);
                }
                client.write_all(reply).await?;
            }
        }
    }
}
