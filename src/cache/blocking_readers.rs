//! Threads that read from the disk, because a page fault blocks.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::error::{Error, Result};

/// Two are enough to overlap a page fault with a copy.
const THREADS: usize = 2;

/// Reads waiting for a thread; a caller beyond that waits for room.
const QUEUED_MAX: usize = 1024;

type Read = Box<dyn FnOnce() + Send>;

/// A few threads and their queue. Dropping it ends them.
pub(super) struct BlockingReaders {
    queue: Option<mpsc::Sender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl BlockingReaders {
    /// Starts the threads, named after `name`.
    pub(super) fn start(name: &str) -> Result<BlockingReaders> {
        let (queue, inbox) = mpsc::channel::<Read>(QUEUED_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        let threads = (0..THREADS)
            .map(|n| {
                let inbox = Arc::clone(&inbox);
                std::thread::Builder::new()
                    .name(format!("{name}-reader-{n}"))
                    .spawn(move || serve(&inbox))
                    .map_err(|error| Error::io("cannot start a disk reader", error))
            })
            .collect::<Result<_>>()?;
        Ok(BlockingReaders { queue: Some(queue), threads })
    }

    /// What `read` returns; none if the threads have ended. A read whose asker has left is not begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let read = move || {
            if !reply.is_closed() {
                // The asker may leave meanwhile.
                let _ = reply.send(read());
            }
        };
        self.queue.as_ref()?.send(Box::new(read)).await.ok()?;
        answer.await.ok()
    }
}

fn serve(inbox: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        let next = inbox.blocking_lock().blocking_recv();
        let Some(read) = next else { return };
        read();
    }
}

impl Drop for BlockingReaders {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A reader that panicked has been reported by the panic itself.
            let _ = thread.join();
        }
    }
}
