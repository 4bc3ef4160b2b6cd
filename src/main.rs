//! The `hartvm` program: flags to configuration, configuration to machine, and the exit code.

mod cli;
mod commas;
mod config;
mod disasm;
mod disk_image;
mod images;
mod instance;
mod manual;
mod place;
mod qemu;
mod run;
mod seed;
mod ssh;
mod terminal;
mod test;
mod uefi;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// Exit status for a wrong command line.
const USAGE: u8 = 2;
/// Exit status for anything else that failed on the host's side.
const FAILURE: u8 = 1;

/// A mistake on the command line that only shows once its parts are looked at together.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    // A raw terminal does not return the carriage at the end of a line.
    let line_end = if std::io::stderr().is_terminal() { "\r\n" } else { "\n" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .format_target(false)
        .format_suffix(line_end)
        .init();
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    // QEMU's options are not of the form that clap reads.
    let for_qemu = match arguments.split_first() {
        _ if qemu::is_qemu(&name) => Some(&arguments[..]),
        Some((first, rest)) if first == "qemu" => Some(rest),
        _ => None,
    };
    let result = match for_qemu {
        Some(arguments) => qemu::qemu(arguments),
        None => command(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal::restore();
            eprintln!("hartvm: {error:#}");
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILURE })
        }
    }
}

fn command() -> anyhow::Result<u8> {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Ssh(args) => ssh::ssh(&args),
        Command::Test(args) => test::test(&args).map(|passed| u8::from(!passed)),
        Command::Qemu { arguments } => qemu::qemu(&arguments),
        Command::Completions { shell } => manual::completions(shell).map(|()| 0),
        Command::Man { directory } => manual::man(&directory).map(|()| 0),
        Command::Disasm(args) => disasm::disasm(&args).map(|()| 0),
        Command::Image(command) => images::run(&command),
    }
}
