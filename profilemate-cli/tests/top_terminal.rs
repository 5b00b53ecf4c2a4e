//! The live view in a real terminal (tmux): what stands on the screen after each key equals the kept screens.

#[path = "top/screens.rs"]
mod screens;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A tmux server of its own with one window, ended when dropped.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs `command` in a window; `None`, with a printed line, where there is no tmux.
    fn start(name: &str, (width, height): (u16, u16), command: &str) -> Option<Self> {
        let socket = format!("profilemate-{name}-{}", std::process::id());
        let terminal = Self { socket };
        let (width, height) = (width.to_string(), height.to_string());
        // The window stays when its program ends, so that what it left behind can be seen.
        let line = format!("{command}; echo ended with $?; sleep 60");
        let started = Command::new("tmux")
            .args([
                "-f",
                "/dev/null",
                "-L",
                &terminal.socket,
                "new-session",
                "-d",
                "-x",
                &width,
                "-y",
                &height,
                &line,
            ])
            .env_remove("TMUX")
            .status();
        let Ok(status) = started else {
            assert!(
                std::env::var_os("PROFILEMATE_REQUIRE_TMUX").is_none(),
                "tmux is not installed"
            );
            println!("skipped: no tmux on this machine");
            return None;
        };
        assert!(status.success(), "tmux starts");
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket])
            .args(arguments)
            .output()
            .expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn screen(&self) -> String {
        let text = self.tmux(&["capture-pane", "-p"]);
        text.lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    }

    /// Waits until the screen holds `mark`; what it then shows a moment later, when the drawing is done.
    fn wait_for(&self, mark: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let before = self.screen();
            std::thread::sleep(Duration::from_millis(250));
            let after = self.screen();
            if before == after && after.contains(mark) {
                return after;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for `{mark}`; the screen is\n{after}"
            );
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn story() -> PathBuf {
    let mut path = std::env::current_exe().expect("the test knows its own path");
    path.pop();
    path.pop();
    let story = path.join("examples/top_story");
    assert!(
        story.exists(),
        "{} is missing: run `cargo build -p profilemate-cli --example top_story` first",
        story.display()
    );
    story
}

#[test]
fn a_real_terminal_shows_the_kept_screens_key_by_key_and_is_left_as_it_was() {
    let command = format!("NO_COLOR=1 {}", story().display());
    let Some(terminal) = Terminal::start("keys", (80, 24), &command) else {
        return;
    };
    let expect = |name: &str, mark: &str| screens::assert_same(name, &terminal.wait_for(mark));
    expect("overview", "[Overview]");
    terminal.key("Tab");
    expect("ranks", "[Ranks]");
    terminal.key("Right");
    expect("requests", "[Requests]");
    terminal.key("Tab");
    expect("graphs", "[Graphs]");
    terminal.key("Left");
    terminal.key("BTab");
    terminal.key("BTab");
    terminal.key("?");
    expect("help", "stand still");
    terminal.key("?");
    terminal.wait_for("[Overview]");
    terminal.key("p");
    terminal.wait_for("PAUSED");
    terminal.key("p");
    // Resized, and back.
    terminal.tmux(&["resize-window", "-x", "50", "-y", "30"]);
    expect("narrow", "A step");
    terminal.tmux(&["resize-window", "-x", "30", "-y", "8"]);
    expect("too_small", "too small");
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    expect("overview", "[Overview]");
    terminal.key("r");
    let anew = terminal.wait_for("preemptions 0");
    assert!(anew.contains("finished 0"), "{anew}");
    terminal.key("/");
    terminal.tmux(&["send-keys", "-l", "early"]);
    let filtered = terminal.wait_for("filter: early");
    assert!(
        filtered.contains("cmpl-early") && !filtered.contains("cmpl-slow"),
        "{filtered}"
    );
    terminal.key("Enter");
    terminal.key("q");
    let left = terminal.wait_for("ended with 0");
    assert!(
        !left.contains("cmpl-") && !left.contains("Overview"),
        "the screen is given back:\n{left}"
    );
}

#[test]
fn ctrl_c_ends_it_too() {
    let Some(terminal) = Terminal::start("interrupt", (80, 24), &story().display().to_string())
    else {
        return;
    };
    terminal.wait_for("[Overview]");
    terminal.key("C-c");
    terminal.wait_for("ended with 0");
}
