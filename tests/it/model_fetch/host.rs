//! A server on 127.0.0.1 that plays a hub, an index or a proxy, with all that goes wrong on the way.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as a host saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The target of the request line.
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) from: u64,
}

/// What a host answers.
pub(super) struct Sent {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Bytes of the body after which the connection breaks.
    pub(super) breaks_at: Option<usize>,
    /// Whether nothing follows the head, and the connection stays open.
    pub(super) stalls: bool,
}

impl Sent {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Sent {
        Sent { status, headers: Vec::new(), body: body.into(), breaks_at: None, stalls: false }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Sent {
        self.headers.push((name, value.into()));
        self
    }

    /// The part of `body` that a request asks for.
    pub(super) fn range(seen: &Seen, body: &[u8]) -> Sent {
        let from = usize::try_from(seen.from).unwrap();
        if from == 0 {
            return Sent::new(200, body);
        }
        let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
        Sent::new(206, &body[from..]).with("content-range", range)
    }

    pub(super) fn redirect(to: String) -> Sent {
        Sent::new(302, "").with("location", to)
    }
}

/// A server on 127.0.0.1 whose answers a test decides. It ends with the runtime of its test.
pub(super) struct Host {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Host {
    /// `answer` gets a request and how many were for its path before.
    pub(super) async fn start(answer: impl Fn(&Seen, usize) -> Sent + Send + Sync + 'static) -> Host {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (shared, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                tokio::spawn(async move { _ = converse(stream, &shared, &*answer).await });
            }
        });
        Host { url, seen }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn requests_of(&self, ending: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.ends_with(ending)).collect()
    }
}

async fn converse(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Seen>>,
    answer: &(dyn Fn(&Seen, usize) -> Sent + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let from =
        header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let request = Seen {
        path: head.split(' ').nth(1).unwrap().to_owned(),
        authorization: header("authorization"),
        from: from.unwrap_or(0),
    };
    let earlier = {
        let mut seen = seen.lock().unwrap();
        let earlier = seen.iter().filter(|seen| seen.path == request.path).count();
        seen.push(request.clone());
        earlier
    };
    let sent = answer(&request, earlier);
    let mut text =
        format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n", sent.status, sent.body.len());
    for (name, value) in &sent.headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    if sent.stalls {
        // The client hangs up.
        return stream.read_u8().await.map(|_| ());
    }
    stream.write_all(&sent.body[..sent.breaks_at.unwrap_or(sent.body.len())]).await
}
