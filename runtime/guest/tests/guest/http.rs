//! HTTP/1.1 over a unix socket, just enough to be a host or a hostile one.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A reply whose body is still to be read.
pub(crate) struct Stream {
    pub(crate) status: u16,
    kind: String,
    length: Option<usize>,
    reader: BufReader<UnixStream>,
}

/// A whole reply.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of an OpenAI-shaped error.
    pub(crate) fn code(&self) -> String {
        let error: cocoon_protocol::http::ApiError = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: not an API error: {}", self.text()));
        error.code().to_owned()
    }
}

pub(crate) fn send(socket: &Path, method: &str, path: &str, kind: &str, body: &[u8]) -> Stream {
    let mut stream = connect(socket, method, path, kind, body.len());
    // A guest that refuses early may close before it has read all.
    let _ = stream.write_all(body);
    read_head(BufReader::new(stream))
}

/// Sends the head of a request and half of its body.
pub(crate) fn begin(socket: &Path, path: &str, body: &[u8]) -> UnixStream {
    let mut stream = connect(socket, "POST", path, cocoon_protocol::http::SEALED, body.len());
    stream.write_all(&body[..body.len() / 2]).expect("the guest reads");
    stream
}

/// Sends the rest of what [`begin`] began.
pub(crate) fn go_on(mut stream: UnixStream, body: &[u8]) -> Stream {
    stream.write_all(&body[body.len() / 2..]).expect("the guest reads");
    read_head(BufReader::new(stream))
}

/// The reply to a request of which no more is sent.
pub(crate) fn answer(stream: UnixStream) -> Reply {
    read_head(BufReader::new(stream)).whole()
}

/// A body out of its chunks, as they came over the wire.
pub(crate) fn unchunked(mut wire: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        wire.read_line(&mut line).expect("a length");
        let length = usize::from_str_radix(line.trim_end(), 16).expect("hexadecimal");
        let (chunk, rest) = wire.split_at_checked(length + 2).expect("the whole chunk");
        body.extend_from_slice(&chunk[..length]);
        wire = rest;
        if length == 0 {
            return body;
        }
    }
}

fn connect(socket: &Path, method: &str, path: &str, kind: &str, length: usize) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("the guest serves");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: guest\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("the guest reads");
    stream
}

fn read_head(mut reader: BufReader<UnixStream>) -> Stream {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
    let (mut kind, mut length) = (String::new(), None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let line = line.trim_end();
        if line.is_empty() {
            return Stream { status, kind, length, reader };
        }
        let (name, value) = line.split_once(": ").expect("a header");
        match name {
            "content-type" => kind = value.to_owned(),
            "content-length" => length = value.parse().ok(),
            _ => {}
        }
    }
}

impl Stream {
    /// The next chunk of a chunked body; `None` at its end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    /// So many bytes as they come over the wire.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("there are more");
        bytes
    }

    /// All that is still to come, as it comes over the wire.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).expect("it ends");
        bytes
    }

    pub(crate) fn whole(mut self) -> Reply {
        let mut body = Vec::new();
        match self.length {
            Some(length) => {
                body.resize(length, 0);
                self.reader.read_exact(&mut body).expect("the body");
            }
            None => {
                while let Some(chunk) = self.chunk() {
                    body.extend(chunk);
                }
            }
        }
        Reply { status: self.status, kind: self.kind, body }
    }
}
