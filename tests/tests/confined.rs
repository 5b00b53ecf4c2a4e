//! The agent under the restrictions of its systemd unit: capabilities, system calls, view of the file system
//! (`tests/fleet/confine.py`).

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::engine::get;
use profilemate_tests::{Guard, binary, demo, root, wait_for};
use serde_json::Value;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const CONFINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fleet/confine.py");
const LIMIT: Duration = Duration::from_secs(90);

/// The unit's state folder, under a name of the test's own, with a copy of the program: homes are out of its sight.
struct Home {
    folder: PathBuf,
    unit: PathBuf,
    address: SocketAddr,
}

impl Drop for Home {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

impl Home {
    fn new(mark: &str) -> Self {
        let name = format!("profilemate-test-{}", std::process::id());
        let folder = Path::new("/var/lib").join(&name);
        std::fs::create_dir_all(&folder).expect("a state folder");
        std::fs::copy(binary(), folder.join("profilemate")).expect("a copy of the program");
        let text =
            std::fs::read_to_string(Path::new(DEPLOY).join("systemd/profilemate-agent.service"))
                .expect("the unit");
        let unit = folder.join("unit");
        let own = text.replace(
            "StateDirectory=profilemate",
            &format!("StateDirectory={name}"),
        );
        assert_ne!(own, text);
        std::fs::write(&unit, own).expect("a file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let config = format!(
            "[agent]\nlisten = \"{address}\"\nstate_folder = \"{}\"\ninterval = \"300ms\"\n\
             [servers]\nwith_environment = [\"PROFILEMATE_NODE={mark}\"]\n",
            folder.join("state").display()
        );
        std::fs::write(folder.join("agent.toml"), config).expect("a configuration");
        Self {
            folder,
            unit,
            address,
        }
    }

    /// The agent as the unit and `drop_in` confine it, `without` some capabilities of these.
    fn start(&self, drop_in: Option<&Path>, without: &[&str]) -> Guard {
        let log = std::fs::File::create(self.folder.join("agent.log")).expect("a log");
        let mut command = Command::new("python3");
        command.arg(CONFINE);
        for capability in without {
            command.args(["--without", capability]);
        }
        command.arg(&self.unit).args(drop_in);
        command
            .arg("--")
            .arg(self.folder.join("profilemate"))
            .args(["-v", "agent", "--config"])
            .arg(self.folder.join("agent.toml"))
            .stdout(Stdio::null())
            .stderr(log);
        Guard::start(&mut command)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// How it stands with the one server.
    fn standing(&self) -> Option<String> {
        let (_, body) = get(self.address.port(), "/sessions").ok()?;
        let sessions: Value = serde_json::from_str(&body).ok()?;
        Some(sessions["servers"][0]["state"].as_str()?.to_owned())
    }
}

/// Capabilities that a text names, in its order.
fn capabilities(text: &str, begin: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.trim().split_once(begin));
    let (_, list) = line.unwrap_or_else(|| panic!("no line with `{begin}`"));
    let list = list.trim_end_matches(['\\', ' ']);
    list.split([',', ' '])
        .map(|name| name.trim_start_matches("CAP_").to_owned())
        .collect()
}

#[test]
fn unit_container_and_chart_ask_for_the_same_capabilities() {
    let text = |name: &str| std::fs::read_to_string(Path::new(DEPLOY).join(name)).expect("a file");
    let unit = capabilities(
        &text("systemd/profilemate-agent.service"),
        "CapabilityBoundingSet=",
    );
    assert_eq!(unit.len(), 5);
    let container = capabilities(&text("container/Containerfile"), "--cap-add=");
    assert_eq!(container, unit);
    let rendered = text("kubernetes/profilemate.yaml");
    let (_, added) = rendered.split_once("add:\n").expect("capabilities");
    let chart: Vec<&str> = added
        .lines()
        .map_while(|line| line.trim().strip_prefix("- "))
        .collect();
    assert_eq!(chart, unit);
}

#[test]
fn the_agent_attaches_and_lets_go_under_the_restrictions_of_its_unit() {
    let Some(python) = demo::python("3.12") else {
        return;
    };
    if !root() {
        return;
    }
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        println!("skipped: no systemd-analyze, which knows the sets of system calls");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().display().to_string();
    let home = Home::new(&mark);
    let target = demo::start_marked(
        &python,
        &folder.path().join("target"),
        240,
        &[],
        &[("PROFILEMATE_NODE", mark)],
    );
    // Without SYS_ADMIN it works, or this kernel asks for it, and the agent says so.
    let mut agent = home.start(None, &[]);
    let told =
        || get(home.address.port(), "/sessions").map_or_else(|_| String::new(), |told| told.1);
    wait_for(
        "the agent to attach, or to say why it cannot",
        LIMIT,
        || home.standing().as_deref() == Some("attached") || told().contains("(os error"),
    );
    assert!(home.log().contains("no budget is kept"), "{}", home.log());
    if home.standing().as_deref() == Some("attached") {
        check_and_end(agent, &home, &target);
        return;
    }
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.wait(LIMIT), 0, "{}", home.log());
    let drop_in = Path::new(DEPLOY).join("systemd/sys-admin.conf");
    // With it, those that it contains can be left out.
    for without in [&[][..], &["BPF", "PERFMON", "CHECKPOINT_RESTORE"]] {
        let agent = home.start(Some(&drop_in), without);
        wait_for("the agent to attach", LIMIT, || {
            home.standing().as_deref() == Some("attached")
        });
        check_and_end(agent, &home, &target);
    }
}

/// The agent is confined indeed, counts steps, and leaves nothing.
fn check_and_end(mut agent: Guard, home: &Home, target: &demo::Demo) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()));
    let status = status.expect("its status");
    assert!(
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
        "{status}"
    );
    let steps = || {
        let (_, text) = get(home.address.port(), "/metrics").expect("metrics");
        text.lines()
            .filter(|line| line.starts_with("profilemate_steps_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    wait_for("steps", LIMIT, || steps() > 50.0);
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.wait(LIMIT), 0, "{}", home.log());
    let done = Command::new(binary())
        .args(["detach", "--pid", &target.pid().to_string()])
        .output()
        .expect("profilemate runs");
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(
        words.contains("nothing to put back"),
        "{words}\n{}",
        home.log()
    );
}
