//! A local port whose connections all become CONNECT tunnels to one target: for programs that cannot speak to a proxy.
//!
//! Two threads for each connection and blocking sockets: those who use this open few connections and keep them.

use crate::args::Args;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// The longest answer to CONNECT.
const ANSWER_BYTES: usize = 4096;
const BUFFER_BYTES: usize = 64 << 10;

/// Serves until it is killed. Says on stderr where it listens, and why a tunnel could not be had.
pub fn run(args: &Args) -> io::Result<()> {
    let target = args.origin.clone().unwrap_or_default();
    let listener = TcpListener::bind(args.listen)?;
    eprintln!("listening on {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept()?;
        let (proxy, target) = (args.proxy, target.clone());
        thread::spawn(move || {
            if let Err(error) = serve(client, proxy, &target) {
                eprintln!("no tunnel to {target}: {error}");
            }
        });
    }
}

/// Errors only until the tunnel stands; later ones are the peers' own, and each has seen its own.
fn serve(client: TcpStream, proxy: SocketAddr, target: &str) -> io::Result<()> {
    let mut tunnel = TcpStream::connect(proxy)?;
    tunnel.set_nodelay(true)?;
    client.set_nodelay(true)?;
    write!(tunnel, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")?;
    let early = answered(&mut tunnel)?;
    (&client).write_all(&early)?;
    let (from, to) = (client.try_clone()?, tunnel.try_clone()?);
    thread::spawn(move || relay(from, to));
    relay(tunnel, client);
    Ok(())
}

/// Waits for a 200. Returns what came behind its head.
fn answered(tunnel: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; ANSWER_BYTES];
    loop {
        let count = tunnel.read(&mut buffer)?;
        if count == 0 || answer.len() > ANSWER_BYTES {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        if !answer.starts_with(b"HTTP/1.") || answer.get(8..13) != Some(b" 200 ") {
            let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
            return Err(io::Error::other(String::from_utf8_lossy(line).into_owned()));
        }
        return Ok(answer.split_off(end + 4));
    }
}

/// One direction, until it ends.
fn relay(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
            // The other direction must not wait for bytes that nobody will take.
            Ok(_) | Err(_) => {
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
