//! The page about several nodes, followed as a reader would. Its own commands start Redis and the nodes, on ports that are free.
//!
//! A command whose output does not yet fit is run again until it does: one node follows another within milliseconds, not at once.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use tempfile::TempDir;

use super::commands::{PROGRAM, masked, shell};
use super::{RUN, SEVERAL_NODES, read, split};
use crate::program::until;

/// The ports of the page: that of Redis, and those of the nodes.
const PORTS: [&str; 3] = ["6379", "8420", "8421"];

/// The working directory, the ports that stand for those of the page, and what commands have left running.
struct Desk {
    dir: TempDir,
    ports: [u16; 3],
    /// A group of processes for each block that starts some.
    groups: Vec<u32>,
}

impl Desk {
    fn new() -> Desk {
        // Held until all are known, so that they differ.
        let free = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
        Desk { dir: TempDir::new().unwrap(), ports, groups: Vec::new() }
    }

    fn command(&self, block: &str) -> Command {
        let script = PORTS.iter().zip(self.ports).fold(block.to_owned(), |script, (shown, port)| {
            script
                .replace(&format!(":{shown}"), &format!(":{port}"))
                .replace(&format!(" {shown}"), &format!(" {port}"))
        });
        let script = script.replace(PROGRAM, env!("CARGO_BIN_EXE_likewise"));
        let mut shell = shell(script, self.dir.path(), &format!("http://127.0.0.1:{}", self.ports[1]));
        shell.env("LIKEWISE__MODEL__NAME", "all-MiniLM-L6-v2");
        shell
    }

    /// Runs a block of which nothing is shown, once. It may leave processes running.
    fn run(&mut self, block: &str) {
        let mut started = self.command(block).process_group(0).spawn().unwrap();
        if block.contains(" &\n") {
            self.groups.push(started.id());
        }
        assert!(started.wait().unwrap().success(), "{block}");
    }

    /// The lines that a block prints; none if it fails.
    async fn lines(&self, block: &str) -> Vec<String> {
        let mut command = self.command(block);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text =
            if output.status.success() { String::from_utf8(output.stdout).unwrap() } else { String::new() };
        text.lines().map(masked).collect()
    }

    async fn prints(&self, block: &str, shown: &str) {
        let fits = async || {
            let lines = self.lines(block).await;
            let mut rest = lines.iter();
            shown.lines().map(masked).all(|line| rest.any(|said| *said == line))
        };
        until(&format!("the output of {block} is {shown}"), fits).await;
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for group in &self.groups {
            // The processes may have ended.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_do_what_the_page_shows() {
    let (blocks, _) = split(&read(SEVERAL_NODES));
    let (mut desk, mut compared) = (Desk::new(), 0);
    for (n, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == RUN) {
        match blocks.get(n + 1).filter(|next| next.language == "text") {
            Some(shown) => {
                desk.prints(&block.text, &shown.text).await;
                compared += 1;
            }
            None => desk.run(&block.text),
        }
    }
    assert!(compared >= 9 && desk.groups.len() == 2, "{compared} outputs were compared");
}
