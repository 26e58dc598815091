//! The Unix socket: one line of JSON asks, lines of JSON answer, one call a connection.
//!
//! Only this user and root get in: the socket's mode says so, and who connects is asked. A socket left over from a crash is replaced; one
//! that answers belongs to another daemon and is left alone. Without a socket the daemon does its work all the same.
//!
//! Whoever waits hears something every few seconds ([`HEARD_EVERY`]), so that a daemon that hangs is told from one that is at work; and who has
//! gone is noticed by that: a caller may close its own half when it has asked.
//!
//! The one rule: whatever comes in here, and however slowly it is read, capture and delivery do not notice.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Desk};
use crate::queue::{Answer, Answers, Beside, Call, Failure, FailureKind, HEARD_EVERY, Request, VERSION};

/// The longest request.
const CALL_BYTES_MAX: u64 = 64 << 10;
/// How long a request may take to come in: it is one short line of a program on this machine.
const ASKING_MAX: Duration = Duration::from_secs(10);
/// How long one line of an answer may take to be taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are open at once; more wait to be let in.
const CONNECTIONS_MAX: usize = 200;
/// Requests that hold rows in memory and are carried out at once (I7); more wait for their turn, for so long.
const TURNS: usize = 16;
const TURN_MAX: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that others can connect to; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("another program listens on {path}: give each packhorse its own status.socket")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot make the socket {path}: make its directory for this user, or set status.socket")]
    Unusable {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

impl Socket {
    /// Listens; what a crash left there is replaced.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let unusable = |cause| SocketError::Unusable { path: path.to_owned(), cause };
        match std::fs::symlink_metadata(path) {
            Ok(there) if !std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) => {
                return Err(unusable(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket")));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(SocketError::Taken { path: path.to_owned() }),
            Ok(_) | Err(_) => {}
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unusable)?;
        }
        // Under another name until only we may open it.
        let mut making = path.as_os_str().to_owned();
        making.push(format!(".{}", std::process::id()));
        let making = PathBuf::from(making);
        let _ = std::fs::remove_file(&making);
        let listener = UnixListener::bind(&making).map_err(unusable)?;
        std::fs::set_permissions(&making, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&making, path))
            .map_err(unusable)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until stopped.
    pub async fn serve(self, board: Arc<Board>, stop: CancellationToken) {
        let mut calls = JoinSet::new();
        let turns = Arc::new(Semaphore::new(TURNS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = calls.join_next() => continue,
                accepted = self.listener.accept(), if calls.len() < CONNECTIONS_MAX => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    calls.spawn(answer(stream, Arc::clone(&board), Arc::clone(&turns)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a command could not be let in at the socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        calls.shutdown().await;
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, board: Arc<Board>, turns: Arc<Semaphore>) {
    let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw());
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let asked = timeout(ASKING_MAX, BufReader::new(read.take(CALL_BYTES_MAX)).read_line(&mut line)).await;
    let call = match asked {
        // Somebody looked whether anybody is here, or fell silent.
        Ok(Ok(0)) | Err(_) => return,
        Ok(Ok(_)) => understood(&line, &board, allowed),
        Ok(Err(error)) => Err(format!("this is not a request: {error}")),
    };
    let beside = call.as_ref().map_or(Beside::Nobody, |(desk, _)| desk.beside());
    let (answers, mut from) = Answers::channel();
    // It ends with this: whoever hangs up ends what was done for them, and every step of it is whole.
    let mut working = JoinSet::new();
    working.spawn(async move {
        let done = match call {
            Ok((desk, request)) => carry_out(&desk, request, &turns, &answers).await,
            Err(text) => Err(Failure { text, kind: FailureKind::Usage }),
        };
        // Who has gone does not miss it.
        if let Err(failure) = done {
            let _ = answers.give(Answer::Failed(failure)).await;
        }
        let _ = answers.give(Answer::End).await;
    });
    loop {
        let answer = match timeout(HEARD_EVERY, from.recv()).await {
            Ok(Some(answer)) => answer,
            Ok(None) => break,
            Err(_) => Answer::AtWork,
        };
        let Some(line) = as_line(answer, &beside).await else { return };
        if !matches!(timeout(PATIENCE, write.write_all(&line)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = write.shutdown().await;
}

/// Carries a request out, one that holds rows when it is its turn.
async fn carry_out(desk: &Desk, request: Request, turns: &Semaphore, answers: &Answers) -> Result<(), Failure> {
    let _turn = match request {
        Request::Status | Request::Pause | Request::Resume | Request::Flush => None,
        _ => Some(timeout(TURN_MAX, turns.acquire()).await.map_err(|_| Failure {
            text: format!("{TURNS} other commands are being answered: try again when they have ended"),
            kind: FailureKind::Other,
        })?),
    };
    desk.carry_out(request, answers).await.map_err(|error| error.failure())
}

/// An answer as it is sent; `None` for what cannot be written. Many rows are a step of their own, off the async threads.
async fn as_line(answer: Answer, beside: &Beside) -> Option<Vec<u8>> {
    let write = |answer: &Answer| {
        let mut line = serde_json::to_vec(answer).ok()?;
        line.push(b'\n');
        Some(line)
    };
    match answer {
        Answer::Records(_) => beside.step(spawn_blocking(move || write(&answer))).await.ok()?,
        other => write(&other),
    }
}

type Understood = (Arc<Desk>, Request);

fn understood(line: &str, board: &Board, allowed: bool) -> Result<Understood, String> {
    if !allowed {
        return Err("only the user that packhorse runs as, and root, may ask".to_owned());
    }
    let call: Call = serde_json::from_str(line).map_err(|error| format!("this is not a request: {error}"))?;
    if call.version != VERSION {
        return Err(format!("the daemon speaks version {VERSION}, this command version {}: restart the daemon", call.version));
    }
    if call.data_dir != board.data_dir {
        return Err(format!(
            "the daemon at this socket serves {}, not {}: give each its own status.socket",
            board.data_dir.display(),
            call.data_dir.display()
        ));
    }
    let desks = board.desks();
    let desk = desks.into_iter().find(|desk| desk.name == call.destination);
    desk.map(|desk| (desk, call.request)).ok_or_else(|| {
        format!(
            "the running daemon does not serve destination '{}': it is disabled, or was added since; SIGHUP reloads",
            call.destination
        )
    })
}
