//! Network namespaces as the nodes of a small fleet: each with an address of its own, joined by a bridge in one more.
//! Nothing of the machine's own network is touched, and all of it goes with the test.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";
/// What the names of ours begin with; the test's process id follows.
const PREFIX: &str = "profilemate-";

/// The namespaces of one test.
pub struct Net {
    nodes: Vec<&'static str>,
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`ip` (package iproute2): {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&done.stderr);
    Err(format!("`ip {}`: {}", arguments.join(" "), words.trim()))
}

/// What a test that was killed has left.
fn remove_left() {
    let names = std::fs::read_dir(NAMESPACES).into_iter().flatten();
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'));
        if owner.is_some_and(|(pid, _)| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _gone = ip(&["netns", "del", &name]);
        }
    }
}

impl Net {
    /// Makes a namespace for each node. `None`: this machine does not allow that, which is printed, or fails where
    /// `PROFILEMATE_REQUIRE_NETNS=1` says that it must work.
    pub fn new(nodes: &[&'static str]) -> Option<Self> {
        remove_left();
        let net = Self {
            nodes: nodes.to_vec(),
        };
        match net.build() {
            Ok(()) => Some(net),
            Err(why) => {
                assert!(
                    std::env::var_os("PROFILEMATE_REQUIRE_NETNS").is_none(),
                    "network namespaces must work here: {why}"
                );
                println!("skipped: no network namespaces: {why}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let hub = &Self::namespace("hub");
        ip(&["netns", "add", hub])?;
        ip(&["-n", hub, "link", "add", "name", "bridge", "type", "bridge"])?;
        ip(&["-n", hub, "link", "set", "dev", "bridge", "up"])?;
        for node in &self.nodes {
            let own = &Self::namespace(node);
            ip(&["netns", "add", own])?;
            ip(&["-n", own, "link", "set", "dev", "lo", "up"])?;
            ip(&[
                "-n", hub, "link", "add", "name", node, "type", "veth", "peer", "name", "eth0",
                "netns", own,
            ])?;
            ip(&[
                "-n", hub, "link", "set", "dev", node, "master", "bridge", "up",
            ])?;
            let address = format!("{}/24", self.address(node));
            ip(&["-n", own, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", own, "link", "set", "dev", "eth0", "up"])?;
        }
        Ok(())
    }

    fn namespace(node: &str) -> String {
        format!("{PREFIX}{}-{node}", std::process::id())
    }

    /// The address of a node.
    pub fn address(&self, node: &str) -> String {
        let index = self.nodes.iter().position(|own| *own == node);
        format!("10.77.0.{}", index.expect("a node of this net") + 1)
    }

    /// Pulls a node's cable.
    pub fn cut(&self, node: &str) {
        let own = Self::namespace(node);
        ip(&["-n", &own, "link", "set", "dev", "eth0", "down"]).expect("the link goes down");
    }

    /// Does something on a node: connections, sockets and the processes that are started are that node's.
    pub fn within<T: Send>(&self, node: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("{NAMESPACES}/{}", Self::namespace(node)))
            .expect("the node's namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the descriptor is open, and only this thread, which ends with its work, changes its network.
                let done = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
                work()
            });
            match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in self.nodes.iter().copied().chain(["hub"]) {
            let _gone = ip(&["netns", "del", &Self::namespace(node)]);
        }
    }
}
