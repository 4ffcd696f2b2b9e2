//! A multipart form built byte by byte, so that tests can also send malformed requests.

const BOUNDARY: &str = "stellar-test-boundary-7f3a";

/// A form under construction.
pub(crate) struct Form {
    body: Vec<u8>,
}

impl Form {
    pub(crate) fn new() -> Self {
        Self { body: Vec::new() }
    }

    /// The value of the request's `Content-Type`.
    pub(crate) fn content_type() -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    /// Adds a field; its value may be any bytes.
    pub(crate) fn field(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.part(&format!("Content-Disposition: form-data; name=\"{name}\""), value.as_ref())
    }

    /// Adds a file as `curl -F name=@file` would.
    pub(crate) fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let head = format!(
            "Content-Disposition: form-data; name=\"{name}\"; filename=\"image\"\r\n\
             Content-Type: application/octet-stream"
        );
        self.part(&head, bytes.as_ref())
    }

    /// Adds a part with these headers.
    pub(crate) fn part(mut self, headers: &str, content: &[u8]) -> Self {
        self.body.extend_from_slice(format!("--{BOUNDARY}\r\n{headers}\r\n\r\n").as_bytes());
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    /// The body with its closing boundary.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        self.body
    }
}
