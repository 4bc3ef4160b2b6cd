//! RISC-V instructions to IR.
//!
//! The life of an instruction: [`insn`] and [`insn_c`] hold the tables of encodings. [`decode`] finds the row of some
//! bits (a compressed encoding becomes its base instruction there and is never heard of again). [`block`] decides which
//! instructions are in a block, and [`builder`] asks the one function per instruction in `lower` for its meaning, which it states as operations of [`ir`].
//! Every engine runs those operations. [`disasm`] and [`encode`] derive text and test programs from the same tables, and
//! [`csr_name`] is the one list of CSR numbers.

#![forbid(unsafe_code)]

pub mod block;
pub mod builder;
pub mod csr_name;
pub mod decode;
pub mod disasm;
pub mod encode;
pub mod insn;
pub mod insn_c;
pub mod ir;
pub mod isa;
mod lower;
pub mod operand;

pub use block::Block;
pub use decode::Decoder;
pub use insn::{Insn, Opcode};
pub use isa::{Extension, Isa};
