//! `stellar-score health`.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use crate::harness::{Server, folder, program, run};

#[test]
fn health_is_ready_exactly_while_a_service_is() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[]);
    let address = server.address.to_string();
    // The configured address, with the port of the running service.
    let ask = || run(program(&["health"]).env("STELLAR_SERVER__LISTEN", &address));
    assert_eq!(ask().printed(), "ready\n");
    // A trailing path and a proxy in the environment change nothing.
    let url = format!("http://{address}/docs/");
    let mut of_url = program(&["health", "--url", &url]);
    assert_eq!(run(of_url.env("HTTP_PROXY", "http://127.0.0.1:1")).printed(), "ready\n");
    server.kill();
    ask().failed(&["does not respond", &address]);
}

#[test]
fn health_prints_the_reason_of_a_service_that_is_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let read = stream.read(&mut [0; 1024])?;
        assert!(read > 0);
        let body = r#"{"code": "unavailable", "detail": "the service is stopping"}"#;
        let length = body.len();
        write!(stream, "HTTP/1.1 503 Unavailable\r\ncontent-length: {length}\r\n\r\n{body}")
    });
    let answer = run(&mut program(&["health", "--url", &url]));
    server.join().expect("the server does not panic").expect("it responds");
    assert_eq!(answer.code, Some(1));
    assert_eq!(answer.stdout, "not ready: the service is stopping\n");
}
