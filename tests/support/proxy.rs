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
    requests_lost: AtomicU64,
    lose_request: Mutex<Option<String>>,
    at_work: AtomicU64,
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

    /// The next request whose head contains the fragment does not get through: the client gets a closed connection when all of it is sent.
    pub fn lose_next_request_of(&self, path_fragment: &str) {
        *self.shared.lose_request.lock().unwrap() = Some(path_fragment.to_owned());
    }

    /// Requests that were kept from the server.
    pub fn requests_lost(&self) -> u64 {
        self.shared.requests_lost.load(Ordering::SeqCst)
    }

    /// Whether the server has a request that it has not answered; also when its client is gone.
    pub fn is_at_work(&self) -> bool {
        self.shared.at_work.load(Ordering::SeqCst) > 0
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
        let mut is_lost = false;
        let gets_through = |head: &str| {
            is_lost = take_if(&shared.lose_request, head);
            !is_lost
        };
        let Some(request) = read_message(&mut client, &mut from_client, Some(&mut server), gets_through).await? else {
            return Ok(());
        };
        if is_lost {
            shared.requests_lost.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let _at_work = AtWork::new(&shared.at_work);
        shared.heads.lock().unwrap().push(request.lines().next().unwrap_or_default().to_owned());
        if take_if(&shared.lose, &request) {
            read_message(&mut server, &mut from_server, None, |_| true).await?;
            shared.answers_lost.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        // A client that is gone meanwhile does not end the server's work.
        if read_message(&mut server, &mut from_server, Some(&mut client), |_| true).await?.is_none() {
            return Ok(());
        }
    }
}

/// Takes what waits for a head with that in it.
fn take_if(waiting: &Mutex<Option<String>>, head: &str) -> bool {
    let mut waiting = waiting.lock().unwrap();
    let is_wanted = waiting.as_ref().is_some_and(|fragment| head.contains(fragment.as_str()));
    if is_wanted {
        *waiting = None;
    }
    is_wanted
}

/// A request that the server has not answered yet.
struct AtWork<'a>(&'a AtomicU64);

impl<'a> AtWork<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Reads a head and its body, passing all of it on as it comes if the head `gets_through`; gives the head back, or nothing when the sender
/// has closed. A receiver that is gone is not told.
async fn read_message(
    from: &mut TcpStream,
    buffer: &mut Vec<u8>,
    mut to: Option<&mut TcpStream>,
    mut gets_through: impl FnMut(&str) -> bool,
) -> io::Result<Option<String>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    to = to.filter(|_| gets_through(&head));
    let mut left = head_end + content_length(&head);
    loop {
        let now = left.min(buffer.len());
        if let Some(there) = &mut to
            && there.write_all(&buffer[..now]).await.is_err()
        {
            to = None;
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
