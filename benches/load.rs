//! An HTTP/1.1 load over keep-alive connections: it writes prepared bytes and reads until the answer's length, or its last
//! chunk, is reached, so that most of the machine is left to the server.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A connection with its buffer.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// When an answer came, counted from the request.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The first byte of its body.
    pub first_byte: Duration,
    /// The last one.
    pub last_byte: Duration,
}

/// An answer in the buffer.
struct Exchanged {
    status: u16,
    /// Where its body stands.
    body: Range<usize>,
    /// When the first byte of the body was there.
    first_byte: Instant,
}

/// Where the body of an answer ends.
#[derive(Clone, Copy)]
enum End {
    At(usize),
    /// With the chunk of no bytes.
    Chunked,
}

impl Connection {
    /// Connects.
    ///
    /// # Panics
    /// If the server does not accept.
    pub async fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).await.expect("the server accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        Connection { stream, buffer: vec![0; 64 * 1024] }
    }

    /// Sends a request and returns the status and the body.
    ///
    /// # Panics
    /// If the connection breaks or the answer is no HTTP.
    pub async fn ask(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        let Exchanged { status, body, .. } = self.exchange(request).await;
        (status, self.buffer[body].to_vec())
    }

    /// Sends a request and returns the status, the head and the body.
    ///
    /// # Panics
    /// If the connection breaks or the answer is no HTTP.
    pub async fn ask_whole(&mut self, request: &[u8]) -> (u16, String, Vec<u8>) {
        let Exchanged { status, body, .. } = self.exchange(request).await;
        let head = String::from_utf8_lossy(&self.buffer[..body.start]).into_owned();
        (status, head, self.buffer[body].to_vec())
    }

    /// Sends a request and returns when its answer came.
    ///
    /// # Panics
    /// If the connection breaks, or the answer is not 200.
    pub async fn time(&mut self, request: &[u8]) -> Times {
        let started = Instant::now();
        let Exchanged { status, first_byte, body } = self.exchange(request).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&self.buffer[body]));
        Times { first_byte: first_byte - started, last_byte: started.elapsed() }
    }

    /// Sends a request and reads the answer into the buffer.
    async fn exchange(&mut self, request: &[u8]) -> Exchanged {
        self.stream.write_all(request).await.expect("the server reads");
        let (mut filled, mut head, mut first_byte) = (0, None, None);
        loop {
            if let Some((from, end)) = head {
                if filled > from {
                    first_byte.get_or_insert_with(Instant::now);
                }
                let to = match end {
                    End::At(to) => (filled >= to).then_some(to),
                    End::Chunked => self.buffer[from..filled].ends_with(b"0\r\n\r\n").then_some(filled),
                };
                if let Some(to) = to {
                    let status =
                        std::str::from_utf8(&self.buffer[9..12]).ok().and_then(|text| text.parse().ok());
                    let first_byte = first_byte.unwrap_or_else(Instant::now);
                    return Exchanged { status: status.expect("a status"), body: from..to, first_byte };
                }
            }
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            filled += read;
            head = head.or_else(|| extent(&self.buffer[..filled]));
        }
    }
}

/// Where the body of an answer begins and ends, once its head is complete.
fn extent(answer: &[u8]) -> Option<(usize, End)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(from) = head.parse(answer).expect("answers are HTTP") else { return None };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let digits: &[u8] = match length {
        Some(length) => length.value,
        // No body.
        None if head.code == Some(204) => b"0",
        None => return Some((from, End::Chunked)),
    };
    let length = digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    Some((from, End::At(from + length)))
}

/// The bytes of a GET.
pub fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes()
}

/// The bytes of a POST with a JSON body.
pub fn post(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Requests a second with `connections` that each ask the next one of `requests` as soon as they are answered.
///
/// # Panics
/// If an answer is not 200.
pub async fn closed_loop(
    address: SocketAddr,
    requests: &[Arc<[u8]>],
    connections: usize,
    time: Duration,
) -> f64 {
    let started = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|first| {
            let requests = requests.to_vec();
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut answered = 0_u64;
                let mut next = requests.iter().cycle().skip(first % requests.len());
                while started.elapsed() < time {
                    let request = next.next().expect("a cycle has no end");
                    assert_eq!(connection.exchange(request).await.status, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        answered += task.await.expect("a connection task ends");
    }
    answered as f64 / started.elapsed().as_secs_f64()
}

/// Milliseconds of each request at a rate that does not wait for answers, sorted; as [`open_loop_answers`].
///
/// # Panics
/// If an answer is not 200.
pub async fn open_loop(
    address: SocketAddr,
    requests: &[Arc<[u8]>],
    per_second: f64,
    connections: usize,
    time: Duration,
) -> Vec<f64> {
    let answers = open_loop_answers(address, requests, per_second, connections, time).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "all are answered with 200");
    let mut times: Vec<f64> = answers.into_iter().map(|(_, millis)| millis).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Status and milliseconds of each request at a rate that does not wait for answers: every millisecond a burst is due, spread over
/// `connections` in turn, and its time counts from when it was due.
///
/// # Panics
/// If a connection breaks.
pub async fn open_loop_answers(
    address: SocketAddr,
    requests: &[Arc<[u8]>],
    per_second: f64,
    connections: usize,
    time: Duration,
) -> Vec<(u16, f64)> {
    let answers = Arc::new(Mutex::new(Vec::with_capacity((per_second * time.as_secs_f64()) as usize)));
    let mut queues = Vec::with_capacity(connections);
    let mut tasks = Vec::with_capacity(connections);
    for first in 0..connections {
        let (queue, mut due) = mpsc::unbounded_channel::<Instant>();
        queues.push(queue);
        let (requests, answers) = (requests.to_vec(), Arc::clone(&answers));
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut own = Vec::new();
            let mut next = requests.iter().cycle().skip(first % requests.len());
            while let Some(due) = due.recv().await {
                let request = next.next().expect("a cycle has no end");
                let status = connection.exchange(request).await.status;
                own.push((status, due.elapsed().as_secs_f64() * 1e3));
            }
            answers.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
        }));
    }
    let (started, mut sent) = (Instant::now(), 0_usize);
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    while started.elapsed() < time {
        tick.tick().await;
        let now = Instant::now();
        let due = (started.elapsed().as_secs_f64() * per_second) as usize;
        for n in sent..due {
            queues[n % connections].send(now).expect("the connection task waits");
        }
        sent = sent.max(due);
    }
    drop(queues);
    for task in tasks {
        task.await.expect("a connection task ends");
    }
    std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner))
}
