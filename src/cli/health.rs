//! `stellar-score health`: asks a running service whether it is ready, for the health checks of
//! containers, which have no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use reqwest::Url;
use serde::Deserialize;

use super::output::print;
use crate::{client::shown, config::Config};

/// The checks of container engines end after a few seconds themselves, without a reason.
const PATIENCE: Duration = Duration::from_secs(4);

/// How much of a response is read that is not a problem document, in characters.
const EXCERPT: usize = 300;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The server's address [default: `server.listen` of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
}

/// The part of a problem document that says why the service is not ready.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

pub(super) async fn run(config: &Config, args: HealthArgs) -> anyhow::Result<ExitCode> {
    let url = match args.url {
        Some(url) => url,
        None => Url::parse(&format!("http://{}", reachable(config.server.listen)))?,
    };
    // A probe needs no key, so one in the address is neither sent nor shown.
    let url = shown(&url.join("/readyz")?);
    // The service is asked itself, whatever proxy the environment names.
    let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let response = http
        .get(url.clone())
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("{url} does not respond"))?;
    let status = response.status();
    if status.is_success() {
        return print("ready\n");
    }
    let body = response.text().await.map_err(reqwest::Error::without_url)?;
    print(&format!("not ready: {}\n", reason(status.as_u16(), &body)))?;
    Ok(ExitCode::FAILURE)
}

/// Returns the address of a listener as seen from its machine: one that listens everywhere is
/// asked on the loopback interface.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn reason(status: u16, body: &str) -> String {
    if let Ok(Problem { detail }) = serde_json::from_str(body) {
        detail
    } else {
        let excerpt: String = body.chars().take(EXCERPT).collect();
        format!("status {status} {excerpt}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_interfaces_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.7:8080", "10.0.0.7:8080"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }

    #[test]
    fn the_reason_is_the_detail_or_else_the_beginning_of_the_body() {
        let problem = r#"{"code": "unavailable", "detail": "graphs fail: clip.image"}"#;
        assert_eq!(reason(503, problem), "graphs fail: clip.image");
        assert_eq!(reason(502, "Bad gateway"), "status 502 Bad gateway");
        assert!(reason(502, &"é".repeat(10_000)).chars().count() < 400);
    }
}
