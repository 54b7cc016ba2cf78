//! `graft completions`: the script by which a shell completes graft's command line.
use crate::{Cli, ui::Ui};
use clap::CommandFactory as _;
use clap_complete::{Shell, generate};
use graft_ir::Result;

/// Print the completions for a shell
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "graft", &mut script);
        ui.out(&String::from_utf8_lossy(&script))
    }
}
