//! A hart in the hands of a debugger or a test, which runs it on its own thread. General registers and memory are reached
//! through [`jit::Hart`].

use jit::{Engine, Exit};
use softmmu::Privilege;

use super::Hart;

impl Hart {
    /// Runs until `done` says so, or the machine stops. It is asked whenever the hart has left the engine, and again when
    /// that made it take an interrupt; so after every trap, before the first instruction of the handler.
    pub fn run_until(&mut self, engine: &mut Engine, mut done: impl FnMut(&mut Self) -> bool) {
        self.shared.set_thread(std::thread::current());
        while !self.system.is_stopping() && !done(self) {
            if self.prepare(engine)
                && !done(self)
                && let Exit::Trap(trap) = engine.run(self)
            {
                self.take_exception(trap);
            }
        }
    }

    /// The privilege mode.
    pub fn privilege(&self) -> Privilege {
        self.state.privilege
    }

    /// Changes the privilege mode and nothing else.
    pub fn set_privilege(&mut self, privilege: Privilege) {
        self.state.privilege = privilege;
        self.sync_regime();
        self.interrupts_changed();
    }

    /// The value of a CSR as M-mode reads it; `None` where that would be an illegal instruction.
    pub fn csr(&mut self, number: u16) -> Option<u64> {
        self.as_machine(|hart| hart.csr_read(number))
    }

    /// Writes a CSR as `csrrw` in M-mode does. `None` where that would be an illegal instruction.
    pub fn set_csr(&mut self, number: u16, value: u64) -> Option<()> {
        self.as_machine(|hart| {
            let old = hart.csr_read(number)?;
            if super::csr::is_read_only(number) { None } else { hart.csr_write(number, old, value) }
        })
    }

    fn as_machine<T>(&mut self, access: impl FnOnce(&mut Self) -> T) -> T {
        let privilege = std::mem::replace(&mut self.state.privilege, Privilege::Machine);
        let result = access(self);
        self.state.privilege = privilege;
        self.sync_regime();
        result
    }
}
