//! `completions` and `man`: what a package installs beside the binary, made from the command line's own declaration.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::args::Cli;
use super::exit::{Exit, Failure};

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The command; without it, the page of `profilemate` itself.
    pub page: Option<String>,
}

/// Prints a completion script.
pub(super) fn completions(options: &Completions) -> Exit {
    let mut command = Cli::command();
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut command, "profilemate", &mut text);
    print(&text)
}

/// Prints a manual page.
pub(super) fn man(options: &Man) -> Result<Exit, Failure> {
    Ok(print(&page(options.page.as_deref())?))
}

fn page(name: Option<&str>) -> Result<Vec<u8>, Failure> {
    let mut command = Cli::command();
    command.build();
    let wanted = match name {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::new(Exit::Usage, anyhow::anyhow!("there is no command `{name}`"))
                .hint("`profilemate --help` lists the commands")
        })?,
    };
    let title = name.map_or_else(
        || "profilemate".to_owned(),
        |name| format!("profilemate-{name}"),
    );
    let examples = wanted.get_after_help().map(ToString::to_string);
    let has_commands = name.is_none();
    let page = clap_mangen::Man::new(wanted)
        .title(title.to_uppercase())
        .source(concat!("profilemate ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    render(
        &page,
        has_commands,
        &examples.unwrap_or_default(),
        &mut text,
    )
    .map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(text)
}

/// The page, with the examples set line by line: the library would fill them into a paragraph.
fn render(
    page: &clap_mangen::Man,
    has_commands: bool,
    examples: &str,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    if has_commands {
        page.render_subcommands_section(out)?;
    }
    let lines: String = examples
        .lines()
        .filter(|line| *line != "Examples:")
        .map(|line| line.to_owned() + "\n")
        .collect();
    if !lines.is_empty() {
        // `\&` keeps a leading dot or quote from being a request.
        let escaped = lines.replace('\\', "\\e").replace('-', "\\-");
        let escaped: Vec<String> = escaped.lines().map(|line| format!("\\&{line}")).collect();
        write!(out, ".SH EXAMPLES\n.nf\n{}\n.fi\n", escaped.join("\n"))?;
    }
    Ok(())
}

/// A closed pipe is no error.
fn print(text: &[u8]) -> Exit {
    let _closed = std::io::stdout().write_all(text);
    Exit::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let names: Vec<String> = Cli::command()
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect();
        assert!(names.len() > 4, "{names:?}");
        for name in names {
            let text = String::from_utf8(page(Some(&name)).unwrap()).unwrap();
            assert!(
                text.contains(".TH PROFILEMATE") && text.contains(".SH OPTIONS"),
                "{name}: {text}"
            );
        }
        let trace = String::from_utf8(page(Some("trace")).unwrap()).unwrap();
        assert!(trace.contains("\\-\\-dry\\-run"), "{trace}");
        assert!(
            trace.contains("\n\\&  sudo profilemate trace \\-\\-pid 4711"),
            "{trace}"
        );
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        assert!(
            page(Some("nothing"))
                .unwrap_err()
                .to_string()
                .contains("nothing")
        );
    }
}
