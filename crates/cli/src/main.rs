//! The binary `graft`: one file for each command; this one parses the command line and ends the process.
#![forbid(unsafe_code)]

mod command;
mod feeds;
mod memory;
mod model;
mod output;
mod progress;
mod sample;
mod settings;
mod spelled;
mod ui;

use clap::{CommandFactory, Parser};
use graft_ir::{Code, Error};
use std::process::ExitCode;
use ui::{Color, Ui};

/// Fine-tune the ONNX file you already have.
#[derive(Parser)]
#[command(
    name = "graft",
    version,
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// Say only what goes wrong.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more: what each pass did and did not do.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Whether to use colour.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
    #[command(subcommand)]
    command: command::Command,
}

fn main() -> ExitCode {
    let arguments = match settings::expand(std::env::args_os().collect(), &Cli::command()) {
        Ok(arguments) => arguments,
        Err(e) => return failed(&e, &Ui::new(false, false, Color::Auto)),
    };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) => return unparsed(&e),
    };
    let mut ui = Ui::new(cli.quiet, cli.verbose, cli.color);
    match cli.command.run(&mut ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e, &ui),
    }
}

/// Says what went wrong; its kind is the exit code.
fn failed(e: &Error, ui: &Ui) -> ExitCode {
    ui.error(e);
    ExitCode::from(e.code.kind as u8)
}

/// Help and version are results; everything else is a usage error, which clap words better than we could.
fn unparsed(e: &clap::Error) -> ExitCode {
    let ui = Ui::new(false, false, Color::Auto);
    let text = e.render().to_string();
    match text.strip_prefix("error: ") {
        Some(message) => ui.error(&usage(message.trim_end())),
        // Help keeps its colours.
        None => {
            if let Err(failure) = ui::written(e.print()) {
                ui.error(&failure);
                return ExitCode::from(failure.code.kind as u8);
            }
        }
    }
    ExitCode::from(e.exit_code() as u8)
}

/// A usage error, for what clap cannot check.
fn usage(message: impl Into<String>) -> Error {
    Error::new(Code::USAGE, message)
}
