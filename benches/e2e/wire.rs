//! A network between a program and an object store: a proxy on the loopback, through which every byte
//! takes half a round trip, in either direction, and as much at once as a connection's window holds. A
//! connection begins with one more round trip, as TCP's do. What is asked is noted.

mod requests;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result};

use self::requests::{Book, Exchange};
pub use self::requests::{Request, by_verb};
use crate::clock;

/// Bytes passed on at once, and how many of these are on their way in one direction of a connection: a
/// window of 4 MiB.
const CHUNK: usize = 64 << 10;
const WINDOW: usize = 64;

/// A network before one server. Connections that are there when it is dropped go on to their ends.
#[derive(Debug)]
pub struct Wire {
    /// Where it is: `http://127.0.0.1:port`.
    pub endpoint: String,
    address: SocketAddr,
    book: Arc<Book>,
    closed: Arc<AtomicBool>,
}

impl Wire {
    /// A network with this round trip before a server, `http://…`.
    pub fn before(server: &str, round_trip: Duration) -> Result<Self> {
        let upstream = server.strip_prefix("http://").context("no http server")?.parse()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (book, closed) = (Arc::new(Book::default()), Arc::new(AtomicBool::new(false)));
        let (noted, is_closed) = (Arc::clone(&book), Arc::clone(&closed));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_closed.load(Ordering::Relaxed) {
                    return;
                }
                // A client whose server does not answer is sent away.
                connect(client, upstream, round_trip, &noted).ok();
            }
        });
        Ok(Self { endpoint: format!("http://{address}"), address, book, closed })
    }

    /// What was asked so far, in the order in which it reached the server.
    pub fn requests(&self) -> Vec<Request> {
        self.book.requests()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Whoever waits for a client sees that.
        TcpStream::connect(self.address).ok();
    }
}

fn connect(
    client: TcpStream,
    upstream: SocketAddr,
    round_trip: Duration,
    book: &Arc<Book>,
) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    let exchange = Arc::new(Exchange::new(Arc::clone(book)));
    let now = clock::nanos();
    let nanos = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
    let (opened, half) = (now + nanos, nanos / 2);
    let asks = Arc::clone(&exchange);
    let there = Direction { opened, half, from: client.try_clone()?, to: server.try_clone()? };
    there.carry(|_| (), move |bytes| asks.asked(bytes));
    let back = Direction { opened: now, half, from: server, to: client };
    back.carry(move |bytes| exchange.answered(bytes), |_| ());
    Ok(())
}

/// One direction of a connection.
struct Direction {
    /// Nothing is sent before.
    opened: u64,
    half: u64,
    from: TcpStream,
    to: TcpStream,
}

/// Bytes, and when they arrive.
type Due = (u64, Vec<u8>);

impl Direction {
    /// Passes everything on, and tells what is sent, and what arrives just before it does.
    fn carry(
        self,
        mut sent: impl FnMut(&[u8]) + Send + 'static,
        arrives: impl FnMut(&[u8]) + Send + 'static,
    ) {
        let Self { opened, half, mut from, to } = self;
        let (sender, receiver) = sync_channel(WINDOW);
        std::thread::spawn(move || deliver(&receiver, to, arrives));
        std::thread::spawn(move || {
            while let Ok(Some(bytes)) = receive(&mut from) {
                sent(&bytes);
                let due = clock::nanos().max(opened) + half;
                if send(&sender, (due, bytes)).is_none() {
                    return;
                }
            }
        });
    }
}

fn send(sender: &SyncSender<Due>, bytes: Due) -> Option<()> {
    sender.send(bytes).ok()
}

/// What has come; `None` at the end.
fn receive(from: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; CHUNK];
    let len = from.read(&mut bytes)?;
    bytes.truncate(len);
    Ok((len > 0).then_some(bytes))
}

/// Waits until bytes are due, and passes them on.
fn deliver(receiver: &Receiver<Due>, mut to: TcpStream, mut arrives: impl FnMut(&[u8])) {
    to.set_nodelay(true).ok();
    while let Ok((due, bytes)) = receiver.recv() {
        clock::rest(Duration::from_nanos(due.saturating_sub(clock::nanos())));
        arrives(&bytes);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
