//! Passes bytes between a client and a server, and counts them: heads, bodies and all.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

#[derive(Default)]
struct Counts {
    out: AtomicU64,
    back: AtomicU64,
    lines: Mutex<Vec<String>>,
}

/// A relay that lives as long as the process.
pub struct Relay {
    pub address: SocketAddr,
    counts: Arc<Counts>,
}

/// What went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub requests: usize,
    pub bytes_out: u64,
    pub bytes_back: u64,
}

impl Relay {
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(upstream) else { return };
                let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (outward, back) = (Arc::clone(&shared), Arc::clone(&shared));
                thread::spawn(move || {
                    pass(from_client, server, |bytes| {
                        outward.out.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                        // A client that waits for each answer begins each request with a new piece.
                        let line =
                            String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
                        if line.ends_with("HTTP/1.1") {
                            outward.lines.lock().unwrap().push(line);
                        }
                    });
                });
                thread::spawn(move || {
                    pass(from_server, client, |bytes| {
                        back.back.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                    });
                });
            }
        });
        Self { address, counts }
    }

    /// The first lines of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.counts.lines.lock().unwrap().clone()
    }

    /// How many of them changed something, or asked to.
    pub fn writes(&self) -> usize {
        self.lines().iter().filter(|line| !line.starts_with("GET ")).count()
    }

    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.lines().len(),
            bytes_out: self.counts.out.load(Ordering::SeqCst),
            bytes_back: self.counts.back.load(Ordering::SeqCst),
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
    {
        note(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
