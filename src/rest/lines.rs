//! Which TCP connections a client has opened, and how much of what was sent on them was not acknowledged.
//!
//! Several destinations share a port, a proxy, or even an address: only the pair of a connection's two ends tells whose it is.
//!
//! The one rule: what cannot be told counts as nothing held, so that a destination is rather waited for too long than too short.

use std::{
    collections::VecDeque,
    fs::File,
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use hyper_util::client::legacy::connect::{Connection, HttpInfo};

/// No more of the kernel's table is read than that (I7): a gateway has some dozens of lines of 150 bytes.
const TABLE_BYTES_MAX: u64 = 4 << 20;
/// So many connections of one client are remembered (I7): it has one request in flight, and keeps one idle connection.
const LINES_MAX: usize = 4;

/// The last connections of one client; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Arc<Mutex<VecDeque<Line>>>);

/// A connection, by its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Lines {
    /// Notes a connection as it comes out of the connector.
    pub(super) fn noted<C: Connection>(&self, connection: C) -> C {
        let mut told = hyper::http::Extensions::new();
        connection.connected().get_extras(&mut told);
        if let Some(info) = told.get::<HttpInfo>() {
            self.note(info.local_addr(), info.remote_addr());
        }
        connection
    }

    fn note(&self, local: SocketAddr, remote: SocketAddr) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Line { local, remote });
    }

    /// Bytes that were sent on them and not acknowledged; `None` where the kernel does not tell. Blocks.
    pub(super) fn held(&self) -> Option<u64> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let table = |path: &str| {
            let mut text = String::new();
            File::open(path).ok()?.take(TABLE_BYTES_MAX).read_to_string(&mut text).ok()?;
            Some(held(&text, lines.iter()))
        };
        // Without IPv6 there is no second table.
        Some(table("/proc/self/net/tcp")? + table("/proc/self/net/tcp6").unwrap_or(0))
    }
}

/// The send queues of these connections, added up. The columns: number, local and remote address, state, send and receive queue, and others.
fn held<'l>(table: &str, lines: impl Iterator<Item = &'l Line>) -> u64 {
    let ends: Vec<(String, String)> = lines.map(|line| (in_table(line.local), in_table(line.remote))).collect();
    let queue = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote) = (columns.next()?, columns.next()?);
        let queue = columns.nth(1)?.split(':').next()?;
        let is_it = ends.iter().any(|ends| (ends.0.as_str(), ends.1.as_str()) == (local, remote));
        is_it.then(|| u64::from_str_radix(queue, 16).ok()).flatten()
    };
    table.lines().filter_map(queue).sum()
}

/// An address as the kernel's table shows it: each four bytes of it as a number of this machine, then the port, in hexadecimal digits.
fn in_table(address: SocketAddr) -> String {
    let words = |bytes: &[u8]| {
        let word = |four: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*four));
        bytes.as_chunks::<4>().0.iter().map(word).collect::<String>()
    };
    let ip = match address {
        SocketAddr::V4(address) => words(&address.ip().octets()),
        SocketAddr::V6(address) => words(&address.ip().octets()),
    };
    format!("{ip}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket, TcpStream},
        time::sleep,
    };

    use super::*;
    use crate::{
        domain::{Column, Epoch, Generation, Rows, Seq, SourceId, Stream},
        ports::{Bounds, Delivery, Sink as _},
        rest::{RestSink, tests::options},
    };

    #[test]
    fn only_the_connection_between_these_two_ends_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:198F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000 100 0 0 10 0
   1: 0100007F:A1B2 0100007F:198F 01 00001000:00000000 00:00000000 00000000     0        0 222 1 0000 20 4 30 10 -1
   2: 0100007F:A1B3 0100007F:198F 01 00000001:00000000 00:00000000 00000000     0        0 333 1 0000 20 4 30 10 -1
   3: 0100007F:A1B2 0200007F:198F 01 00000500:00000000 00:00000000 00000000     0        0 222 1 0000 20 4 30 10 -1
   4: 00000000000000000000000001000000:A1B2 00000000000000000000000001000000:198F 01 00000030:00000000 00:0 0 0 0 4 1
   5: nonsense";
        let line = |local: &str, remote: &str| Line { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        let first = line("127.0.0.1:41394", "127.0.0.1:6543");
        let second = line("127.0.0.1:41395", "127.0.0.1:6543");
        if cfg!(target_endian = "little") {
            assert_eq!(held(table, [first].iter()), 0x1000);
            assert_eq!(held(table, [first, second].iter()), 0x1001);
            assert_eq!(held(table, [line("[::1]:41394", "[::1]:6543")].iter()), 0x30);
        }
        assert_eq!(held(table, [line("127.0.0.1:41396", "127.0.0.1:6543")].iter()), 0);
    }

    /// A connection to an address, on which 200,000 bytes were written and nothing is read.
    async fn stuck(address: &str) -> (TcpStream, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        let listener: TcpListener = socket.listen(1).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(&vec![7; 200_000]).await.unwrap();
        (client, server)
    }

    fn of(stream: &TcpStream) -> Lines {
        let lines = Lines::default();
        lines.note(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        lines
    }

    #[tokio::test]
    async fn what_the_other_side_does_not_read_is_held_by_the_kernel() {
        let (client, mut server) = stuck("127.0.0.1:0").await;
        let held = of(&client).held().expect("this kernel tells");
        assert!(held > 50_000 && held <= 200_000, "{held}");
        assert_eq!(Lines::default().held(), Some(0), "it is nobody else's");
        let mut read = vec![0; 200_000];
        server.read_exact(&mut read).await.unwrap();
        while of(&client).held() != Some(0) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_destination_whose_link_is_stuck_does_not_make_another_of_its_port_look_slow() {
        let (client, _server) = stuck("127.0.0.1:0").await;
        let port = client.peer_addr().unwrap().port();
        let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let server = async {
            // It has the request, works on it for 3 s, and says nothing.
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = stream.read(&mut [0; 16_384]).await.unwrap();
            sleep(Duration::from_secs(3)).await;
            read
        };
        let sink = RestSink::new(options(&format!("http://127.0.0.2:{port}/rest/")));
        let ints = |value| Column::Int(vec![Some(value)]);
        let rows = Rows::new(Stream::Reading, vec![ints(0), ints(1), ints(0), ints(4), Column::Float(vec![Some(1.5)])]);
        let (first, end) = (Seq(0), Seq(1));
        let bounds =
            Bounds { source: SourceId(1), generation: Generation(0), epoch: Epoch(1), first, end, cursor: first, taken: None };
        let (sink, delivery) = (sink.unwrap(), Delivery { bounds, rows });
        let (delivered, read) = tokio::join!(sink.deliver(&delivery), server);
        assert!(read > 0);
        // Not a measure of speed: the server had all of it before its 3 s began.
        assert!(delivered.answered > Duration::from_secs(1), "{delivered:?}");
    }
}
