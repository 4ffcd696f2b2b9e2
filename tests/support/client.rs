//! A plain HTTP/1.1 client over one socket, so that tests control every byte and its timing.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// No response takes longer than this unless the service hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A response as received.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// A request in flight.
pub(crate) struct Exchange {
    stream: BufReader<TcpStream>,
}

impl Exchange {
    /// Connects and sends the head of a request whose body will have `length` bytes.
    pub(crate) fn begin(
        to: SocketAddr,
        request: &str,
        headers: &[(&str, &str)],
        length: usize,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = format!("{request} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if length > 0 {
            let _ = write!(head, "content-length: {length}\r\n");
        }
        let mut exchange = Self { stream: BufReader::new(stream) };
        exchange.send(format!("{head}\r\n").as_bytes())?;
        Ok(exchange)
    }

    /// Sends a part of the body.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Waits for the next response, including interim ones (`100 Continue`).
    pub(crate) fn receive(&mut self) -> io::Result<Answer> {
        let reader = &mut self.stream;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status =
            line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("no status line: {line:?}"))
            })?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
                None => break,
            }
        }
        let mut response = Answer { status, headers, body: Vec::new() };
        if status != 100 {
            let length = response.header("content-length").and_then(|length| length.parse().ok());
            response.body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut response.body)?;
        }
        Ok(response)
    }
}

/// Sends a request with its whole body and returns the response.
pub(crate) fn send(
    to: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut exchange = Exchange::begin(to, request, headers, body.len())?;
    exchange.send(body)?;
    exchange.receive()
}
