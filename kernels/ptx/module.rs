//! Modules: PTX texts, parsed and decoded.
use crate::{
    decode::{Statics, decode},
    launch::Kernel,
    memory::Allocation,
    run::windows,
    syntax::parse,
};
use std::{fmt, sync::Arc};

/// What is not understood in a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong with it.
    pub what: String,
}

impl Error {
    pub(crate) fn new(line: u32, what: impl Into<String>) -> Error {
        Error { line, what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Error {}

/// A module: its kernels.
pub struct Module {
    kernels: Vec<Kernel>,
}

impl Module {
    /// Parses and decodes a text.
    ///
    /// # Errors
    /// What is not understood, and where: nothing is passed over silently.
    pub fn parse(ptx: &str) -> Result<Module, Error> {
        let tree = parse(ptx)?;
        let statics = Statics::new(tree.variables);
        let image = Arc::new(Allocation::constant(windows::STATICS, &statics.image));
        let kernel = |entry| {
            let program = Arc::new(decode(entry, &statics)?);
            Ok(Kernel { program, statics: image.clone() })
        };
        Ok(Module { kernels: tree.entries.iter().map(kernel).collect::<Result<_, Error>>()? })
    }
    /// The kernel with this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name() == name)
    }
    /// All kernels.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }
}
