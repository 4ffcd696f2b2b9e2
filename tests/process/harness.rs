//! Runs the program in isolation: in a temporary folder and without settings from outside.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{
    client::{self, Answer},
    form::Form,
};

/// The program with these arguments, in the repository's folder, without settings from outside.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stellar-score"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STELLAR_") {
            command.env_remove(name);
        }
    }
    command
}

/// Exit code and output of a command.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Ran {
    /// The standard output of a successful command.
    #[track_caller]
    pub(crate) fn printed(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// Checks that the command failed with one message that contains each of `words` exactly once,
    /// and
    /// returns the message.
    #[track_caller]
    pub(crate) fn failed(self, words: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "{} {}", self.stdout, self.stderr);
        let message =
            self.stderr.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_default();
        for word in words {
            assert_eq!(
                self.stderr.matches(word).count(),
                1,
                "`{word}` must occur once in: {}",
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        message.to_owned()
    }
}

/// Settings of a service whose engine is simulated. It starts in a tenth of the time, so it is for
/// tests that do not need the numbers of real models. Samples take long enough to be interrupted.
pub(crate) const QUICK: [(&str, &str); 2] =
    [("STELLAR_ENGINE__PROVIDER", "simulated"), ("STELLAR_ENGINE__SIMULATED_MS", "60")];

/// A running service.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts the service on a free port with its database in `folder`.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(serve(folder), folder, settings)
    }

    /// Starts the service as [`start`](Self::start) does, with a simulated engine.
    pub(crate) fn quick(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start(folder, &[&QUICK, settings].concat())
    }

    /// Starts a worker on a free port with its notes in `folder`.
    pub(crate) fn worker(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(instance("worker", folder), folder, settings)
    }

    fn run(mut command: Command, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let log = folder.join("log.txt");
        command.envs(settings.iter().copied());
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).expect("a log file"));
        let mut child = command.spawn().expect("the program starts");
        let printed = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let address = printed.map_while(Result::ok).find_map(|line| {
            line.split_once("listening on http://")?.1.split(' ').next()?.parse().ok()
        });
        let address = address.unwrap_or_else(|| panic!("it did not start: {}", read(&log)));
        Self { child, address, log }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        client::send(self.address, &format!("GET {path}"), &[], &[]).expect("a response")
    }

    pub(crate) fn score(&self, form: Form) -> Answer {
        let headers = [("content-type", &*Form::content_type())];
        client::send(self.address, "POST /v1/score", &headers, &form.finish()).expect("a response")
    }

    /// Number of samples in the method's row for a metric.
    pub(crate) fn counted(&self, method: &str, metric: &str) -> u64 {
        let board = self.get(&format!("/v1/leaderboard?method={method}")).json();
        board["rows"][0]["metrics"][metric]["n"].as_u64().unwrap_or(0)
    }

    /// Value of a gauge without labels.
    pub(crate) fn gauge(&self, name: &str) -> f64 {
        self.find_gauge(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// The same; `None` while it has no value.
    pub(crate) fn find_gauge(&self, name: &str) -> Option<f64> {
        let text = String::from_utf8(self.get("/metrics").body).expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    /// Resident memory of the process, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.child.id())));
        let line =
            status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux reports it");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
            * 1024
    }

    /// Sends SIGTERM, as an orchestrator does.
    pub(crate) fn terminate(&self) {
        signal("TERM", &self.child);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        signal("INT", &self.child);
    }

    /// Sends SIGKILL: the process ends as abruptly as in a power failure.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits until the process ends; returns its status and its log.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = until("the process to end", || self.child.try_wait().expect("a child"));
        (status, read(&self.log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already if the test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(name: &str, child: &Child) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
}

/// The command that serves on a free port with its database in `folder`.
pub(crate) fn serve(folder: &Path) -> Command {
    instance("serve", folder)
}

fn instance(name: &str, folder: &Path) -> Command {
    let mut command = program(&[name]);
    command.env("STELLAR_SERVER__LISTEN", "127.0.0.1:0");
    command.env("STELLAR_STORE__URL", format!("sqlite:{}", folder.join("stellar.db").display()));
    command.env("STELLAR_STORE__SPOOL", folder.join("files"));
    command
}

/// Calls `poll` until it returns a value; panics after 20 s.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub(crate) fn demo_pack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo")
}

pub(crate) fn golden(name: &str) -> String {
    demo_pack().join("goldens").join(name).display().to_string()
}

/// A copy of the demo pack that a test may damage.
pub(crate) fn copied_pack(folder: &Path) -> PathBuf {
    let to = folder.join("pack");
    copy(&demo_pack(), &to);
    to
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
