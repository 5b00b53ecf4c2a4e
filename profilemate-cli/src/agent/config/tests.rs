//! The configuration: what is taken, and what is refused with which words.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    let config = Config::parse(text, Path::new("agent.toml"))?;
    config.check()?;
    Ok(config)
}

#[test]
fn the_reference_is_the_default_and_has_every_key() {
    assert_eq!(parse(REFERENCE).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    let mut sections = SECTIONS.iter().peekable();
    let mut found = std::collections::BTreeSet::new();
    let mut section = "";
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let line = line.trim_start_matches("# ");
        if let Some((key, _)) = line.split_once(" = ") {
            found.insert((section, key));
        }
    }
    assert!(sections.peek().is_some());
    for (section, keys) in sections {
        for key in *keys {
            assert!(
                found.contains(&(*section, *key)),
                "`{key}` of [{section}] is not in the reference"
            );
        }
    }
}

#[test]
fn the_documentation_holds_the_reference() {
    let page = include_str!("../../../../docs/agent.md");
    assert!(
        page.contains(REFERENCE),
        "docs/agent.md must hold reference.toml as it is"
    );
}

#[test]
fn unknown_keys_and_sections_are_refused_with_a_hint() {
    for (text, hint) in [
        (
            "[agent]\nlisen = \"127.0.0.1:1\"\n",
            "did you mean `listen`?",
        ),
        ("[tracing]\nenabled = true\n", "did you mean `[traces]`?"),
        ("[otlp]\nxyzzy = 1\n", "there are endpoint"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(matches!(error, Error::Parse { .. }), "{error}");
        assert!(error.hint().contains(hint), "{}", error.hint());
    }
}

#[test]
fn what_is_not_safe_is_refused() {
    let open = "[agent]\nlisten = \"0.0.0.0:9464\"\n";
    let tls = "[tls]\ncert_file = \"a\"\nkey_file = \"b\"\n";
    let auth = "[auth]\ntoken_file = \"c\"\n";
    for text in [
        open.to_owned(),
        format!("{open}{tls}"),
        format!("{open}{auth}"),
        "[agent]\nlisten = \"[::]:9464\"\n".to_owned(),
        "[tls]\ncert_file = \"a\"\n".to_owned(),
        "[traces]\nenabled = true\n".to_owned(),
        "[otlp]\nendpoint = \"http://collector:4317\"\n".to_owned(),
        "[otlp]\nendpoint = \"https://me:secret@collector:4317\"\n".to_owned(),
        "[otlp]\nendpoint = \"collector:4317\"\n".to_owned(),
        "[identity]\ncri_socket = \"containerd.sock\"\n".to_owned(),
        "[identity]\nkubelet = \"http://node:10255\"\n".to_owned(),
        "[identity]\nkubelet = \"https://me:secret@node:10250\"\n".to_owned(),
        "[identity]\nkubelet = \"http://127.0.0.1:10255\"\nkubelet_token_file = \"t\"\n".to_owned(),
        "[identity]\nkubelet_token_file = \"t\"\n".to_owned(),
        "[identity]\ntimeout = \"1m\"\n".to_owned(),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{text}: {error}");
    }
    for text in [
        format!("{open}{tls}{auth}"),
        "[agent]\nlisten = \"[::1]:9464\"\n".to_owned(),
        format!("[traces]\nenabled = true\n{auth}"),
        "[otlp]\nendpoint = \"http://[::1]:4317\"\n".to_owned(),
        "[otlp]\nendpoint = \"http://collector:4317\"\ninsecure = true\n".to_owned(),
        "[otlp]\nendpoint = \"https://collector:4317\"\n".to_owned(),
        "[identity]\ncri_socket = \"/run/crio/crio.sock\"\n".to_owned(),
        "[identity]\nkubelet = \"http://localhost:10255\"\n".to_owned(),
        "[identity]\nkubelet = \"https://node:10250\"\nkubelet_token_file = \"t\"\n".to_owned(),
    ] {
        parse(&text).unwrap();
    }
}

#[test]
fn values_out_of_their_range_are_refused() {
    for text in [
        "[probes]\ntables = []\n",
        "[probes]\ntables = [\"nothing\"]\n",
        "[probes]\nring_size = \"3M\"\n",
        "[servers]\nwith_environment = [\"NAME\"]\n",
        "[findings]\nwindow = \"9s\"\n",
        "[findings]\nwindow = \"2h\"\n",
        "[otlp]\nsample = 1.5\n",
        "[otlp]\nprotocol = \"udp\"\n",
        "[agent]\ninterval = \"1ms\"\n",
        "[agent]\ninterval = \"soon\"\n",
        "[traces]\nmax_size = \"much\"\n",
        "[traces]\nmax_age = \"0d\"\n",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    let config = parse("[traces]\nmax_age = \"2d\"\nmax_size = \"3K\"\n").unwrap();
    assert_eq!(config.traces.max_age, Duration::seconds(2 * 86_400));
    assert_eq!(config.traces.max_size, Size(3 << 10));
}
