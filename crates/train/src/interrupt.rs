//! SIGINT: the first asks the loop to finish its step and save, the second ends the process at once.
use graft_ir::{Code, Error, Kind, Result};
use signal_hook::{SigId, consts::SIGINT, flag, low_level::unregister};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// While this lives, SIGINT sets a flag instead of ending the process.
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    handlers: Vec<SigId>,
}

impl Interrupt {
    /// Installs the handlers. They run in order: the shutdown sees the flag that an *earlier* signal has set.
    ///
    /// # Errors
    /// [`Code::IO`] where they cannot be installed.
    pub fn new() -> Result<Interrupt> {
        let failed = |e| Error::new(Code::IO, format!("SIGINT cannot be watched: {e}"));
        let asked = Arc::new(AtomicBool::new(false));
        let exit = flag::register_conditional_shutdown(SIGINT, Kind::Interrupted as i32, asked.clone());
        let mut interrupt = Interrupt { handlers: vec![exit.map_err(failed)?], asked };
        interrupt.handlers.push(flag::register(SIGINT, interrupt.asked.clone()).map_err(failed)?);
        Ok(interrupt)
    }
    /// Whether SIGINT came.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.handlers.drain(..).for_each(|id| _ = unregister(id));
    }
}
