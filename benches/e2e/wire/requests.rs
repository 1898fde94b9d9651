//! What is asked of an object store, read from the bytes on their way to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What it asks for: a method, or `LIST`.
    pub verb: String,
    /// The path, without a query.
    pub path: String,
    /// When its head reached the server.
    pub at: u64,
    /// When the server's answer began, and its status.
    pub answer: Option<(u64, u16)>,
}

impl Request {
    /// Reads the head of a request.
    fn read(head: &[u8]) -> Option<(Self, u64)> {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_list = ["list-type", "prefix", "delimiter", "uploads"]
            .iter()
            .any(|key| query.split('&').any(|pair| pair.split('=').next() == Some(*key)));
        let verb = if method == "GET" && is_list { "LIST" } else { method };
        let value = |key: &str, line: &str| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
        };
        let length = lines.find_map(|line| value("content-length", line)?.parse().ok());
        let (verb, path) = (verb.to_owned(), path.to_owned());
        Some((Self { verb, path, at: clock::nanos(), answer: None }, length.unwrap_or(0)))
    }

    /// When it was done, as far as it was.
    pub fn done(&self) -> Option<u64> {
        self.answer.filter(|(_, status)| (200..300).contains(status)).map(|(at, _)| at)
    }
}

/// How many requests there are of each verb.
pub fn by_verb<'a>(requests: impl IntoIterator<Item = &'a Request>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.verb.as_str()).or_default() += 1;
    }
    counts
}

/// All requests of a network.
#[derive(Debug, Default)]
pub struct Book(Mutex<Vec<Request>>);

impl Book {
    pub fn requests(&self) -> Vec<Request> {
        self.entries().clone()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's requests. One is answered before the next is asked.
#[derive(Debug)]
pub struct Exchange {
    book: Arc<Book>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What there is of the next head.
    head: Vec<u8>,
    /// Bytes that are missing of the body.
    body: u64,
    /// The place in the book of the request that is not answered.
    open: Option<usize>,
}

impl Exchange {
    pub fn new(book: Arc<Book>) -> Self {
        Self { book, state: Mutex::default() }
    }

    /// These bytes reach the server.
    pub fn asked(&self, mut bytes: &[u8]) {
        let mut state = self.state();
        while !bytes.is_empty() {
            if state.body > 0 {
                let of_body = bytes.len().min(usize::try_from(state.body).unwrap_or(usize::MAX));
                state.body -= of_body as u64;
                bytes = bytes.get(of_body..).unwrap_or_default();
                continue;
            }
            let (byte, rest) = (bytes.first().copied(), bytes.get(1..).unwrap_or_default());
            state.head.extend(byte);
            bytes = rest;
            if state.head.ends_with(b"\r\n\r\n")
                && let Some((request, length)) = Request::read(&std::mem::take(&mut state.head))
            {
                let mut entries = self.book.entries();
                state.open = Some(entries.len());
                state.body = length;
                entries.push(request);
            }
        }
    }

    /// The server has sent these bytes.
    pub fn answered(&self, bytes: &[u8]) {
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        // 100 says that the body may come.
        let Some(status) = status.filter(|status| *status != 100) else { return };
        if let Some(open) = self.state().open.take()
            && let Some(request) = self.book.entries().get_mut(open)
        {
            request.answer = Some((clock::nanos(), status));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
