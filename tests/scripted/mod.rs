//! A server that reads whole requests and answers each with the next step of a script, byte for byte.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What is done with one request.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answers and keeps the connection.
    Answer(String),
    /// Answers; a next request on the same connection is dropped unread, as a legacy server does after a 500.
    AnswerThenDeaf(String),
    /// Writes these bytes and closes.
    Part(String),
    /// Closes without a word.
    Close,
    /// Writes these bytes, then nothing more.
    Stall(String),
    /// Writes these bytes, then one blank after another, with pauses of so many milliseconds.
    Drip(String, u64),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// The body as JSON, inflated where it is zlib.
    pub fn json(&self) -> serde_json::Value {
        use std::io::Read;
        if let Ok(json) = serde_json::from_slice(&self.body) {
            return json;
        }
        let mut text = String::new();
        flate2::read::ZlibDecoder::new(self.body.as_slice()).read_to_string(&mut text).expect("a body of JSON or zlib");
        serde_json::from_str(&text).expect("a body of JSON")
    }
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Step>>,
    seen: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    deaf_hits: AtomicUsize,
}

/// The server; it ends with its test's runtime.
pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
}

impl Server {
    pub async fn start(script: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/rest/", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { script: Mutex::new(script.into_iter().collect()), ..Shared::default() });
        let of_task = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                of_task.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, of_task.clone()));
            }
        });
        Self { url, shared }
    }

    pub fn then(&self, step: Step) {
        self.shared.script.lock().unwrap().push_back(step);
    }

    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many requests came on connections that were to be left alone.
    pub fn deaf_hits(&self) -> usize {
        self.shared.deaf_hits.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read(&mut stream).await {
        shared.seen.lock().unwrap().push(request);
        let step = shared.script.lock().unwrap().pop_front().unwrap_or(Step::Close);
        match step {
            Step::Answer(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
            }
            Step::AnswerThenDeaf(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                if stream.read(&mut [0; 1]).await.is_ok_and(|count| count > 0) {
                    shared.deaf_hits.fetch_add(1, Ordering::SeqCst);
                }
                return;
            }
            Step::Part(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                return;
            }
            Step::Close => return,
            Step::Stall(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                std::future::pending::<()>().await;
            }
            Step::Drip(bytes, pause) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                return;
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let line = String::from_utf8_lossy(&bytes[..end]).lines().next()?.to_owned();
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(end);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let mut words = line.split(' ').map(str::to_owned);
    Some(Request { method: words.next()?, target: words.next()?, head, body })
}

/// An answer with a body and further header lines.
pub fn answer(status: &str, content_type: &str, body: &str, more: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{more}\r\n{body}")
}

pub fn json(status: &str, body: &str) -> String {
    answer(status, "application/json", body, "")
}
