//! A collector: it takes OTLP over HTTP as a real one does, and keeps the spans.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::span,
};
use prost::Message as _;

use crate::harness::until;

/// A span as received.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) name: String,
    pub(super) times: [u64; 2],
    pub(super) attributes: HashMap<String, String>,
    /// Trace and span of each link.
    pub(super) links: Vec<(String, String)>,
    events: usize,
}

impl Span {
    fn new(span: &span_of::Span) -> Self {
        let attributes = span.attributes.iter().map(|field| {
            let value = field.value.as_ref().and_then(|value| value.value.as_ref());
            let text = match value.expect("a value") {
                Value::StringValue(text) => text.clone(),
                Value::IntValue(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            (field.key.clone(), text)
        });
        let link = |link: &span::Link| (hex(&link.trace_id), hex(&link.span_id));
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name.clone(),
            times: [span.start_time_unix_nano, span.end_time_unix_nano],
            attributes: attributes.collect(),
            links: span.links.iter().map(link).collect(),
            events: span.events.len(),
        }
    }
}

use opentelemetry_proto::tonic::trace::v1 as span_of;

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// What a collector received.
#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    /// All bodies, to be searched.
    bytes: Vec<u8>,
    services: Vec<String>,
}

pub(super) struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Received::default()));
        let shared = Arc::clone(&received);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, received }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until a trace has a finished span of this name without a parent in the service, and
    /// returns all of its spans. It is the last one to end.
    pub(super) fn trace(&self, trace: &str, last: &str) -> Vec<Span> {
        let spans = || {
            let received = self.received.lock().expect("no panic");
            let of = |span: &&Span| span.trace == trace;
            received.spans.iter().filter(of).cloned().collect::<Vec<_>>()
        };
        until(&format!("the span {last}"), || {
            spans().iter().any(|span| span.name == last).then_some(())
        });
        spans()
    }

    /// Returns all spans of this name that have arrived.
    pub(super) fn named(&self, name: &str) -> Vec<Span> {
        let received = self.received.lock().expect("no panic");
        received.spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    /// Returns everything received, as text.
    pub(super) fn text(&self) -> String {
        let received = self.received.lock().expect("no panic");
        assert!(received.spans.iter().all(|span| span.events == 0), "log events are exported");
        assert!(received.services.iter().all(|service| service == "scores"));
        String::from_utf8_lossy(&received.bytes).into_owned()
    }
}

fn serve(stream: TcpStream, received: &Mutex<Received>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while stream.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a length");
            }
            assert!(
                !header.starts_with("post ") || header.starts_with("post /v1/traces "),
                "{header}"
            );
            line.clear();
        }
        let mut body = vec![0; length];
        if length == 0 || stream.read_exact(&mut body).is_err() {
            return;
        }
        let request = ExportTraceServiceRequest::decode(&*body).expect("OTLP");
        let mut received = received.lock().expect("no panic");
        received.bytes.extend(&body);
        for resource in &request.resource_spans {
            let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
            let names = attributes.filter(|field| field.key == "service.name");
            received.services.extend(names.filter_map(|field| {
                match field.value.as_ref()?.value.as_ref()? {
                    Value::StringValue(name) => Some(name.clone()),
                    _ => None,
                }
            }));
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            received.spans.extend(spans.map(Span::new));
        }
        drop(received);
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}
