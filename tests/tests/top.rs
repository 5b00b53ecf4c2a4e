//! `profilemate top` on a live target: the numbers of `--once --json`, the screen in a real terminal, and that it
//! leaves the target and the terminal as they were.

use std::process::Command;
use std::time::Duration;

use profilemate_tests::{binary, demo, wait_for};
use serde_json::Value;

/// Slots of the marker page in which a function is still redirected.
fn redirected(pid: u32) -> usize {
    let page = profilemate::touch::MarkerPage::find(pid).expect("the page can be read");
    page.map_or(0, |page| {
        let slots = page.slots().expect("its slots can be read");
        slots.iter().filter(|slot| slot.function != 0).count()
    })
}

#[test]
fn once_gives_the_live_numbers_as_json_and_writes_no_file() {
    let Some(stage) = demo::Stage::set("3.12", 60, &[]) else {
        return;
    };
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(binary())
        .args(["top", "--once", "--json", "--pid", &stage.pid()])
        .env("VLLM_PROFILING_DIR", empty.path())
        .current_dir(empty.path())
        .output()
        .expect("profilemate runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let view: Value = serde_json::from_str(&text).expect("JSON");
    for name in [
        "steps_per_sec",
        "tokens_per_sec",
        "token_utilization_pct",
        "events_per_sec",
    ] {
        assert!(
            view[name].as_f64().is_some_and(|number| number > 0.0),
            "{name} in {view:#}"
        );
    }
    assert!(
        view["kv_usage_pct"]
            .as_f64()
            .is_some_and(|pct| (0.0..=100.0).contains(&pct)),
        "{view:#}"
    );
    assert!(
        view["running"]
            .as_i64()
            .is_some_and(|running| (0..=8).contains(&running)),
        "{view:#}"
    );
    let stages = view["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 6);
    assert!(
        stages
            .iter()
            .all(|stage| stage["ms"].as_f64().is_some_and(|ms| ms > 0.0)),
        "{stages:?}"
    );
    assert!(
        view["requests"]
            .as_array()
            .is_some_and(|requests| !requests.is_empty())
    );
    assert!(
        view["graph_hit_pct"]
            .as_f64()
            .is_none_or(|pct| (0.0..=100.0).contains(&pct)),
        "{view:#}"
    );
    assert_eq!(
        std::fs::read_dir(empty.path()).unwrap().count(),
        0,
        "no file is written"
    );
    for pid in stage.demo.tree() {
        assert_eq!(redirected(pid), 0, "process {pid}");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let output = Command::new(binary()).arg("top").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--once"), "{text}");
}

#[test]
fn a_terminal_shows_a_live_target_until_q_and_gets_its_screen_back() {
    let Some(stage) = demo::Stage::set("3.12", 90, &[]) else {
        return;
    };
    let socket = format!("profilemate-live-{}", std::process::id());
    let tmux = |arguments: &[&str]| {
        Command::new("tmux")
            .args(["-f", "/dev/null", "-L", &socket])
            .args(arguments)
            .env_remove("TMUX")
            .output()
    };
    let line = format!(
        "{} top --pid {}; echo ended with $?; sleep 60",
        binary().display(),
        stage.pid()
    );
    if tmux(&["new-session", "-d", "-x", "80", "-y", "24", &line]).is_err() {
        assert!(
            std::env::var_os("PROFILEMATE_REQUIRE_TMUX").is_none(),
            "tmux is not installed"
        );
        println!("skipped: no tmux on this machine");
        return;
    }
    let screen = || {
        let output = tmux(&["capture-pane", "-p"]).expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_for("numbers on the screen", Duration::from_secs(40), || {
        let screen = screen();
        screen.contains("engines 1  workers 1")
            && screen.contains("demo-")
            && screen.contains("KV cache [|")
    });
    tmux(&["send-keys", "Tab"]).unwrap();
    wait_for("the ranks", Duration::from_secs(20), || {
        screen().contains("engine_core")
    });
    tmux(&["send-keys", "q"]).unwrap();
    wait_for("the end", Duration::from_secs(30), || {
        screen().contains("ended with 0")
    });
    let left = screen();
    tmux(&["kill-server"]).unwrap();
    assert!(!left.contains("Overview"), "{left}");
    for pid in stage.demo.tree() {
        assert_eq!(redirected(pid), 0, "process {pid}");
    }
}
