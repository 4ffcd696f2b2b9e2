//! Runs the program in a world of its own: a temporary folder, no settings from outside.

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

/// The program with this test's arguments, in the repository's folder, without settings from outside.
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

/// What a command printed and how it ended.
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
    /// What a successful command printed.
    #[track_caller]
    pub(crate) fn printed(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// Checks that the command failed with one clear message that has all of `words`, each said once.
    #[track_caller]
    pub(crate) fn failed(self, words: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "{} {}", self.stdout, self.stderr);
        let message = self.stderr.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_default();
        for word in words {
            assert_eq!(
                self.stderr.matches(word).count(),
                1,
                "`{word}` is to be said once in: {}",
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        message.to_owned()
    }
}

/// A running service.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts the service on a free port with its database in `folder`.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let log = folder.join("log.txt");
        let mut command = serve(folder);
        command.envs(settings.iter().copied());
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).expect("a log file"));
        let mut child = command.spawn().expect("the program starts");
        let printed = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let address = printed
            .map_while(Result::ok)
            .find_map(|line| line.split_once("serves http://")?.1.split(' ').next()?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("it did not start: {}", read(&log)));
        Self { child, address, log }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        client::send(self.address, &format!("GET {path}"), &[], &[]).expect("an answer")
    }

    pub(crate) fn score(&self, form: Form) -> Answer {
        let headers = [("content-type", &*Form::content_type())];
        client::send(self.address, "POST /v1/score", &headers, &form.finish()).expect("an answer")
    }

    /// Samples that the method's row counts for a metric.
    pub(crate) fn counted(&self, method: &str, metric: &str) -> u64 {
        let board = self.get(&format!("/v1/leaderboard?method={method}")).json();
        board["rows"][0]["metrics"][metric]["n"].as_u64().unwrap_or(0)
    }

    /// Memory of the process, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.child.id())));
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Asks the process to stop, as an orchestrator does.
    pub(crate) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Ends the process without a word, as a power failure does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits until the process ends.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = until("the process to end", || self.child.try_wait().expect("a child"));
        (status, read(&self.log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already where the test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that serves on a free port with its database in `folder`.
pub(crate) fn serve(folder: &Path) -> Command {
    let mut command = program(&["serve"]);
    command.env("STELLAR_SERVER__LISTEN", "127.0.0.1:0");
    command.env("STELLAR_STORE__URL", format!("sqlite:{}", folder.join("stellar.db").display()));
    command.env("STELLAR_STORE__SPOOL", folder.join("files"));
    command
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
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

fn copy(from: &Path, to: &Path) {
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
