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
    requests_lost: AtomicU64,
    at_work: AtomicU64,
    tricks_played: AtomicU64,
    tricks: Mutex<Vec<(String, Trick)>>,
    heads: Mutex<Vec<String>>,
}

/// What befalls one request in place of its way to the server and back.
#[derive(Clone, Copy, Debug)]
enum Trick {
    /// It goes through and is answered, and the client gets a closed connection.
    LoseAnswer,
    /// The server hears nothing, and the client gets a closed connection.
    LoseRequest,
    /// The server hears nothing; the client gets this status.
    Refuse(u16),
    /// The server hears nothing, and the client neither.
    Stall,
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
        self.play(path_fragment, Trick::LoseAnswer);
    }

    /// The next request whose head contains the fragment does not reach the server, and is answered by this status.
    pub fn refuse_next_of(&self, path_fragment: &str, status: u16) {
        self.play(path_fragment, Trick::Refuse(status));
    }

    /// The next request whose head contains the fragment does not reach the server, and is never answered.
    pub fn stall_next_of(&self, path_fragment: &str) {
        self.play(path_fragment, Trick::Stall);
    }

    fn play(&self, path_fragment: &str, trick: Trick) {
        self.shared.tricks.lock().unwrap().push((path_fragment.to_owned(), trick));
    }

    /// Requests so far that did not go their usual way.
    pub fn tricks_played(&self) -> u64 {
        self.shared.tricks_played.load(Ordering::SeqCst)
    }

    /// The next request whose head contains the fragment does not get through: the client gets a closed connection when all of it is sent.
    pub fn lose_next_request_of(&self, path_fragment: &str) {
        self.play(path_fragment, Trick::LoseRequest);
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
        let Some(request) = read_head(&mut client, &mut from_client).await? else { return Ok(()) };
        shared.requests.fetch_add(1, Ordering::SeqCst);
        shared.heads.lock().unwrap().push(request.lines().next().unwrap_or_default().to_owned());
        let trick = {
            let mut tricks = shared.tricks.lock().unwrap();
            let wanted = tricks.iter().position(|(fragment, _)| request.contains(fragment.as_str()));
            wanted.map(|at| tricks.remove(at).1)
        };
        shared.tricks_played.fetch_add(u64::from(trick.is_some()), Ordering::SeqCst);
        match trick {
            None => {
                pass(&mut client, &mut from_client, &request, Some(&mut server)).await?;
                let _at_work = AtWork::new(&shared.at_work);
                // A client that is gone meanwhile does not end the server's work.
                let Some(answer) = read_head(&mut server, &mut from_server).await? else { return Ok(()) };
                pass(&mut server, &mut from_server, &answer, Some(&mut client)).await?;
            }
            Some(Trick::LoseAnswer) => {
                pass(&mut client, &mut from_client, &request, Some(&mut server)).await?;
                let _at_work = AtWork::new(&shared.at_work);
                if let Some(answer) = read_head(&mut server, &mut from_server).await? {
                    pass(&mut server, &mut from_server, &answer, None).await?;
                }
                shared.answers_lost.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            Some(Trick::LoseRequest) => {
                pass(&mut client, &mut from_client, &request, None).await?;
                shared.requests_lost.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            Some(Trick::Refuse(status)) => {
                pass(&mut client, &mut from_client, &request, None).await?;
                let answer = format!("HTTP/1.1 {status} Refused\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nrefused");
                client.write_all(answer.as_bytes()).await?;
            }
            Some(Trick::Stall) => {
                pass(&mut client, &mut from_client, &request, None).await?;
                // Until the client has had enough.
                while client.read_buf(&mut from_client).await? > 0 {}
                return Ok(());
            }
        }
    }
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

/// Reads until a head is complete; it stays in the buffer. Nothing when the sender has closed.
async fn read_head(from: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return Ok(Some(String::from_utf8_lossy(&buffer[..at + 4]).into_owned()));
        }
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Takes a message with this head, and passes it on as it comes. A receiver that is gone is not told.
async fn pass(from: &mut TcpStream, buffer: &mut Vec<u8>, head: &str, mut to: Option<&mut TcpStream>) -> io::Result<()> {
    let mut left = head.len() + content_length(head);
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
            return Ok(());
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
