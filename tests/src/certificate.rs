//! Certificates for what serves by TLS in a test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Puts a certificate for `names` (as in `IP:127.0.0.1,DNS:localhost`) into `folder`, as `crt`, and its key, which only
/// its owner can read, as `key`. It is its own authority.
pub fn issue(folder: &Path, names: &str) -> reqwest::Certificate {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"])
        .args(["-days", "1", "-subj", "/CN=profilemate"])
        .args(["-addext", &format!("subjectAltName={names}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key", "-out", "crt"])
        .current_dir(folder)
        .output()
        .expect("openssl");
    let words = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{words}");
    protect(&folder.join("key"));
    let pem = std::fs::read(folder.join("crt")).expect("the certificate");
    reqwest::Certificate::from_pem(&pem).expect("a certificate")
}

/// Puts a token into `folder`, as `token`, which only its owner can read.
pub fn token(folder: &Path, token: &str) {
    let file = folder.join("token");
    std::fs::write(&file, token).expect("a token");
    protect(&file);
}

fn protect(file: &Path) {
    let owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, owner).expect("permissions");
}
