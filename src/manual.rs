//! `hartvm completions` and `hartvm man`: what shells and `man` know of the command line, made from its definition.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hartvm", &mut text);
    std::io::stdout().write_all(&text).context("cannot print the completions")
}

/// Writes a page for the program and for each of its commands.
pub(crate) fn man(directory: &Path) -> Result<()> {
    let name = || directory.display().to_string();
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {}", name()))?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
        .with_context(|| format!("cannot write manual pages to {}", name()))
}
