//! Which pod and container a process is in: from its cgroup, from who is asked ([`super::names`], nobody unless the
//! configuration says so), the names of the kubelet's log files, its environment, and the namespace file of its service
//! account.
//!
//! A container decides about its own environment and files, so what it says is taken for names only (letters, digits,
//! dots, hyphens), and its files are opened so that no link leads out of it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Bytes of an environment that are read.
const ENVIRONMENT: u64 = 256 << 10;
/// Entries of a folder that are looked at.
const ENTRIES: usize = 20_000;

/// Where a process is. Empty: not in one, or not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Container, by its name in the pod if that is known, else by the first twelve digits of its id.
    pub container: String,
    /// Id of the container, 64 digits.
    pub container_id: String,
    /// Uid of the pod.
    pub pod_uid: String,
}

impl Identity {
    /// What the cgroup of the process `pid` tells.
    pub fn of(pid: u32) -> Self {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Self::of_cgroup(&cgroup)
    }

    /// Completes it by what the process itself and the node's files tell; `log_folder` is where the kubelet keeps its
    /// logs, if it may be looked at.
    pub fn complete(&mut self, pid: u32, log_folder: Option<&Path>) {
        if let Some(folder) =
            log_folder.filter(|_| self.pod.is_empty() || self.container.is_empty())
        {
            self.look_into_logs(folder);
        }
        let in_cluster = !self.pod_uid.is_empty() || has_variable(pid, "KUBERNETES_SERVICE_HOST");
        if in_cluster && self.pod.is_empty() {
            self.pod = ["POD_NAME", "HOSTNAME"]
                .iter()
                .find_map(|name| variable(pid, name).filter(|value| is_name(value)))
                .unwrap_or_default();
        }
        if in_cluster && self.namespace.is_empty() {
            let said = variable(pid, "POD_NAMESPACE").filter(|value| is_name(value));
            self.namespace = said.or_else(|| service_account(pid)).unwrap_or_default();
        }
        if self.container.is_empty() {
            self.container = self.container_id.chars().take(12).collect();
        }
    }

    /// What a text of `/proc/PID/cgroup` tells.
    pub fn of_cgroup(text: &str) -> Self {
        let mut found = Self::default();
        for segment in text.lines().flat_map(|line| line.split('/')) {
            let bare = segment
                .trim_end_matches(".scope")
                .trim_end_matches(".slice");
            if let Some(uid) = bare.rsplit_once("pod").map(|(_, uid)| uid) {
                let uid = uid.replace('_', "-");
                let digits = uid.bytes().filter(|byte| *byte != b'-');
                if (uid.len() == 36 || uid.len() == 32) && digits.clone().all(is_hex) {
                    found.pod_uid = uid;
                    continue;
                }
            }
            // `cri-containerd-<id>`, `docker-<id>`, `crio-<id>`, `libpod-<id>`, or the id alone.
            let id = bare.rsplit_once(['-', ':']).map_or(bare, |(_, id)| id);
            if id.len() == 64 && id.bytes().all(is_hex) {
                id.clone_into(&mut found.container_id);
            }
        }
        found
    }

    /// The kubelet links each container's log as `<pod>_<namespace>_<container>-<id>.log`, and has a folder
    /// `<namespace>_<pod>_<uid>` for each pod.
    fn look_into_logs(&mut self, folder: &Path) {
        let names = |folder: &str, path: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(path.join(folder)).into_iter().flatten();
            entries
                .take(ENTRIES)
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect()
        };
        if !self.container_id.is_empty() {
            let end = format!("-{}.log", self.container_id);
            let all = names("containers", folder);
            if let Some(name) = all.iter().find_map(|name| name.strip_suffix(&end)) {
                let parts: Vec<&str> = name.split('_').collect();
                if let [pod, namespace, container] = parts[..] {
                    self.take(pod, namespace);
                    container.clone_into(&mut self.container);
                    return;
                }
            }
        }
        if !self.pod_uid.is_empty() {
            for name in names("pods", folder) {
                let parts: Vec<&str> = name.split('_').collect();
                if let [namespace, pod, uid] = parts[..]
                    && uid == self.pod_uid
                {
                    self.take(pod, namespace);
                    return;
                }
            }
        }
    }

    fn take(&mut self, pod: &str, namespace: &str) {
        pod.clone_into(&mut self.pod);
        namespace.clone_into(&mut self.namespace);
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// Whether a text can be the name of a pod or namespace.
pub(super) fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

/// The environment of a process as it was started.
fn environment(pid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/environ")) {
        // What was read until an error is looked at.
        let _partly = file.take(ENVIRONMENT).read_to_end(&mut bytes);
    }
    bytes
}

fn variable(pid: u32, name: &str) -> Option<String> {
    let all = environment(pid);
    let value = all.split(|byte| *byte == 0).find_map(|entry| {
        entry
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
    })?;
    String::from_utf8(value.to_vec()).ok()
}

fn has_variable(pid: u32, name: &str) -> bool {
    variable(pid, name).is_some()
}

/// Whether the environment of a process has one of these `NAME=VALUE`.
pub fn has_one_of(pid: u32, wanted: &[String]) -> bool {
    let all = environment(pid);
    all.split(|byte| *byte == 0)
        .any(|entry| wanted.iter().any(|wanted| wanted.as_bytes() == entry))
}

/// The namespace that the service account of a process' pod is of.
fn service_account(pid: u32) -> Option<String> {
    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    // No link leads out of the container, and a pipe does not make us wait.
    let file = rustix::fs::openat2(
        &root,
        "var/run/secrets/kubernetes.io/serviceaccount/namespace",
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .ok()?;
    let file = File::from(file);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|name| is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "6fbc6e5c-1f2d-4b5a-9c3e-0123456789ab";

    #[test]
    fn cgroups_of_every_runtime_tell_pod_and_container() {
        let slice = UID.replace('-', "_");
        for text in [
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{ID}.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{slice}.slice/crio-{ID}.scope"),
            format!("0::/kubepods/besteffort/pod{UID}/{ID}"),
            format!("11:memory:/kubepods/burstable/pod{UID}/{ID}\n0::/\n"),
            format!("0::/../../kubepods-pod{slice}.slice:cri-containerd:{ID}/pod{UID}"),
        ] {
            let found = Identity::of_cgroup(&text);
            assert_eq!(found.container_id, ID, "{text}");
            assert_eq!(found.pod_uid, UID, "{text}");
        }
        let docker = Identity::of_cgroup(&format!("0::/system.slice/docker-{ID}.scope"));
        assert_eq!(
            (docker.container_id.as_str(), docker.pod_uid.as_str()),
            (ID, "")
        );
        for text in [
            "0::/user.slice/user-0.slice/session-1.scope",
            "0::/",
            "",
            "0::/podman/pod",
        ] {
            assert_eq!(Identity::of_cgroup(text), Identity::default(), "{text}");
        }
    }

    #[test]
    fn the_kubelets_log_names_tell_pod_namespace_and_container() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("containers")).unwrap();
        std::fs::create_dir_all(folder.path().join(format!("pods/ml_server-1_{UID}"))).unwrap();
        let log = format!("containers/server-0_prod_vllm-{ID}.log");
        std::fs::write(folder.path().join(log), "").unwrap();
        let mut by_id = Identity {
            container_id: ID.into(),
            pod_uid: UID.into(),
            ..Identity::default()
        };
        let mut by_uid = Identity {
            pod_uid: UID.into(),
            ..Identity::default()
        };
        by_id.look_into_logs(folder.path());
        by_uid.look_into_logs(folder.path());
        let names = |found: &Identity| {
            (
                found.pod.clone(),
                found.namespace.clone(),
                found.container.clone(),
            )
        };
        assert_eq!(
            names(&by_id),
            ("server-0".into(), "prod".into(), "vllm".into())
        );
        assert_eq!(
            names(&by_uid),
            ("server-1".into(), "ml".into(), String::new())
        );
    }

    #[test]
    fn a_process_says_its_pod_by_its_environment_and_nothing_but_names_is_taken() {
        let start = |host: &str| {
            std::process::Command::new("sleep")
                .arg("30")
                .env_clear()
                .envs([("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", host)])
                .env("POD_NAMESPACE", "prod")
                .env("PATH", "/usr/bin:/bin")
                .spawn()
                .unwrap()
        };
        for (host, pod) in [("vllm-7c9f-x2", "vllm-7c9f-x2"), ("a\nb", ""), ("A B", "")] {
            let mut child = start(host);
            // The environment is the new program's only once that has been started.
            let started = std::time::Instant::now();
            while !has_variable(child.id(), "POD_NAMESPACE") && started.elapsed().as_secs() < 10 {
                std::thread::yield_now();
            }
            let mut found = Identity::of(child.id());
            found.complete(child.id(), None);
            let marked = has_one_of(child.id(), &["POD_NAMESPACE=prod".to_owned()]);
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(
                (found.pod.as_str(), found.namespace.as_str()),
                (pod, "prod")
            );
            assert!(marked);
        }
    }
}
