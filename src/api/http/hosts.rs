//! Protection against pages of other sites in a browser, also where API keys are not in use.
//!
//! A page of any site can make a browser send forms to a service on the same machine. By DNS
//! rebinding (a name of the page's own that resolves to this machine) it can also read the
//! responses. The first is refused by `Origin` and `Sec-Fetch-Site`, which pages cannot forge, the
//! second by `Host`, which then names the page's site. Programs do not send the first two
//! headers, and send as `Host` the address that they were given.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::error::{ApiError, Code};
use crate::config::Server;

/// Routes for any host: probes and scrapers use whatever address the orchestrator knows, and these
/// routes expose no data.
const EXEMPT: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];

/// The entry of `server.hosts` that allows every host.
const ANY: &str = "*";

/// The hosts that the service accepts requests for.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    configured: Vec<String>,
    listen: Option<IpAddr>,
}

impl Hosts {
    pub(crate) fn new(server: &Server) -> Self {
        let listen = server.listen.ip();
        Self {
            configured: server.hosts.iter().map(|host| plain(host)).collect(),
            listen: (!listen.is_unspecified()).then_some(listen),
        }
    }

    /// Returns true if the service accepts requests for this host, given without its port.
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

    /// Returns true if the configuration lists this host.
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
            let problem = "the path contains a control character, which no name has: remove it";
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
                    "this service does not accept requests for the host `{named}`: add it to \
                        server.hosts (STELLAR_SERVER__HOSTS='[\"{named}\"]')"
                ),
            ));
        }
        if method.is_safe() || self.same_site(host.as_ref(), headers) {
            return Ok(());
        }
        Err(ApiError::new(
            Code::CrossSite,
            "a page of another site sent this request, and only pages of this service may write: \
                programs must not send Origin and Sec-Fetch-Site",
        ))
    }

    /// Returns true if a program, a page of this service or the user sent the request.
    fn same_site(&self, host: Option<&Authority>, headers: &HeaderMap) -> bool {
        if let Some(site) = headers.get("sec-fetch-site") {
            return matches!(site.as_bytes(), b"same-origin" | b"none");
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        // `null` is the origin of sandboxed frames and local files.
        let Some(origin) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok())
        else {
            return false;
        };
        let Some(origin) = origin.authority() else { return false };
        let same = host.is_some_and(|host| {
            plain(host.host()) == plain(origin.host()) && host.port_u16() == origin.port_u16()
        });
        // A proxy may change Host: then the page's host is one in the configuration. Another port
        // of that host belongs to another service.
        same || (origin.port().is_none()
            && self.configured.iter().any(|configured| *configured == plain(origin.host())))
    }
}

/// Returns true if a path has a control character, percent-encoded or not. PostgreSQL does not
/// accept U+0000 in text.
fn has_control_character(path: &str) -> bool {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let encoded = path
        .as_bytes()
        .windows(3)
        .filter(|three| three[0] == b'%')
        .filter_map(|three| digits(&three[1..]));
    encoded.chain(path.bytes()).any(|byte| byte.is_ascii_control())
}

/// Returns a host in the form in which hosts are compared: lower case, without brackets and final
/// dot; an address in its shortest spelling.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

/// Returns the host that a request is for. Only HTTP/1.0 may omit it, which no browser uses
/// (RFC 9112, 3.2).
fn authority(
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Authority>, ApiError> {
    let bad = || {
        ApiError::new(
            Code::MalformedRequest,
            "the Host header is missing, repeated or invalid: send one valid Host header",
        )
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (None, _) if version > Version::HTTP_10 && uri.authority().is_none() => return Err(bad()),
        (None, _) => None,
        (Some(host), None) => Some(
            host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()).ok_or_else(bad)?,
        ),
        (Some(_), Some(_)) => return Err(bad()),
    };
    // The host of an absolute target takes precedence (RFC 9112, 3.2.2).
    Ok(uri.authority().cloned().or(header))
}

/// Refuses requests for other hosts, and writes sent by pages of other sites.
pub(crate) async fn guard(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.check(request.version(), request.method(), request.uri(), request.headers()) {
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
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        hosts
            .check(Version::HTTP_11, method, &path.parse().unwrap(), &headers.collect())
            .map_err(|error| error.detail().to_owned())
    }

    #[test]
    fn by_default_only_this_machine_is_accepted() {
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
            assert_eq!(
                check(&hosts, &Method::GET, "/v1/runs", &[("host", fine)]),
                Ok(()),
                "{fine}"
            );
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
            assert_eq!(
                check(&hosts, &Method::GET, route, &[("host", "10.0.0.7:8080")]),
                Ok(()),
                "{route}"
            );
        }
    }

    #[test]
    fn only_http_1_0_may_omit_the_host() {
        let hosts = hosts("127.0.0.1:8080", &[]);
        assert!(check(&hosts, &Method::GET, "/v1/runs", &[]).unwrap_err().contains("Host"));
        let (path, none) = ("/v1/runs".parse().unwrap(), HeaderMap::new());
        assert!(hosts.check(Version::HTTP_10, &Method::GET, &path, &none).is_ok());
    }

    #[test]
    fn configured_hosts_and_the_listen_address_are_accepted() {
        let hosts = hosts("10.0.0.7:8080", &["Scores.Example", "fd00:0::7", "::ffff:10.0.0.8"]);
        for fine in [
            "scores.example",
            "scores.example:443",
            "10.0.0.7:8080",
            "[fd00::7]:8080",
            "[FD00::0:7]",
            "10.0.0.8",
        ] {
            assert_eq!(
                check(&hosts, &Method::GET, "/v1/runs", &[("host", fine)]),
                Ok(()),
                "{fine}"
            );
        }
        assert!(check(&hosts, &Method::GET, "/v1/runs", &[("host", "a.scores.example")]).is_err());
    }

    #[test]
    fn a_star_accepts_every_host() {
        assert_eq!(
            check(&hosts("0.0.0.0:1", &["*"]), &Method::GET, "/", &[("host", "any.example")]),
            Ok(())
        );
    }

    #[test]
    fn the_host_of_the_target_takes_precedence_and_two_host_headers_are_refused() {
        let hosts = hosts("127.0.0.1:8080", &[]);
        assert!(
            check(&hosts, &Method::GET, "http://evil.example/v1/runs", &[("host", "localhost")])
                .is_err()
        );
        assert!(
            check(
                &hosts,
                &Method::GET,
                "/v1/runs",
                &[("host", "localhost"), ("host", "localhost")]
            )
            .is_err()
        );
        assert!(check(&hosts, &Method::GET, "/v1/runs", &[("host", "a b")]).is_err());
    }

    #[test]
    fn pages_of_other_sites_cannot_write() {
        let hosts = hosts("127.0.0.1:8080", &["scores.example", "fd00::7"]);
        let host = ("host", "localhost:8080");
        let write =
            |headers: &[(&'static str, &str)]| check(&hosts, &Method::POST, "/v1/score", headers);
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
                "without CORS the page cannot read the response"
            );
        }
    }
}
