//! An HTTP proxy as a network has it: `CONNECT`, or whole addresses in the first line. Whatever host is asked for, it leads to one server.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// The proxy; it ends with its test's runtime.
pub struct Forward {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    heads: Mutex<Vec<String>>,
    /// So many requests more are answered by an error page that repeats them.
    repeats: AtomicUsize,
}

impl Forward {
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { upstream, heads: Mutex::default(), repeats: AtomicUsize::new(0) });
        let theirs = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&theirs)));
            }
        });
        Self { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The first head of each connection.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Lets the next requests come back in an error page, credentials and all.
    pub fn repeat(&self, requests: usize) {
        self.shared.repeats.store(requests, Ordering::SeqCst);
    }

    /// Requests that are still to be repeated.
    pub fn left_to_repeat(&self) -> usize {
        self.shared.repeats.load(Ordering::SeqCst)
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    shared.heads.lock().unwrap().push(head.clone());
    if shared.repeats.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        let words: Vec<&str> = head.split_whitespace().rev().collect();
        let page = format!("you sent {}", words.join(" "));
        let length = page.len();
        let answer = format!(
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
        );
        return client.write_all(answer.as_bytes()).await;
    }
    let mut server = TcpStream::connect(shared.upstream).await?;
    if head.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        server.write_all(&bytes[end..]).await?;
    } else {
        // Servers take whole addresses too.
        server.write_all(&bytes).await?;
    }
    io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}
