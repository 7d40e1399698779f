//! `keyway completions` and `keyway man`: what a shell and `man` know of the command line.

use std::process::ExitCode;

use clap::{Command, ValueEnum};
use clap_complete::{generate, shells};

use super::say;

/// Shells that can be told.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Prints a script that completes the command line.
pub(crate) fn completions(shell: Shell, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    let into = &mut script;
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, "keyway", into),
        Shell::Zsh => generate(shells::Zsh, &mut command, "keyway", into),
        Shell::Fish => generate(shells::Fish, &mut command, "keyway", into),
    }
    say(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Prints the man page, with a section for each command.
pub(crate) fn man(command: Command) -> ExitCode {
    let mut page = Vec::new();
    match write_man(&command, &mut page) {
        Ok(()) => {
            say(&String::from_utf8_lossy(&page));
            ExitCode::SUCCESS
        }
        Err(error) => crate::cli::mistake(&error),
    }
}

fn write_man(command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        let name = format!("keyway {}", sub.get_name());
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let mut heading = clap_mangen::roff::Roff::new();
        heading.control("SH", [name.to_uppercase().as_str()]);
        heading.text([clap_mangen::roff::roman(about)]);
        heading.to_writer(page)?;
        let sub = clap_mangen::Man::new(sub.clone().bin_name(name));
        sub.render_options_section(page)?;
    }
    man.render_version_section(page)
}
