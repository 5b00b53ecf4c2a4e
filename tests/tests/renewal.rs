//! Certificate, key and token of a running agent are renewed: it is told nothing, and serves on.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, binary, certificate, root, wait_for};

/// How long something may take on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// Puts a new certificate for loopback into a folder, with its key and a token.
fn issue(folder: &Path, token: &str) -> reqwest::Certificate {
    certificate::token(folder, token);
    certificate::issue(folder, "IP:127.0.0.1")
}

/// The status of an agent's answer to who trusts `authority` only; `None` where there is no connection.
fn status(url: &str, authority: &reqwest::Certificate, token: &str) -> Option<u16> {
    let client = reqwest::blocking::Client::builder()
        .tls_certs_only([authority.clone()])
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client");
    let body = "{\"duration\": \"1s\"}";
    let answer = client.post(url).bearer_auth(token).body(body).send();
    Some(answer.ok()?.status().as_u16())
}

#[test]
fn a_renewed_certificate_and_token_hold_without_a_restart_and_one_that_everybody_can_read_does_not()
{
    if !root() {
        return;
    }
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [first, second, third] = ["1", "2", "3"].map(|digit| digit.repeat(32));
    let before = issue(folder.path(), &first);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let text = format!(
        "[agent]\nlisten = \"{address}\"\nstate_folder = \"{}\"\ninterval = \"300ms\"\n\
         [servers]\nwith_environment = [\"PROFILEMATE_NODE={}\"]\n\
         [tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n[auth]\ntoken_file = \"{}\"\n\
         [traces]\nenabled = true\nfolder = \"{}\"\n",
        path("state"),
        path("nobody"),
        path("crt"),
        path("key"),
        path("token"),
        path("traces"),
    );
    std::fs::write(path("agent.toml"), text).expect("a configuration");
    let log = std::fs::File::create(path("agent.log")).expect("a log");
    let mut agent = Guard::start(
        Command::new(binary())
            .args(["agent", "--config", &path("agent.toml")])
            .stdout(Stdio::null())
            .stderr(log),
    );
    let said = || std::fs::read_to_string(path("agent.log")).unwrap_or_default();
    // 404: the token is right, and there is no server to trace.
    let url = format!("https://{address}/trace");
    wait_for("the agent", LIMIT, || {
        status(&url, &before, &first) == Some(404)
    });

    let after = issue(folder.path(), &second);
    wait_for("the renewed certificate and token", LIMIT, || {
        status(&url, &after, &second) == Some(404)
    });
    assert_eq!(status(&url, &after, &first), Some(401), "{}", said());
    assert_eq!(status(&url, &before, &second), None, "{}", said());

    let refusals = || said().matches("renewed files are not taken").count();
    let so_far = refusals();
    let all = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path("token"), all).expect("permissions");
    std::fs::write(path("token"), &third).expect("a token");
    wait_for("the refusal", LIMIT, || refusals() > so_far);
    assert_eq!(status(&url, &after, &second), Some(404), "{}", said());
    assert_eq!(status(&url, &after, &third), Some(401), "{}", said());
    let said = said();
    assert!(
        ![first, second, third].iter().any(|one| said.contains(one)),
        "{said}"
    );
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.wait(LIMIT), 0, "{said}");
}
