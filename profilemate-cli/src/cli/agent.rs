//! `agent`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Exit, Failure};
use super::print;
use crate::agent::{self, Source, config::REFERENCE};

/// The configuration that is read where none is given, if it is there.
const DEFAULT: &str = "/etc/profilemate/agent.toml";

/// Options of `agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Configuration, TOML (docs/agent.md). SIGHUP reads it again [default: /etc/profilemate/agent.toml, if it is there]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to serve on, instead of the configuration's.
    #[arg(short, long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Read the configuration and the files that it names, say what is wrong, and do nothing more.
    #[arg(long)]
    pub check: bool,
    /// Print every key of the configuration with its default.
    #[arg(long)]
    pub print_config: bool,
}

/// Keeps every vLLM server of this node attached, and serves their metrics.
pub(super) fn agent(options: &Agent) -> Result<Exit, Failure> {
    if options.print_config {
        print::data(REFERENCE.trim_end());
        return Ok(Exit::Done);
    }
    let default = Path::new(DEFAULT);
    let source = Source {
        path: options
            .config
            .clone()
            .or_else(|| default.exists().then(|| default.to_owned())),
        listen: options.listen,
    };
    if options.check {
        source.load()?;
        print::note("the configuration is good");
        return Ok(Exit::Done);
    }
    agent::run(&source)?;
    Ok(Exit::Done)
}
