//! The commands: `COMMANDS` lists them, one file each, with its arguments and its `run`.
use crate::ui::Ui;
use graft_ir::Result;

/// Declares the modules, the subcommand enum that clap parses, and the dispatch.
macro_rules! commands {
    ($($module:ident $variant:ident;)*) => {
        $(mod $module;)*

        /// What to do.
        #[derive(clap::Subcommand)]
        pub(crate) enum Command {
            $(#[allow(missing_docs, reason = "clap takes the text from the arguments' own documentation")]
            $variant($module::Args),)*
        }

        impl Command {
            /// Runs the command.
            pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
                match self {
                    $(Command::$variant(args) => args.run(ui),)*
                }
            }
        }
    };
}

commands! {
    bench Bench;
    caps Caps;
    compare Compare;
    completions Completions;
    convert Convert;
    demo Demo;
    diff Diff;
    doctor Doctor;
    explain Explain;
    export Export;
    extract Extract;
    inject Inject;
    inspect Inspect;
    man Man;
    merge Merge;
    methods Methods;
    opt Opt;
    render Render;
    run Run;
    targets Targets;
    train Train;
    unmerge Unmerge;
    verify Verify;
}
