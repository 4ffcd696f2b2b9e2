//! Who may talk to the service through a browser: nothing else keeps strangers out.
//!
//! A page of any site can make a browser send forms to a service on the same machine, and by DNS rebinding (a name of the page's own
//! that resolves to this machine) read the answers as well. The first is refused by `Origin` and `Sec-Fetch-Site`, which pages
//! cannot forge; the second by `Host`, which then names the page's site. Programs send neither header, or the address they
//! were given.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{ApiError, App, Code};
use crate::config::Server;

/// Probes and scrapers come by whatever address the orchestrator knows, and these routes show no data.
const EXEMPT: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// The entry of `server.hosts` that stands for every host.
const ANY: &str = "*";

/// The hosts that the service answers to.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    configured: Vec<String>,
    listen: Option<IpAddr>,
}

impl Hosts {
    pub(super) fn new(server: &Server) -> Self {
        let listen = server.listen.ip();
        Self {
            configured: server.hosts.iter().map(|host| plain(host)).collect(),
            listen: (!listen.is_unspecified()).then_some(listen),
        }
    }

    /// Whether a host, without its port, is one of ours.
    fn has(&self, host: &str) -> bool {
        let host = plain(host);
        if self.names(&host) || host == "localhost" || host.ends_with(".localhost") {
            return true;
        }
        host.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || self.listen == Some(address)
        })
    }

    /// Whether the configuration names it.
    fn names(&self, host: &str) -> bool {
        self.configured.iter().any(|configured| configured == host || configured == ANY)
    }

    fn check(
        &self,
        version: Version,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        if has_control_character(uri.path()) {
            let problem = "the path has a control character, which no name has: leave it out";
            return Err(ApiError::new(Code::MalformedRequest, problem));
        }
        let host = authority(version, uri, headers)?;
        if let Some(host) = &host
            && !EXEMPT.contains(&uri.path())
            && !self.has(host.host())
        {
            let named = plain(host.host());
            return Err(ApiError::new(
                Code::WrongHost,
                format!(
                    "this service does not answer to the host `{named}`: add it to server.hosts (STELLAR_SERVER__HOSTS='[\"{named}\"]')"
                ),
            ));
        }
        if method.is_safe() || self.same_site(host.as_ref(), headers) {
            return Ok(());
        }
        Err(ApiError::new(
            Code::CrossSite,
            "a page of another site sent this request: only pages of this service may write. Programs leave out Origin and Sec-Fetch-Site",
        ))
    }

    /// Whether the request is of a program, of a page of ours, or typed in by the user.
    fn same_site(&self, host: Option<&Authority>, headers: &HeaderMap) -> bool {
        if let Some(site) = headers.get("sec-fetch-site") {
            return matches!(site.as_bytes(), b"same-origin" | b"none");
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        // `null` is the origin of sandboxed frames and local files.
        let Some(origin) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else {
            return false;
        };
        let Some(origin) = origin.authority() else { return false };
        let same = host.is_some_and(|host| {
            plain(host.host()) == plain(origin.host()) && host.port_u16() == origin.port_u16()
        });
        // Behind a proxy that changes Host, the page is of a name that the configuration has. Another port of that name is another
        // service's.
        same || (origin.port().is_none()
            && self.configured.iter().any(|configured| *configured == plain(origin.host())))
    }
}

/// Whether a percent-encoded path has a character below U+0020 or U+007F: U+0000 above all, which PostgreSQL takes in no text.
fn has_control_character(path: &str) -> bool {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let encoded =
        path.as_bytes().windows(3).filter(|three| three[0] == b'%').filter_map(|three| digits(&three[1..]));
    encoded.chain(path.bytes()).any(|byte| byte.is_ascii_control())
}

/// A host as it is compared: lower case, without brackets and the dot at the end; an address in its shortest spelling.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

/// The host that a request is for; none only in HTTP/1.0, which no browser speaks (RFC 9112, 3.2).
fn authority(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, ApiError> {
    let bad = || ApiError::new(Code::MalformedRequest, "the Host header is missing, or is no host: send one");
    let mut hosts = headers.get_all(header::HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (None, _) if version > Version::HTTP_10 && uri.authority().is_none() => return Err(bad()),
        (None, _) => None,
        (Some(host), None) => {
            Some(host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()).ok_or_else(bad)?)
        }
        (Some(_), Some(_)) => return Err(bad()),
    };
    // A target with a host of its own takes precedence (RFC 9112, 3.2.2).
    Ok(uri.authority().cloned().or(header))
}

/// Refuses requests for other hosts, and writes that a page of another site sent.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.hosts.check(request.version(), request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn hosts(listen: &str, configured: &[&str]) -> Hosts {
        let mut server = Config::load(None).unwrap().server;
        server.listen = listen.parse().unwrap();
        server.hosts = configured.iter().map(|&host| host.to_owned()).collect();
        Hosts::new(&server)
    }

    fn check(
        hosts: &Hosts,
        method: &Method,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), String> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        hosts
            .check(Version::HTTP_11, method, &path.parse().unwrap(), &headers.collect())
            .map_err(|error| error.detail().to_owned())
    }

    #[test]
    fn by_default_only_this_machine_is_a_host() {
        let hosts = hosts("0.0.0.0:8080", &[]);
        for fine in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:80",
            "a.localhost",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(check(&hosts, &Method::GET, "/v1/runs", &[("host", fine)]), Ok(()), "{fine}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "10.0.0.7",
            "localhost.evil.example",
            "0.0.0.0",
            "[::]:80",
            "xlocalhost",
        ] {
            let error = check(&hosts, &Method::GET, "/v1/runs", &[("host", other)]).unwrap_err();
            assert!(error.contains("server.hosts"), "{other}: {error}");
        }
        for route in EXEMPT {
            assert_eq!(check(&hosts, &Method::GET, route, &[("host", "10.0.0.7:8080")]), Ok(()), "{route}");
        }
    }

    #[test]
    fn only_the_first_version_goes_without_a_host() {
        let hosts = hosts("127.0.0.1:8080", &[]);
        assert!(check(&hosts, &Method::GET, "/v1/runs", &[]).unwrap_err().contains("Host"));
        let (path, none) = ("/v1/runs".parse().unwrap(), HeaderMap::new());
        assert!(hosts.check(Version::HTTP_10, &Method::GET, &path, &none).is_ok());
    }

    #[test]
    fn configured_hosts_and_the_address_it_listens_on_are_hosts() {
        let hosts = hosts("10.0.0.7:8080", &["Scores.Example", "fd00:0::7", "::ffff:10.0.0.8"]);
        for fine in [
            "scores.example",
            "scores.example:443",
            "10.0.0.7:8080",
            "[fd00::7]:8080",
            "[FD00::0:7]",
            "10.0.0.8",
        ] {
            assert_eq!(check(&hosts, &Method::GET, "/v1/runs", &[("host", fine)]), Ok(()), "{fine}");
        }
        assert!(check(&hosts, &Method::GET, "/v1/runs", &[("host", "a.scores.example")]).is_err());
    }

    #[test]
    fn a_star_is_every_host() {
        assert_eq!(check(&hosts("0.0.0.0:1", &["*"]), &Method::GET, "/", &[("host", "any.example")]), Ok(()));
    }

    #[test]
    fn the_host_of_the_target_takes_precedence_and_two_are_none() {
        let hosts = hosts("127.0.0.1:8080", &[]);
        assert!(
            check(&hosts, &Method::GET, "http://evil.example/v1/runs", &[("host", "localhost")]).is_err()
        );
        assert!(
            check(&hosts, &Method::GET, "/v1/runs", &[("host", "localhost"), ("host", "localhost")]).is_err()
        );
        assert!(check(&hosts, &Method::GET, "/v1/runs", &[("host", "a b")]).is_err());
    }

    #[test]
    fn pages_of_other_sites_may_not_write() {
        let hosts = hosts("127.0.0.1:8080", &["scores.example", "fd00::7"]);
        let host = ("host", "localhost:8080");
        let write = |headers: &[(&'static str, &str)]| check(&hosts, &Method::POST, "/v1/score", headers);
        for fine in [
            &[host][..],
            &[host, ("origin", "http://localhost:8080")],
            &[host, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "https://scores.example")],
            &[host, ("origin", "https://[fd00::7]")],
        ] {
            assert_eq!(write(fine), Ok(()), "{fine:?}");
        }
        for foreign in [
            &[host, ("origin", "http://evil.example")][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://scores.example:3000")],
            &[host, ("origin", "http://localhost:3000")],
            &[host, ("origin", "")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site"), ("origin", "http://localhost:8080")],
        ] {
            assert!(write(foreign).is_err(), "{foreign:?}");
            assert_eq!(
                check(&hosts, &Method::GET, "/v1/runs", foreign),
                Ok(()),
                "reading without CORS shows nothing"
            );
        }
    }
}
