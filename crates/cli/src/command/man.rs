//! `graft man`: the manual pages, in roff.
use crate::{Cli, ui::Ui, usage};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use graft_ir::{Code, Error, Result, error::nearest};

/// Print a manual page (`graft man train | man -l -`)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The command that the page is about; graft itself by default
    command: Option<String>,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let mut graft = Cli::command();
        // Only a built command knows the flags that all commands share.
        graft.build();
        let about = match &self.command {
            Some(name) => find(&graft, name)?.clone(),
            None => graft,
        };
        let mut page = Vec::new();
        let failed = |e| Error::new(Code::IO, format!("the page cannot be rendered: {e}"));
        Man::new(about).render(&mut page).map_err(failed)?;
        ui.out(&String::from_utf8_lossy(&page))
    }
}

fn find<'a>(graft: &'a Command, name: &str) -> Result<&'a Command> {
    let unknown = || {
        let near = nearest(name, graft.get_subcommands().map(Command::get_name)).join("`, `");
        usage(format!("there is no command `{name}`")).help(format!("nearest: `{near}`"))
    };
    graft.find_subcommand(name).ok_or_else(unknown)
}
