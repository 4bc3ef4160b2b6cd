//! hartvm in the hands of a debugger: gdb-multiarch with scripts, and a client of its own that speaks the remote protocol, also
//! badly. Every test runs the program itself, with guests that are made here, on each engine.
//!
//! gdb-multiarch is needed (the Debian package of that name); without it the tests fail. `HARTVM_GDB_FUZZ_SECONDS` says how
//! long to send malformed packets (5 if unset), and `HARTVM_GDB_FUZZ_SEED` has other packets sent than always.

#[path = "../lockstep/assembly.rs"]
mod assembly;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../cli/support.rs"]
#[allow(dead_code, reason = "each test program uses its part of this")]
mod support;

mod breakpoints;
mod debugger;
mod fuzz;
mod guests;
mod life;
mod paging;
mod registers;
mod remote;
mod steps;
mod watchpoints;
