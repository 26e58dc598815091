//! A link simulator and chaos proxy: TCP with a bandwidth, a delay and jitter, steady or replayed from a trace, and with faults that are
//! aimed at the next request of a kind.
//!
//! Both directions have a lane that all connections share, as they share a radio. A lane gives out the bytes that the link could carry, a
//! hundredth of a second at a time, and forgets what nobody wanted; so [`Link::carried`] beside [`Link::capacity`] is the used share.
//! Sockets have small buffers on this side, so that a sender feels the delay.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

const PACKET_BYTES: usize = 1_400;
const SOCKET_BYTES: u32 = 16 * 1024;
const TICK: Duration = Duration::from_millis(10);
/// Packets under way in one direction of a connection.
const PACKETS_MAX: usize = 256;

/// Bytes that a direction carries.
#[derive(Clone, Debug)]
pub enum Rate {
    /// So many each second.
    Steady(u64),
    /// So many in each second of a recording, which begins anew at its end.
    Trace(Arc<Vec<u64>>),
}

impl Rate {
    /// A recording with columns `second,bytes`, packed by xz.
    pub fn trace(path: &Path) -> Self {
        let text = Command::new("xz").arg("-dc").arg(path).output().expect("xz runs (package xz-utils)").stdout;
        let text = String::from_utf8(text).unwrap();
        let bytes = text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse::<f64>().unwrap() as u64);
        Self::Trace(Arc::new(bytes.collect()))
    }

    fn at(&self, second: u64) -> u64 {
        match self {
            Self::Steady(rate) => *rate,
            Self::Trace(bytes) => bytes[(second % bytes.len() as u64) as usize],
        }
    }
}

/// What the link is like.
#[derive(Clone, Debug)]
pub struct Conditions {
    pub up: Rate,
    pub down: Rate,
    /// Each way.
    pub delay: Duration,
    /// Up to this much more, by chance.
    pub jitter: Duration,
    /// Seconds of the recording that pass in one second.
    pub speed_up: u64,
}

impl Conditions {
    /// As good as none.
    pub fn ideal() -> Self {
        let rate = Rate::Steady(1 << 30);
        Self { up: rate.clone(), down: rate, delay: Duration::ZERO, jitter: Duration::ZERO, speed_up: 1 }
    }

    pub fn steady(bits_per_second: u64, round_trip: Duration) -> Self {
        let rate = Rate::Steady(bits_per_second / 8);
        Self { up: rate.clone(), down: rate, delay: round_trip / 2, jitter: Duration::ZERO, speed_up: 1 }
    }
}

/// What happens to the next request that is aimed at.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection is reset when so many of its bytes have gone up.
    CutUp(usize),
    /// The whole request goes up; the connection is reset when so many bytes of the answer have come down.
    CutDown(usize),
    /// As [`CutDown`](Self::CutDown), but closed as if that had been all.
    Truncate(usize),
    /// From here on nothing moves on this connection, and it stays open.
    BlackHole,
    /// The answer comes a byte at a time, with this pause after each.
    SlowAnswer(Duration),
    /// The server never sees the request; this comes back.
    Instead(String),
    /// The server answers, and this comes back in place of its answer.
    AfterCommit(String),
}

/// A link to a server, until it is dropped.
pub struct Link {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    upstream: SocketAddr,
    conditions: Mutex<Conditions>,
    up: Lane,
    down: Lane,
    /// Faults that wait for a request whose first bytes contain this.
    faults: Mutex<VecDeque<(String, Fault)>>,
    faults_met: AtomicU64,
    began: Instant,
}

struct Lane {
    packets: Semaphore,
    capacity: AtomicU64,
    carried: AtomicU64,
}

impl Lane {
    fn new() -> Self {
        Self { packets: Semaphore::new(0), capacity: AtomicU64::new(0), carried: AtomicU64::new(0) }
    }

    /// Gives out what the link can carry in the next moment; `left` is what less than a whole byte was left over.
    fn offer(&self, bytes: u64) {
        self.capacity.fetch_add(bytes, Ordering::Relaxed);
        let unused = self.packets.available_permits();
        // What was not wanted is gone, but for a packet's worth, or a slow link would never carry one.
        let room = (bytes as usize).max(PACKET_BYTES).saturating_sub(unused);
        self.packets.add_permits(room.min(bytes as usize));
    }

    async fn carry(&self, bytes: usize) {
        if let Ok(permits) = self.packets.acquire_many(bytes as u32).await {
            permits.forget();
        }
        self.carried.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Link {
    pub fn start(upstream: SocketAddr, conditions: Conditions) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
        socket.set_send_buffer_size(SOCKET_BYTES).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            conditions: Mutex::new(conditions),
            up: Lane::new(),
            down: Lane::new(),
            faults: Mutex::default(),
            faults_met: AtomicU64::new(0),
            began: Instant::now(),
        });
        let offering = tokio::spawn(offer(Arc::clone(&shared)));
        let theirs = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, Arc::clone(&theirs)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, shared, tasks: vec![offering, accepting] }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set(&self, conditions: Conditions) {
        *self.shared.conditions.lock().unwrap() = conditions;
    }

    /// Aims a fault at the next request whose beginning contains this, as `POST /rest/bulk/`.
    pub fn aim(&self, at: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().push_back((at.to_owned(), fault));
    }

    /// Faults that met a request.
    pub fn faults_met(&self) -> u64 {
        self.shared.faults_met.load(Ordering::Relaxed)
    }

    /// Faults that no request has come by for.
    pub fn faults_waiting(&self) -> usize {
        self.shared.faults.lock().unwrap().len()
    }

    /// Bytes that the link could have carried up until now.
    pub fn capacity(&self) -> u64 {
        self.shared.up.capacity.load(Ordering::Relaxed)
    }

    /// Bytes that it has carried up.
    pub fn carried(&self) -> u64 {
        self.shared.up.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn offer(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // What was less than a byte, in bytes times ticks.
    let (mut up_left, mut down_left) = (0, 0);
    loop {
        ticks.tick().await;
        let conditions = shared.conditions.lock().unwrap().clone();
        let second = shared.began.elapsed().as_secs_f64() * conditions.speed_up as f64;
        let ticks_per_second = (1_000 / TICK.as_millis()) as u64;
        for (lane, rate, left) in [(&shared.up, &conditions.up, &mut up_left), (&shared.down, &conditions.down, &mut down_left)] {
            let bytes = rate.at(second as u64) * conditions.speed_up + *left;
            *left = bytes % ticks_per_second;
            lane.offer(bytes / ticks_per_second);
        }
    }
}

/// What a connection has come to.
#[derive(Default)]
struct Fate {
    fault: Mutex<Option<Fault>>,
    /// Reset rather than closed.
    reset: AtomicBool,
    up: AtomicU64,
    down: AtomicU64,
}

async fn connect(client: TcpStream, shared: Arc<Shared>) {
    let socket = TcpSocket::new_v4().unwrap();
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    let Ok(server) = socket.connect(shared.upstream).await else {
        reset(client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let fate = Fate::default();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        () = up(&shared, &fate, &mut from_client, &mut to_server) => {}
        () = down(&shared, &fate, &mut from_server, &mut to_client) => {}
    }
    let client = from_client.reunite(to_client).expect("two halves of one");
    if fate.reset.load(Ordering::Relaxed) {
        reset(client);
    }
}

/// Closes a connection so that the other side hears a reset.
fn reset(stream: TcpStream) {
    #[expect(deprecated, reason = "a reset is what is wanted; nothing is left to be sent")]
    let _ = stream.set_linger(Some(Duration::ZERO));
    drop(stream);
}

impl Shared {
    /// A fault that waits for a request that begins like this.
    fn take_fault(&self, begins: &[u8]) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let text = String::from_utf8_lossy(&begins[..begins.len().min(200)]).into_owned();
        let place = faults.iter().position(|(at, _)| text.contains(at.as_str()))?;
        self.faults_met.fetch_add(1, Ordering::Relaxed);
        faults.remove(place).map(|(_, fault)| fault)
    }

    fn delay(&self) -> Duration {
        let conditions = self.conditions.lock().unwrap();
        conditions.delay + conditions.jitter.mul_f64(rand::random::<f64>())
    }
}

impl Fate {
    fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap().clone()
    }

    fn end_with_reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

/// Carries what the client sends, until either side or the fate ends the connection.
async fn up(shared: &Shared, fate: &Fate, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
    let (queue, packets) = mpsc::channel(PACKETS_MAX);
    let read = async move {
        let mut packet = vec![0; PACKET_BYTES];
        loop {
            let Ok(length @ 1..) = from.read(&mut packet).await else { return };
            if let Some(fault) = shared.take_fault(&packet[..length]) {
                fate.up.store(0, Ordering::Relaxed);
                fate.down.store(0, Ordering::Relaxed);
                *fate.fault.lock().unwrap() = Some(fault);
            }
            shared.up.carry(length).await;
            let sent = fate.up.fetch_add(length as u64, Ordering::Relaxed) as usize;
            let mut goes_on = &packet[..length];
            match fate.fault() {
                Some(Fault::CutUp(after)) if sent + length > after => {
                    goes_on = &packet[..after.saturating_sub(sent)];
                    fate.end_with_reset();
                }
                Some(Fault::BlackHole) => return std::future::pending().await,
                Some(Fault::Instead(_)) => continue,
                Some(_) | None => {}
            }
            let at = Instant::now() + shared.delay();
            if queue.send((at, goes_on.to_vec())).await.is_err() {
                return;
            }
            if fate.reset.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    until_written(read, write(packets, to)).await;
}

/// Carries what the server answers.
async fn down(shared: &Shared, fate: &Fate, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
    let (queue, packets) = mpsc::channel(PACKETS_MAX);
    let read = async move {
        let mut packet = vec![0; PACKET_BYTES];
        loop {
            let length = tokio::select! {
                read = from.read(&mut packet) => match read {
                    Ok(length @ 1..) => length,
                    Ok(0) | Err(_) => return,
                },
                () = instead(fate, &queue) => return,
            };
            shared.down.carry(length).await;
            let came = fate.down.fetch_add(length as u64, Ordering::Relaxed) as usize;
            let at = Instant::now() + shared.delay();
            match fate.fault() {
                Some(Fault::BlackHole) => return std::future::pending().await,
                Some(Fault::CutDown(after) | Fault::Truncate(after)) if came + length > after => {
                    let _ = queue.send((at, packet[..after.saturating_sub(came)].to_vec())).await;
                    if matches!(fate.fault(), Some(Fault::CutDown(_))) {
                        fate.end_with_reset();
                    }
                    return;
                }
                Some(Fault::AfterCommit(answer)) => {
                    let _ = queue.send((at, answer.into_bytes())).await;
                    return;
                }
                Some(Fault::SlowAnswer(pause)) => {
                    for byte in &packet[..length] {
                        sleep(pause).await;
                        if queue.send((Instant::now(), vec![*byte])).await.is_err() {
                            return;
                        }
                    }
                }
                Some(_) | None => {
                    if queue.send((at, packet[..length].to_vec())).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    until_written(read, write(packets, to)).await;
}

/// Answers in the server's place, when that is what happens; never returns otherwise.
async fn instead(fate: &Fate, queue: &mpsc::Sender<(Instant, Vec<u8>)>) {
    loop {
        if let Some(Fault::Instead(answer)) = fate.fault() {
            // The rest of the request is read and dropped meanwhile, so that the answer is not lost in a reset.
            sleep(Duration::from_millis(100)).await;
            let _ = queue.send((Instant::now(), answer.into_bytes())).await;
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Reads until the end, and then writes what was read; a side that cannot be written to any more ends it at once.
async fn until_written(read: impl Future<Output = ()>, write: impl Future<Output = ()>) {
    let mut write = std::pin::pin!(write);
    tokio::select! {
        () = read => write.await,
        () = &mut write => {}
    }
}

async fn write(mut packets: mpsc::Receiver<(Instant, Vec<u8>)>, to: &mut OwnedWriteHalf) {
    while let Some((at, packet)) = packets.recv().await {
        sleep_until(at).await;
        if to.write_all(&packet).await.is_err() {
            return;
        }
    }
}
