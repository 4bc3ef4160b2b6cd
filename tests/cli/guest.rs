//! Guest programs in machine mode, made by hand: a flat binary that is loaded at the start of RAM and entered there.

use frontend::Opcode;
use frontend::encode::{Operands, encode};

/// Start of RAM, where a program runs.
pub(crate) const RAM: u64 = 0x8000_0000;
/// The UART's transmit and receive register.
pub(crate) const UART: u64 = 0x1000_0000;
/// Line status of the UART.
const UART_LSR: u64 = UART + 5;
/// The test finisher.
const FINISHER: u64 = 0x10_0000;

/// Values for the finisher.
pub(crate) const PASS: u32 = 0x5555;
pub(crate) const FAIL: u32 = 0x3333;
pub(crate) const RESET: u32 = 0x7777;

/// Registers that the methods of [`Program`] use for themselves.
const T0: u8 = 5;
const T1: u8 = 6;
/// Return address, stack.
pub(crate) const RA: u8 = 1;
pub(crate) const SP: u8 = 2;
/// Registers that programs may keep values in.
pub(crate) const S0: u8 = 8;
pub(crate) const S1: u8 = 9;
pub(crate) const S2: u8 = 18;

/// A place in a program that has been passed.
#[derive(Clone, Copy)]
pub(crate) struct Here(usize);

impl Here {
    pub(crate) fn address(self) -> u64 {
        RAM + 4 * self.0 as u64
    }
}

/// A branch whose target is not known yet.
pub(crate) struct Forward {
    at: usize,
    op: Opcode,
    operands: Operands,
}

/// A program under construction.
#[derive(Default)]
pub(crate) struct Program {
    words: Vec<u32>,
    data: Vec<(u64, Vec<u8>)>,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn insn(&mut self, op: Opcode, operands: Operands) -> &mut Self {
        self.words.push(encode(op, &operands).unwrap_or_else(|| panic!("{op:?} {operands:?}")));
        self
    }

    /// Puts contents at an address behind the code.
    pub(crate) fn data(&mut self, address: u64, bytes: &[u8]) -> &mut Self {
        self.data.push((address, bytes.to_vec()));
        self
    }

    /// The whole program.
    pub(crate) fn binary(&self) -> Vec<u8> {
        let mut binary: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let code = binary.len();
        for (address, bytes) in &self.data {
            let start = (address - RAM) as usize;
            assert!(start >= code, "data at {address:#x} is over {code:#x} bytes of code");
            binary.resize(binary.len().max(start + bytes.len()), 0);
            binary[start..start + bytes.len()].copy_from_slice(bytes);
        }
        binary
    }

    pub(crate) fn here(&self) -> Here {
        Here(self.words.len())
    }

    /// `rd` = a constant of 32 bits, zero-extended.
    pub(crate) fn li(&mut self, rd: u8, value: u64) -> &mut Self {
        let value = u32::try_from(value).expect("constants have 32 bits");
        let low = i64::from(value as i32) << 52 >> 52;
        let high = (i64::from(value as i32) - low) as i32;
        self.insn(Opcode::Lui, Operands { rd, imm: i64::from(high), ..Operands::default() });
        self.insn(Opcode::Addiw, Operands { rd, rs1: rd, imm: low, ..Operands::default() });
        for op in [Opcode::Slli, Opcode::Srli] {
            self.insn(op, Operands { rd, rs1: rd, imm: 32, ..Operands::default() });
        }
        self
    }

    /// `rd` = `rs1` + a small number.
    pub(crate) fn addi(&mut self, rd: u8, rs1: u8, imm: i64) -> &mut Self {
        self.insn(Opcode::Addi, Operands { rd, rs1, imm, ..Operands::default() })
    }

    /// Loads from a constant address: `op` is one of the load instructions.
    pub(crate) fn load(&mut self, op: Opcode, rd: u8, address: u64) -> &mut Self {
        self.li(T0, address).insn(op, Operands { rd, rs1: T0, ..Operands::default() })
    }

    /// Stores a register at a constant address: `op` is one of the store instructions.
    pub(crate) fn store(&mut self, op: Opcode, rs2: u8, address: u64) -> &mut Self {
        self.li(T0, address).insn(op, Operands { rs1: T0, rs2, ..Operands::default() })
    }

    /// Stores a 32-bit constant.
    pub(crate) fn poke(&mut self, address: u64, value: u32) -> &mut Self {
        self.li(T1, value.into()).store(Opcode::Sw, T1, address)
    }

    /// Branches back to `to`: `op` is one of the branch instructions.
    pub(crate) fn branch(&mut self, op: Opcode, rs1: u8, rs2: u8, to: Here) -> &mut Self {
        let imm = (to.0 as i64 - self.words.len() as i64) * 4;
        self.insn(op, Operands { rs1, rs2, imm, ..Operands::default() })
    }

    /// Branches forward, to where [`land`](Self::land) is called.
    pub(crate) fn branch_forward(&mut self, op: Opcode, rs1: u8, rs2: u8) -> Forward {
        let operands = Operands { rs1, rs2, ..Operands::default() };
        self.words.push(0);
        Forward { at: self.words.len() - 1, op, operands }
    }

    pub(crate) fn land(&mut self, forward: Forward) -> &mut Self {
        let imm = (self.words.len() - forward.at) as i64 * 4;
        self.words[forward.at] =
            encode(forward.op, &Operands { imm, ..forward.operands }).expect("the target is near");
        self
    }

    pub(crate) fn jump(&mut self, to: Here) -> &mut Self {
        self.branch(Opcode::Beq, 0, 0, to)
    }

    /// Calls the function at `to`.
    pub(crate) fn call(&mut self, to: Here) -> &mut Self {
        let imm = (to.0 as i64 - self.words.len() as i64) * 4;
        self.insn(Opcode::Jal, Operands { rd: RA, imm, ..Operands::default() })
    }

    /// Returns from a function.
    pub(crate) fn ret(&mut self) -> &mut Self {
        self.insn(Opcode::Jalr, Operands { rs1: RA, ..Operands::default() })
    }

    /// Stops here, without using the host.
    pub(crate) fn halt(&mut self) -> &mut Self {
        let top = self.here();
        self.insn(Opcode::Wfi, Operands::default()).jump(top)
    }

    /// Prints text on the UART.
    pub(crate) fn print(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            self.li(T1, byte.into()).store(Opcode::Sb, T1, UART);
        }
        self
    }

    /// Writes to the test finisher, and goes on.
    pub(crate) fn finish(&mut self, value: u32) -> &mut Self {
        self.poke(FINISHER, value)
    }

    /// Ends the machine with an exit code, and halts.
    pub(crate) fn exit(&mut self, code: u16) -> &mut Self {
        self.finish(if code == 0 { PASS } else { FAIL | u32::from(code) << 16 }).halt()
    }

    /// Ends the machine with the exit code in `rs`, which is not 0, and halts.
    pub(crate) fn exit_with(&mut self, rs: u8) -> &mut Self {
        self.insn(Opcode::Slli, Operands { rd: T1, rs1: rs, imm: 16, ..Operands::default() });
        self.li(T0, FAIL.into());
        self.insn(Opcode::Or, Operands { rd: T1, rs1: T1, rs2: T0, ..Operands::default() });
        self.store(Opcode::Sw, T1, FINISHER).halt()
    }

    /// Waits for a byte on the UART, which another thread of the host's brings.
    pub(crate) fn read_byte(&mut self, rd: u8) -> &mut Self {
        let top = self.here();
        self.insn(Opcode::Pause, Operands::default()).load(Opcode::Lbu, rd, UART_LSR);
        self.insn(Opcode::Andi, Operands { rd, rs1: rd, imm: 1, ..Operands::default() });
        self.branch(Opcode::Beq, rd, 0, top);
        self.load(Opcode::Lbu, rd, UART)
    }
}

/// Prints `text` and sleeps for ever.
pub(crate) fn sleeper(text: &str) -> Vec<u8> {
    Program::new().print(text).halt().binary()
}

/// Prints `text` and exits.
pub(crate) fn greeter(text: &str, code: u16) -> Vec<u8> {
    Program::new().print(text).exit(code).binary()
}

/// Prints `>` and then every byte it reads, until that is a `q`.
pub(crate) fn echo() -> Vec<u8> {
    let mut program = Program::new();
    program.print(">");
    let top = program.here();
    program.read_byte(S0).store(Opcode::Sb, S0, UART).li(S1, b'q'.into());
    program.branch(Opcode::Bne, S0, S1, top).exit(0).binary()
}

/// Prints `bytes` bytes as fast as it can, and exits.
pub(crate) fn chatterbox(bytes: u64, code: u16) -> Vec<u8> {
    let mut program = Program::new();
    program.li(S0, bytes).li(S1, UART).li(S2, b'.'.into());
    let top = program.here();
    program.insn(Opcode::Sb, Operands { rs1: S1, rs2: S2, ..Operands::default() });
    program.addi(S0, S0, -1).branch(Opcode::Bne, S0, 0, top).exit(code).binary()
}
