//! Connections that send nothing, too little, or too slowly.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    harness::{App, ONE_GRAPH, tells},
    support::{
        client::{self, Exchange},
        form::Form,
        images,
    },
};

const HEAD_OF_A_PUT: &str = "PUT /v1/datasets/x/prompts HTTP/1.1\r\nhost: \
    localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";

fn open(to: SocketAddr, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("the service accepts");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    stream.write_all(sent.as_bytes()).expect("the service reads");
    stream
}

/// Reads until the service closes the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A reset after the response also ends it.
    let _ = stream.read_to_string(&mut text);
    text
}

fn form() -> Form {
    Form::new().file("image", images::png(7)).field("metrics", ONE_GRAPH).field("method", "mine")
}

/// Status of the response to a well-behaved client, outside the runtime.
async fn score(to: SocketAddr, form: Form) -> u16 {
    tokio::task::spawn_blocking(move || {
        let headers = [("content-type", Form::content_type())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_ref()));
        client::send(to, "POST /v1/score", &headers, &form.finish()).expect("a response").status
    })
    .await
    .expect("the client does not panic")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_bodies_block_no_client_and_return_408() {
    let app = App::with(|setup| {
        setup.config.limits.requests = 4;
        setup.config.limits.upload_memory_mib = 128;
        setup.config.server.body_seconds = 2;
    })
    .await;
    let to = app.listen().await;
    // More connections than slots, and together they announce more bytes than the memory budget.
    let idle: Vec<_> = blocking(move || {
        let large = HEAD_OF_A_PUT.replace("length: 100", "length: 16000000");
        (0..40).map(|at| open(to, if at % 2 == 0 { HEAD_OF_A_PUT } else { &large })).collect()
    })
    .await;
    assert_eq!(score(to, form()).await, 200, "another client is served");
    let responses: Vec<_> = blocking(move || idle.into_iter().map(rest).collect()).await;
    for response in responses {
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
        assert!(
            response.contains("connection: close") && response.contains("request_timeout"),
            "{response}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dripping_body_is_cut_off() {
    let app = App::with(|setup| setup.config.server.body_seconds = 1).await;
    let to = app.listen().await;
    let response = blocking(move || {
        let mut stream = open(to, HEAD_OF_A_PUT);
        let mut reader = stream.try_clone().expect("a socket");
        let dripping = std::thread::spawn(move || {
            // Ends with the connection, or at the end of the body.
            for _ in 0..100 {
                if stream.write_all(b" ").is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let mut buffer = [0; 4096];
        let read = reader.read(&mut buffer).expect("a response");
        drop(reader);
        dripping.join().expect("no panic");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    })
    .await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    tells(&response, &["request_timeout", "bytes a second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_heads_return_408() {
    let app = App::with(|setup| setup.config.server.head_seconds = 1).await;
    let to = app.listen().await;
    for sent in ["", "GET /livez HT", "GET /livez HTTP/1.1\r\nhost: loc"] {
        let response = blocking(move || rest(open(to, sent))).await;
        assert!(response.starts_with("HTTP/1.1 408 "), "{sent:?}: {response:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_without_a_response() {
    let app = App::with(|setup| setup.config.server.head_seconds = 1).await;
    let to = app.listen().await;
    let response =
        blocking(move || rest(open(to, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"))).await;
    assert!(
        response.starts_with("HTTP/1.1 200 ") && response.matches("HTTP/1.1 ").count() == 1,
        "{response}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_limit_the_oldest_idle_connection_is_closed() {
    let app = App::with(|setup| setup.config.server.connections = 8).await;
    let to = app.listen().await;
    let idle: Vec<_> = blocking(move || (0..8).map(|_| open(to, "")).collect::<Vec<_>>()).await;
    for _ in 0..3 {
        assert_eq!(score(to, form()).await, 200);
    }
    let (closed, open) = blocking(move || {
        let (mut closed, mut open) = (0, 0);
        for mut stream in idle {
            stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
            match stream.read_exact(&mut [0; 12]) {
                Ok(()) => closed += 1,
                Err(_) => open += 1,
            }
        }
        (closed, open)
    })
    .await;
    assert!(closed >= 1 && open >= 4, "{closed} closed, {open} left open");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_limit_a_connection_without_its_body_is_closed_with_408() {
    let app = App::with(|setup| {
        setup.config.server.connections = 8;
        setup.config.server.body_seconds = 60;
    })
    .await;
    let to = app.listen().await;
    let dripping =
        blocking(move || (0..8).map(|_| open(to, HEAD_OF_A_PUT)).collect::<Vec<_>>()).await;
    for _ in 0..3 {
        assert_eq!(score(to, form()).await, 200);
    }
    let closed = blocking(move || {
        let mut closed = 0;
        for mut stream in dripping {
            stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
            let mut response = [0; 12];
            if stream.read_exact(&mut response).is_ok() {
                assert_eq!(&response, b"HTTP/1.1 408");
                closed += 1;
            }
        }
        closed
    })
    .await;
    assert!((1..=4).contains(&closed), "{closed} of 8 were closed for one client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let app = App::with(|setup| setup.config.server.write_seconds = 1).await;
    let to = app.listen().await;
    // More responses than the buffers of both sides hold, and the client reads none.
    let closed = blocking(move || {
        let mut stream = TcpStream::connect(to).expect("the service accepts");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let request = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
        (0..100_000).any(|_| {
            stream.write_all(request.as_bytes()).is_err_and(|error| {
                matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
                )
            })
        })
    })
    .await;
    assert!(closed, "the service kept a connection that reads nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_http_is_refused_and_other_clients_are_served() {
    let app = App::start().await;
    let to = app.listen().await;
    let garbage = [
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(200_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "x: a\r\n".repeat(5_000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)),
        "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n".to_owned(),
        "POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST /v1/score HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            .to_owned(),
    ];
    for text in garbage {
        let response = blocking(move || {
            let mut stream = TcpStream::connect(to).expect("the service accepts");
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
            // The service may close before everything is sent.
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut response = Vec::new();
            let _ = stream.read_to_end(&mut response);
            String::from_utf8_lossy(&response).into_owned()
        })
        .await;
        let status = response.get(9..12).unwrap_or_default();
        assert!(response.is_empty() || status.starts_with('4'), "{response:?}");
    }
    assert_eq!(score(to, form()).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_reserved_for_received_and_not_announced_bytes() {
    let app = App::with(|setup| {
        (setup.config.limits.upload_memory_mib, setup.config.limits.request_mib) = (2, 2);
        setup.config.limits.image_mib = 2;
        setup.config.server.body_seconds = 60;
    })
    .await;
    let to = app.listen().await;
    let headers = [("content-type", Form::content_type())];
    let announced = blocking(move || {
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_ref()));
        (0..8)
            .map(|_| Exchange::begin(to, "POST /v1/score", &headers, 2 << 20).expect("accepted"))
            .collect::<Vec<_>>()
    })
    .await;
    assert_eq!(score(to, form()).await, 200, "16 MiB are announced, none received");
    drop(announced);
}
