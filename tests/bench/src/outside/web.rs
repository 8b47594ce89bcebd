//! Servers that greet whoever gets through. Used by [`super::Outside`].

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::GREETING;

/// Between two bytes of a download: it is seen within a moment whether it goes on.
const PACE: Duration = Duration::from_millis(20);

/// Greets over TCP and UDP. Whoever then sends a line over TCP gets a byte every [`PACE`] for as long as it takes them.
pub(super) async fn serve(at: SocketAddr, servers: &mut JoinSet<()>) -> std::io::Result<()> {
    let listener = TcpListener::bind(at).await?;
    servers.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.spawn(async move {
                // It ends when the peer ends it, or is cut off.
                let _ = connection(stream).await;
            });
            while open.try_join_next().is_some() {}
        }
    });
    let datagrams = UdpSocket::bind(at).await?;
    servers.spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((_, peer)) = datagrams.recv_from(&mut buffer).await {
            let _ = datagrams.send_to(GREETING.as_bytes(), peer).await;
        }
    });
    Ok(())
}

async fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(GREETING.as_bytes()).await?;
    let mut line = [0; 64];
    if stream.read(&mut line).await? == 0 {
        return Ok(());
    }
    loop {
        stream.write_all(b".").await?;
        tokio::time::sleep(PACE).await;
    }
}
