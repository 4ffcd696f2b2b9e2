//! `stellar-s3-server FOLDER [ADDRESS]`: the object store of the tests as a program.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of the command line")]

use std::{net::SocketAddr, path::Path, process::ExitCode};

use stellar_s3_server::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};

const USAGE: &str = "\
An object store with the S3 protocol, for tests: serves a folder until it is killed

    stellar-s3-server FOLDER [ADDRESS]       ADDRESS: such as 127.0.0.1:9000; a free port by default

It prints its URL. `curl -X POST URL/_fault/busy` refuses all requests with 503 from then on; the other
faults are stall, cut and torn, and `none` ends them. `?times=3` is for the next three requests.";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (folder, address) = match arguments.as_slice() {
        [folder] if !folder.starts_with('-') => (folder, "127.0.0.1:0"),
        [folder, address] => (folder, address.as_str()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Ok(address) = address.parse::<SocketAddr>() else {
        eprintln!("{address} is not an address such as 127.0.0.1:9000");
        return ExitCode::from(2);
    };
    let server = match Server::bind(Path::new(folder), address) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("cannot serve {folder} at {address}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", server.endpoint());
    println!("bucket {BUCKET}, access key {ACCESS_KEY}, secret key {SECRET_KEY}");
    loop {
        std::thread::park();
    }
}
