//! The `hartvm` program: flags to configuration, configuration to machine, and the exit code.

mod cli;
mod disasm;
mod disk_image;
mod run;
mod terminal;
mod test;

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
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::test(&args).map(|passed| u8::from(!passed)),
        Command::Disasm(args) => disasm::disasm(&args).map(|()| 0),
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
