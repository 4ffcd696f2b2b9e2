//! Records every write and deletion in the audit log.

use std::net::IpAddr;

use axum::{
    extract::{RawPathParams, Request},
    http::{HeaderMap, StatusCode},
};
use uuid::Uuid;

use super::request_id;
use crate::{clock, content::ContentHash, server::Peer, service::AuditLog, store::AuditEntry};

/// Status of a request whose client left before the response, as in nginx.
const CLIENT_LEFT: u16 = 499;

/// Longest resource, in characters. Longer ones are refused by their routes.
const RESOURCE: usize = 256;

/// A write in progress. It is also recorded if the client leaves, since deletions then go on.
#[derive(Debug)]
pub(super) struct Audited {
    log: AuditLog,
    entry: Option<AuditEntry>,
}

impl Audited {
    /// Begins to record a request; `None` if it only reads, or if its route does not exist.
    pub(super) fn begin(
        log: &AuditLog,
        request: &Request,
        key: Option<(Uuid, String)>,
        route: Option<&str>,
        parameters: Option<&RawPathParams>,
        proxies: &[IpAddr],
    ) -> Option<Self> {
        let route = route.filter(|_| !request.method().is_safe())?;
        let values = parameters.into_iter().flatten();
        let values: Vec<_> = values.map(|(name, value)| resource(name, value)).collect();
        let entry = AuditEntry {
            id: Uuid::now_v7(),
            time: clock::now(),
            key,
            method: request.method().as_str().to_owned(),
            route: route.to_owned(),
            resource: values.join("/"),
            address: address(request, proxies),
            request_id: request_id::current(),
            status: CLIENT_LEFT,
        };
        Some(Self { log: log.clone(), entry: Some(entry) })
    }

    /// Records the outcome. If `durable` is set, waits until it is stored.
    pub(super) async fn end(mut self, status: StatusCode, durable: bool) {
        let Some(entry) = self.entry.take() else { return };
        let entry = AuditEntry { status: status.as_u16(), ..entry };
        if durable {
            self.log.record(entry).await;
        } else {
            self.log.note(entry);
        }
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        if let Some(mut entry) = self.entry.take() {
            if std::thread::panicking() {
                entry.status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
            }
            self.log.note(entry);
        }
    }
}

/// Returns the address of a request's client.
pub(super) fn address(request: &Request, proxies: &[IpAddr]) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>()?.0;
    Some(client(peer, request.headers(), proxies))
}

/// Returns a parameter of a path as it is recorded. Ids, content hashes and datasets are recorded
/// as they are. Names of samples and annotators may be those of people, and the log outlives their
/// deletion: only the hash of a name is recorded, by which it can be found.
fn resource(parameter: &str, value: &str) -> String {
    match parameter {
        "id" | "hash" | "dataset" => value.chars().take(RESOURCE).collect(),
        _ => hashed(value),
    }
}

/// Returns the form in which the name of a sample or annotator is recorded.
pub(crate) fn hashed(name: &str) -> String {
    format!("blake3:{}", &ContentHash::of(name.as_bytes()).to_hex()[..16])
}

/// Returns the address of a client: the last one in `X-Forwarded-For` that is not a proxy of ours,
/// if the connection comes from one.
fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let peer = peer.to_canonical();
    if !proxies.contains(&peer) {
        return peer;
    }
    let values: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let listed =
        values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    let mut client = peer;
    for address in listed {
        let address = std::str::from_utf8(address).ok();
        // What is behind an unreadable address is made up.
        let Some(address) = address.and_then(|address| address.trim().parse::<IpAddr>().ok())
        else {
            break;
        };
        client = address.to_canonical();
        if !proxies.contains(&client) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn names_are_recorded_as_hashes() {
        assert_eq!(resource("id", "01a2"), "01a2");
        assert_eq!(resource("dataset", "people"), "people");
        let name = resource("annotator", "ada");
        assert!(name.starts_with("blake3:") && !name.contains("ada"), "{name}");
        assert_eq!(resource("name", "ada"), name);
        assert_eq!(resource("id", &"x".repeat(10_000)).len(), RESOURCE);
    }

    #[test]
    fn only_a_proxy_of_ours_names_the_client() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                headers.append("x-forwarded-for", value);
            }
            headers
        };
        let proxies = [address("127.0.0.1"), address("10.0.0.2")];
        for (peer, values, expected) in [
            ("10.0.0.9", &["1.2.3.4"][..], "10.0.0.9"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("::ffff:127.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("127.0.0.1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            ("127.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("127.0.0.1", &["1.2.3.4", "10.0.0.2"], "1.2.3.4"),
            ("127.0.0.1", &["1.2.3.4, nonsense, 10.0.0.2"], "10.0.0.2"),
            // A client cannot hide what a proxy appends to its own bytes.
            ("127.0.0.1", &["6.6.6.6", "\u{e9}, 1.2.3.4"], "1.2.3.4"),
            ("127.0.0.1", &["6.6.6.6", "\u{e9}"], "127.0.0.1"),
        ] {
            let found = client(address(peer), &headers(values), &proxies);
            assert_eq!(found, address(expected), "{peer} {values:?}");
        }
    }
}
