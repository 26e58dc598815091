//! A link that can be cut: an HTTP/1.1 proxy (keep-alive, bodies with a Content-Length) in front of a server.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Stands between a client and a server until it is dropped.
pub struct Proxy {
    addr: SocketAddr,
    open: watch::Sender<bool>,
    listening: watch::Receiver<bool>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicU64,
    answers_lost: AtomicU64,
    lose: Mutex<Option<String>>,
    heads: Mutex<Vec<String>>,
}

impl Proxy {
    /// Listens on a free port.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (open, opened) = watch::channel(true);
        let (say, listening) = watch::channel(true);
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(accept(listener, addr, upstream, opened, say, Arc::clone(&shared)));
        Self { addr, open, listening, shared, task }
    }

    /// Where clients find it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes every connection and refuses new ones; done when it returns.
    pub async fn cut(&self) {
        self.set(false).await;
    }

    /// Lets connections through again; listening when it returns.
    pub async fn restore(&self) {
        self.set(true).await;
    }

    async fn set(&self, open: bool) {
        self.open.send(open).unwrap();
        self.listening.clone().wait_for(|&listening| listening == open).await.unwrap();
    }

    /// The next request whose head contains the fragment goes through and is answered, but the client gets a closed connection in place
    /// of the answer.
    pub fn lose_next_answer_of(&self, path_fragment: &str) {
        *self.shared.lose.lock().unwrap() = Some(path_fragment.to_owned());
    }

    /// Requests whose head has arrived here.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests so far whose first line contains a text.
    pub fn requests_of(&self, fragment: &str) -> usize {
        self.shared.heads.lock().unwrap().iter().filter(|line| line.contains(fragment)).count()
    }

    /// Answers that were kept from their client.
    pub fn answers_lost(&self) -> u64 {
        self.shared.answers_lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    first: TcpListener,
    addr: SocketAddr,
    upstream: SocketAddr,
    mut open: watch::Receiver<bool>,
    say: watch::Sender<bool>,
    shared: Arc<Shared>,
) {
    let mut next = Some(first);
    loop {
        let listener = match next.take() {
            Some(listener) => listener,
            None => TcpListener::bind(addr).await.expect("the port is still ours"),
        };
        say.send_replace(true);
        // Dropping the set ends every connection.
        let mut links = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((client, _)) = accepted {
                        links.spawn(carry(client, upstream, Arc::clone(&shared)));
                    }
                }
                Some(_) = links.join_next() => {}
                changed = open.wait_for(|open| !open) => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
        drop(listener);
        links.shutdown().await;
        say.send_replace(false);
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
    }
}

/// Carries one client's requests, one after another, until either side closes.
async fn carry(mut client: TcpStream, upstream: SocketAddr, shared: Arc<Shared>) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    loop {
        let Some(request) = read_message(&mut client, &mut from_client, Some(&mut server)).await? else { return Ok(()) };
        shared.requests.fetch_add(1, Ordering::SeqCst);
        shared.heads.lock().unwrap().push(request.lines().next().unwrap_or_default().to_owned());
        let lose = {
            let mut lose = shared.lose.lock().unwrap();
            let wanted = lose.as_ref().is_some_and(|fragment| request.contains(fragment.as_str()));
            if wanted { lose.take() } else { None }
        };
        if lose.is_some() {
            read_message(&mut server, &mut from_server, None).await?;
            shared.answers_lost.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        if read_message(&mut server, &mut from_server, Some(&mut client)).await?.is_none() {
            return Ok(());
        }
    }
}

/// Reads a head and its body, passing all of it on as it comes; gives the head back, or nothing when the sender has closed.
async fn read_message(from: &mut TcpStream, buffer: &mut Vec<u8>, mut to: Option<&mut TcpStream>) -> io::Result<Option<String>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut left = head_end + content_length(&head);
    loop {
        let now = left.min(buffer.len());
        if let Some(to) = &mut to {
            to.write_all(&buffer[..now]).await?;
        }
        buffer.drain(..now);
        left -= now;
        if left == 0 {
            return Ok(Some(head));
        }
        if from.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn content_length(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}
