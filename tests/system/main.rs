//! Privileged behaviour, instruction by instruction: what the Privileged ISA specification (version 1.13, cited by section
//! of its 20250508 edition) says of CSRs, traps, interrupts and protection, asked of a hart with short programs.

#[path = "../harness/mod.rs"]
mod harness;

mod bench;
mod counters;
mod csrs;
mod flash;
mod floating_point;
mod instructions;
mod interrupts;
mod memory;
mod paging;
mod traps;
mod whole_machine;
