//! HTTP/1.1 to a child, one connection for each request: closing it is how an answer is cancelled. Everything that comes is
//! read within limits.

use crate::process::{Connection, Reach};
use crate::tally::{MAX_LINE, Violation};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

/// Most bytes of a response's head.
const MAX_HEAD: usize = 64 << 10;
/// Most header fields.
const MAX_FIELDS: usize = 64;

/// A task that ends with its owner.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send(
    reach: &Arc<Reach>,
    request: Request<Full<Bytes>>,
) -> io::Result<(hyper::Response<Incoming>, Owned)> {
    let stream: Box<dyn Connection> = reach.connect().await?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
    let (mut sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = Owned(tokio::spawn(async move { drop(driver.await) }));
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok((response, driver))
}

/// The status of a `GET`; the body is not read.
pub(crate) async fn status(reach: &Arc<Reach>, path: &str) -> io::Result<StatusCode> {
    let request =
        Request::get(path).header(header::HOST, "child").body(Full::default()).map_err(io::Error::other)?;
    Ok(send(reach, request).await?.0.status())
}

/// What a request for a stream came to.
pub(crate) enum Begun {
    /// It streams.
    Lines(Lines),
    /// Another status than 200, and nothing of what it says: it may quote the prompt.
    Status(u16),
    /// Something else than events.
    NoStream,
}

/// Posts JSON and reads the head of what comes.
pub(crate) async fn post(reach: &Arc<Reach>, path: &str, body: &Zeroizing<Vec<u8>>) -> io::Result<Begun> {
    let request = Request::post(path)
        .header(header::HOST, "child")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "text/event-stream")
        .body(Full::new(Bytes::from_owner(body.clone())))
        .map_err(io::Error::other)?;
    let (response, driver) = send(reach, request).await?;
    if response.status() != StatusCode::OK {
        return Ok(Begun::Status(response.status().as_u16()));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    if !kind.starts_with(b"text/event-stream") {
        return Ok(Begun::NoStream);
    }
    let body = response.into_body();
    Ok(Begun::Lines(Lines { body, pending: Pending::new(), ended: false, _driver: driver }))
}

/// A stream of server-sent events, by lines (WHATWG HTML, 9.2).
pub(crate) struct Lines {
    body: Incoming,
    pending: Pending,
    ended: bool,
    _driver: Owned,
}

/// What came and was not yet taken. Each byte is looked at once and moved a bounded number of times, however it comes.
struct Pending {
    bytes: Zeroizing<Vec<u8>>,
    /// Of those, what was taken as lines.
    taken: usize,
    /// Of those, what holds no line's end after `taken`.
    searched: usize,
}

impl Pending {
    fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(MAX_HEAD)), taken: 0, searched: 0 }
    }

    /// Bytes of the line that is not whole.
    fn open(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn line(&mut self) -> Option<&[u8]> {
        match self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            None => {
                self.searched = self.bytes.len();
                None
            }
            Some(length) => {
                let start = std::mem::replace(&mut self.taken, self.searched + length + 1);
                self.searched = self.taken;
                Some(&self.bytes[start..self.taken])
            }
        }
    }

    /// Room is made once for each frame, never for each line; copies that are let go of are wiped.
    fn push(&mut self, more: &[u8]) {
        let open = self.open();
        if open + more.len() > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * (open + more.len())));
            larger.extend_from_slice(&self.bytes[self.taken..]);
            self.bytes = larger;
        } else if self.bytes.len() + more.len() > self.bytes.capacity() {
            self.bytes.copy_within(self.taken.., 0);
            self.bytes.truncate(open);
        } else {
            self.bytes.extend_from_slice(more);
            return;
        }
        self.searched -= self.taken;
        self.taken = 0;
        self.bytes.extend_from_slice(more);
    }
}

/// What came.
pub(crate) enum Line {
    /// The text after `data:`.
    Data(Zeroizing<Vec<u8>>),
    /// Bytes of which no line is whole yet, a comment, another field, or nothing.
    Other(usize),
    /// The end.
    End,
}

/// Why no more comes.
pub(crate) enum LineError {
    /// The connection broke.
    Broken,
    /// A rule was broken.
    Violation(Violation),
}

impl Lines {
    /// The next line, or word of bytes that came. Safe to let go of and to call again.
    pub(crate) async fn next(&mut self) -> Result<Line, LineError> {
        if let Some(line) = self.pending.line() {
            return Ok(field(line));
        }
        if self.pending.open() > MAX_LINE {
            return Err(LineError::Violation(Violation::LongLine));
        }
        if self.ended {
            return Ok(Line::End);
        }
        match self.body.frame().await {
            None => self.ended = true,
            Some(Err(_)) => return Err(LineError::Broken),
            Some(Ok(frame)) => {
                let Ok(mut data) = frame.into_data() else { return Ok(Line::Other(0)) };
                let length = data.len();
                while data.has_remaining() {
                    let chunk = data.chunk();
                    self.pending.push(chunk);
                    let count = chunk.len();
                    data.advance(count);
                }
                return Ok(Line::Other(length));
            }
        }
        Ok(Line::Other(0))
    }
}

fn field(line: &[u8]) -> Line {
    let line = line.trim_ascii_end();
    match line.strip_prefix(b"data:") {
        Some(data) => Line::Data(Zeroizing::new(data.strip_prefix(b" ").unwrap_or(data).to_vec())),
        None => Line::Other(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pending: &mut Pending) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| pending.line().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        let text: Vec<u8> =
            (0..5000usize).flat_map(|n| format!("{}\n", "x".repeat(n % 97)).into_bytes()).collect();
        let expected: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        for size in [1, 7, 100, 65_536, text.len()] {
            let mut pending = Pending::new();
            let mut found = Vec::new();
            for part in text.chunks(size) {
                pending.push(part);
                found.extend(lines(&mut pending));
            }
            assert!(found == expected, "in pieces of {size}");
            assert_eq!(pending.open(), 0);
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_searched_once_and_many_short_ones_are_not_moved() {
        // By the square of what came, either would take minutes.
        let mut pending = Pending::new();
        let since = std::time::Instant::now();
        for _ in 0..MAX_LINE {
            pending.push(b"x");
            assert!(pending.line().is_none());
        }
        assert_eq!(pending.open(), MAX_LINE);
        pending.push(&vec![b'\n'; 1 << 20]);
        assert_eq!(lines(&mut pending).len(), 1 << 20);
        assert!(since.elapsed() < std::time::Duration::from_secs(20));
    }
}
