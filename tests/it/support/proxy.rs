//! A proxy between the program and an object store: it counts what is asked, and makes trouble.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Server;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is reset before the request goes on.
    Reset,
    /// No answer ever comes.
    Silence,
    /// The store answers with this status, and wants to be left alone for so many seconds.
    Status(u16, Option<u32>),
    /// It takes a second until the request goes on.
    Late,
    /// The answer comes in small pieces with pauses between.
    Slow,
    /// The connection ends in the middle of the answer.
    Truncated,
    /// A bit of the answer is another: the one of this number, modulo the length.
    Corrupted(u64),
    /// It is done, and the answer never arrives.
    Lost,
}

/// A request, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    head: Vec<String>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, key: &str) -> Option<&str> {
        header(&self.head, key)
    }
}

type Plan = dyn FnMut(&Request) -> Fault + Send;

/// A proxy, which goes with the test.
pub struct Proxy {
    /// Where it is: `http://127.0.0.1:port`.
    pub endpoint: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    upstream: SocketAddr,
    plan: Mutex<Box<Plan>>,
    requests: Mutex<Vec<Request>>,
    /// Requests that were begun and are not answered, and the most that there were.
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// Whether connections are taken.
    open: watch::Sender<bool>,
    /// Changes when those that wait for an answer in vain are sent away.
    patience: watch::Sender<u64>,
}

impl Proxy {
    /// A proxy before a server, without trouble yet.
    pub fn before(server: &Server) -> Self {
        let runtime = Runtime::new().unwrap();
        let upstream = server.endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(Box::new(|_| Fault::None)),
            requests: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            open: watch::Sender::new(true),
            patience: watch::Sender::new(0),
        });
        // Bound as long as the proxy lives, so that nobody else takes the port while it refuses.
        let place = TcpSocket::new_v4().unwrap();
        place.set_reuseaddr(true).unwrap();
        place.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = place.local_addr().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        runtime.spawn(listen(place, listener, Arc::clone(&shared)));
        Self { endpoint: format!("http://{address}"), shared, runtime: Some(runtime) }
    }

    /// The same address through the proxy.
    pub fn address(&self, address: &str) -> String {
        let (place, _) = address.split_once("?endpoint=").unwrap();
        format!("{place}?endpoint={}", self.endpoint)
    }

    /// From here on connections are taken, and this happens to requests.
    pub fn disturb(&self, plan: impl FnMut(&Request) -> Fault + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Box::new(plan);
        self.shared.open.send_replace(true);
    }

    /// Refuses connections from here on, and ends those that are there.
    pub fn refuse(&self) {
        self.shared.open.send_replace(false);
    }

    /// Ends all trouble.
    pub fn heal(&self) {
        self.disturb(|_| Fault::None);
        self.shared.patience.send_modify(|n| *n += 1);
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The most that was asked at once so far.
    pub fn most_under_way(&self) -> usize {
        self.shared.most_under_way.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// A request that was begun, until it is answered.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let now = shared.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most_under_way.fetch_max(now, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn listen(place: TcpSocket, listener: TcpListener, shared: Arc<Shared>) {
    let address = place.local_addr().unwrap();
    let mut open = shared.open.subscribe();
    let mut listener = Some(listener);
    loop {
        if !*open.borrow_and_update() {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
        let Some(accepting) = &listener else {
            if open.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            accepted = accepting.accept() => {
                if let Ok((client, _)) = accepted {
                    let mut open = shared.open.subscribe();
                    let attending = attend(client, Arc::clone(&shared));
                    tokio::spawn(async move {
                        tokio::select! {
                            () = attending => {}
                            _ = open.wait_for(|open| !open) => {}
                        }
                    });
                }
            }
            _ = open.changed() => {}
        }
    }
}

async fn attend(client: TcpStream, shared: Arc<Shared>) {
    let mut patience = shared.patience.subscribe();
    patience.mark_unchanged();
    let mut connection = Connection { client, buffer: Vec::new() };
    while let Ok(Some((request, body, _under_way))) = connection.request(&shared).await {
        shared.requests.lock().unwrap().push(request.clone());
        let fault = (shared.plan.lock().unwrap())(&request);
        if fault == Fault::Late {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let goes_on = match fault {
            Fault::Reset => false,
            Fault::Silence => {
                patience.changed().await.ok();
                false
            }
            Fault::Status(status, retry_after) => {
                let answer = refusal(status, retry_after);
                connection.client.write_all(answer.as_bytes()).await.is_ok()
            }
            fault => match exchange(shared.upstream, &request.head, &body).await {
                Ok(answer) => connection.answer(&request, answer, fault).await.unwrap_or(false),
                Err(_gone) => false,
            },
        };
        if !goes_on {
            connection.client.set_zero_linger().ok();
            return;
        }
    }
}

struct Connection {
    client: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// The next request, and its body. `None` when the client is done.
    async fn request<'a>(
        &mut self,
        shared: &'a Shared,
    ) -> io::Result<Option<(Request, Vec<u8>, UnderWay<'a>)>> {
        let end = loop {
            if let Some(at) = end_of_head(&self.buffer) {
                break at;
            }
            if self.client.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let under_way = UnderWay::begin(shared);
        let rest = self.buffer.split_off(end);
        let head = lines(&std::mem::replace(&mut self.buffer, rest));
        let length = header(&head, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        if header(&head, "expect").is_some() {
            self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        while self.buffer.len() < length {
            if self.client.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
        let rest = self.buffer.split_off(length);
        let body = std::mem::replace(&mut self.buffer, rest);
        let mut words = head[0].split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        Ok(Some((Request { method, path, head }, body, under_way)))
    }

    /// Passes an answer on; false when the connection is at its end.
    async fn answer(
        &mut self,
        request: &Request,
        answer: Vec<u8>,
        fault: Fault,
    ) -> io::Result<bool> {
        let end = end_of_head(&answer).unwrap_or(answer.len());
        let (head, mut body) = (lines(&answer[..end]), answer[end..].to_vec());
        let is_framed = request.method == "HEAD"
            || ["content-length", "transfer-encoding"]
                .iter()
                .any(|key| header(&head, key).is_some());
        let kept = head.iter().filter(|line| !is_header(line, "connection") || !is_framed);
        let head = kept.map(String::as_str).collect::<Vec<_>>().join("\r\n") + "\r\n\r\n";
        match fault {
            Fault::Lost => return Ok(false),
            Fault::Truncated if body.is_empty() => {
                self.client.write_all(&head.as_bytes()[..head.len() / 2]).await?;
                return Ok(false);
            }
            Fault::Truncated => {
                body.truncate(body.len() / 2);
                self.client.write_all(head.as_bytes()).await?;
                self.client.write_all(&body).await?;
                self.client.flush().await?;
                self.client.shutdown().await?;
                return Ok(false);
            }
            Fault::Corrupted(bit) if !body.is_empty() => {
                let at = usize::try_from(bit / 8).unwrap() % body.len();
                body[at] ^= 1 << (bit % 8);
            }
            _ => {}
        }
        self.client.write_all(head.as_bytes()).await?;
        let pieces = if fault == Fault::Slow { 8 } else { 1 };
        for piece in body.chunks(body.len().div_ceil(pieces).max(1)) {
            if fault == Fault::Slow {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.client.write_all(piece).await?;
        }
        Ok(is_framed)
    }
}

/// Asks the server, on a connection of its own; all that it says.
async fn exchange(upstream: SocketAddr, head: &[String], body: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    let kept =
        head.iter().filter(|line| !is_header(line, "connection") && !is_header(line, "expect"));
    let head = kept.map(String::as_str).collect::<Vec<_>>().join("\r\n");
    server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    server.write_all(body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn refusal(status: u16, retry_after: Option<u32>) -> String {
    let wish = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
    let code = match status {
        403 => "AccessDenied",
        501 => "NotImplemented",
        _ => "SlowDown",
    };
    let body = format!("<Error><Code>{code}</Code><Message>made by the proxy</Message></Error>");
    let length = body.len();
    format!("HTTP/1.1 {status} Trouble\r\nContent-Length: {length}\r\n{wish}\r\n{body}")
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn lines(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(head);
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn is_header(line: &str, key: &str) -> bool {
    line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(key))
}

fn header<'a>(head: &'a [String], key: &str) -> Option<&'a str> {
    let line = head.iter().find(|line| is_header(line, key))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
