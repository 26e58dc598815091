//! What stands in a destination's place: a captive portal, a wrong server, a dead one, or, after all, the real one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// The real server.
    Real,
    /// This answer, whatever is asked.
    Canned(&'static str),
    /// Nobody: the connection is taken, and nothing comes.
    Silent,
}

/// Stands on a port of its own until it is dropped.
pub struct Front {
    addr: SocketAddr,
    face: Arc<watch::Sender<Face>>,
    task: JoinHandle<()>,
}

impl Front {
    pub async fn start(real: SocketAddr, face: Face) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let face = Arc::new(watch::Sender::new(face));
        let task = tokio::spawn(accept(listener, real, Arc::clone(&face)));
        Self { addr, face, task }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on somebody else answers; connections to the one before end.
    pub fn turn(&self, face: Face) {
        self.face.send_replace(face);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, real: SocketAddr, face: Arc<watch::Sender<Face>>) {
    let mut links = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let mut turned = face.subscribe();
        let now = *turned.borrow_and_update();
        links.spawn(async move {
            tokio::select! {
                () = serve(client, real, now) => {}
                _ = turned.changed() => {}
            }
        });
    }
}

async fn serve(mut client: TcpStream, real: SocketAddr, face: Face) {
    match face {
        Face::Real => {
            if let Ok(mut server) = TcpStream::connect(real).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        }
        Face::Canned(answer) => {
            let mut asked = vec![0; 1 << 20];
            let _ = client.read(&mut asked).await;
            let _ = client.write_all(answer.as_bytes()).await;
            let _ = client.shutdown().await;
            // What is still on its way must not turn the answer into a reset.
            let drained = async { while client.read(&mut asked).await.is_ok_and(|read| read > 0) {} };
            let _ = tokio::time::timeout(Duration::from_millis(500), drained).await;
        }
        Face::Silent => std::future::pending().await,
    }
}
