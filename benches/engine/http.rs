//! The whole service on a local socket: multipart, JPEG decoding, resizing, engine, store, JSON.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use stellar_score::bench::LocalService;
use stellar_score::config::Config;
use stellar_score::engine::{Engine, Pack};
use stellar_score::telemetry::Telemetry;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{CALLERS_A_BATCH, MAX_BATCH, ROUND};

const BOUNDARY: &str = "stellar-benchmark-boundary";

/// A listening service and the requests of its clients.
pub(crate) struct OverHttp {
    runtime: tokio::runtime::Runtime,
    service: LocalService,
    image: Arc<Vec<u8>>,
    sent: Arc<AtomicU64>,
}

impl OverHttp {
    /// Serves the pack's CLIP with `threads` per batch, one batch at a time.
    pub(crate) fn start(pack: &Pack, threads: usize) -> anyhow::Result<Self> {
        let mut pack = pack.clone();
        pack.graphs.retain(|graph| graph.role.starts_with("clip."));
        let mut config = Config::load(None)?;
        (config.engine.concurrent_batches, config.engine.threads) = (1, threads);
        config.engine.max_batch = MAX_BATCH;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let service = runtime.block_on(async {
            let telemetry = Telemetry::new();
            let engine = Engine::start(&pack, &config.engine, &telemetry.engine)?;
            LocalService::start(&config, pack, engine, telemetry).await
        })?;
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo/goldens/astronaut.jpg");
        let image = Arc::new(std::fs::read(image)?);
        Ok(Self { runtime, service, image, sent: Arc::default() })
    }

    /// Scores new images for one round, one per request, and returns their number.
    pub(crate) fn images(&self) -> anyhow::Result<u64> {
        let until = Instant::now() + ROUND;
        self.runtime.block_on(async {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..CALLERS_A_BATCH * MAX_BATCH {
                let (address, image, sent) =
                    (self.service.address(), Arc::clone(&self.image), Arc::clone(&self.sent));
                clients.spawn(async move {
                    let mut connection = BufReader::new(TcpStream::connect(address).await?);
                    let mut scored = 0;
                    while Instant::now() < until {
                        let image = numbered(&image, sent.fetch_add(1, Ordering::Relaxed));
                        exchange(&mut connection, &request(&image)).await?;
                        scored += 1;
                    }
                    anyhow::Ok(scored)
                });
            }
            let mut scored = 0;
            while let Some(client) = clients.join_next().await {
                scored += client??;
            }
            Ok(scored)
        })
    }
}

/// The same JPEG with a number in a comment: different bytes, so a different image for the cache.
fn numbered(jpeg: &[u8], number: u64) -> Vec<u8> {
    let (start, rest) = jpeg.split_at(2);
    let comment = [&[0xFF, 0xFE, 0, 10], number.to_be_bytes().as_slice()].concat();
    [start, &comment, rest].concat()
}

fn request(image: &[u8]) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        )
    };
    let file = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"image\"; filename=\"i\"\r\n\r\n"
    );
    let body =
        field("prompt", "a person in an orange space suit") + &field("metrics", "clip_t") + &file;
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let length = body.len() + image.len() + end.len();
    let head = format!(
        "POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\
         content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes(), image, end.as_bytes()].concat()
}

async fn exchange(connection: &mut BufReader<TcpStream>, request: &[u8]) -> anyhow::Result<()> {
    connection.get_mut().write_all(request).await?;
    let mut status = String::new();
    connection.read_line(&mut status).await?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("a length")?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    ensure!(status.contains(" 200 "), "{status}{}", String::from_utf8_lossy(&body));
    Ok(())
}
