//! Two machines that run the same programs, and how they are compared.

use std::fmt::Write;

use frontend::Opcode;
use frontend::csr_name::number as csr;
use jit::{Engine, EngineKind, Hart as _};
use machine::Machine;
use machine::hart::Hart;
use softmmu::{Privilege, Reservation, cause};

use crate::harness::{self, asm};
use crate::layout::{self, HANDLER, LOG, PAGE, SAVE, STOP, TABLES, pte};
use crate::program::Program;
use crate::random::Random;

/// Traps after which a program is given up.
const TRAPS: u64 = 100;

/// Control and status registers that must be equal.
const CSRS: [u16; 14] = [
    csr::MCAUSE,
    csr::MEPC,
    csr::MTVAL,
    csr::MINSTRET,
    csr::MSTATUS,
    csr::MSCRATCH,
    csr::MTVEC,
    csr::MIP,
    csr::SCAUSE,
    csr::SEPC,
    csr::STVAL,
    csr::SSCRATCH,
    csr::SATP,
    csr::FCSR,
];

/// Offsets in the handler's page of saved registers.
mod save {
    pub(super) const T5: i64 = 0;
    pub(super) const T4: i64 = 8;
    pub(super) const T3: i64 = 16;
    pub(super) const LOG: i64 = 24;
    pub(super) const END: i64 = 32;
    pub(super) const LEFT: i64 = 40;
    pub(super) const STOP: i64 = 48;
}

struct Side {
    machine: Machine,
    hart: Hart,
    engine: Engine,
}

/// The two machines: interpreted and translated.
pub(crate) struct Pair {
    sides: [Side; 2],
}

/// A handler in M-mode that logs each trap and skips the instruction. It ends the program, by a trap to [`STOP`], where the
/// program ends, when nothing can be fetched, and when there were too many.
fn handler() -> Vec<u32> {
    use Opcode::{Addi, Andi, Beq, Bne, Csrrc, Csrrs, Ld, Lhu, Sd};
    const T3: u8 = 28;
    const T4: u8 = 29;
    const T5: u8 = 30;
    const T6: u8 = 31;
    let mscratch = asm::csrrw(T6, csr::MSCRATCH, T6);
    let mprv_mxr = 0xa_0000;
    let mut code = vec![
        mscratch,
        asm::s(Sd, T5, T6, save::T5),
        asm::s(Sd, T4, T6, save::T4),
        asm::s(Sd, T3, T6, save::T3),
        asm::i(Ld, T3, T6, save::LOG),
    ];
    for (n, number) in [csr::MCAUSE, csr::MTVAL, csr::MINSTRET, csr::MEPC].into_iter().enumerate() {
        code.extend([asm::csrr(T5, number), asm::s(Sd, T5, T3, 8 * n as i64)]);
    }
    code.extend([
        asm::i(Addi, T3, T3, 32),
        asm::s(Sd, T3, T6, save::LOG),
        asm::i(Ld, T4, T6, save::LEFT),
        asm::i(Addi, T4, T4, -1),
        asm::s(Sd, T4, T6, save::LEFT),
    ]);
    // Branches to the end of the program, patched below.
    let mut ends = Vec::new();
    let mut end_if = |code: &mut Vec<u32>, op, a, b| {
        ends.push((code.len(), op, a, b));
        code.push(0);
    };
    end_if(&mut code, Beq, T4, 0);
    code.push(asm::i(Ld, T4, T6, save::END));
    end_if(&mut code, Beq, T4, T5);
    code.push(asm::csrr(T4, csr::MCAUSE));
    end_if(&mut code, Beq, T4, 0);
    for cause in [cause::INSTRUCTION_ACCESS_FAULT, cause::INSTRUCTION_PAGE_FAULT] {
        code.push(asm::li(T3, cause as i64));
        end_if(&mut code, Beq, T4, T3);
    }
    code.extend([
        asm::lui(T3, mprv_mxr),
        asm::i(Csrrs, 0, T3, csr::MSTATUS.into()),
        asm::i(Lhu, T4, T5, 0),
        asm::i(Csrrc, 0, T3, csr::MSTATUS.into()),
        asm::i(Andi, T4, T4, 3),
        asm::li(T3, 3),
        asm::i(Addi, T5, T5, 2),
        asm::s(Bne, T4, T3, 8),
        asm::i(Addi, T5, T5, 2),
        asm::csrw(csr::MEPC, T5),
    ]);
    let restore =
        [asm::i(Ld, T5, T6, save::T5), asm::i(Ld, T4, T6, save::T4), asm::i(Ld, T3, T6, save::T3), mscratch];
    code.extend(restore);
    code.push(asm::bare(Opcode::Mret));
    for (index, op, a, b) in ends {
        code[index] = asm::s(op, b, a, 4 * (code.len() - index) as i64);
    }
    code.extend([asm::i(Ld, T4, T6, save::STOP), asm::csrw(csr::MTVEC, T4)]);
    code.extend(restore);
    code.push(asm::bare(Opcode::Ebreak));
    code
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Side {
    fn new(name: &str, kind: EngineKind) -> Self {
        let (machine, mut hart, engine) = harness::hart("max", &format!("lockstep-{name}-{kind:?}"), kind);
        for (number, value) in [(csr::PMPADDR0, (1 << 54) - 1), (csr::PMPCFG0, 0x1f)] {
            hart.set_csr(number, value).expect("the CSR is there");
        }
        Self { machine, hart, engine }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.machine.memory().write(address, bytes).expect("RAM");
    }

    fn write_u64(&self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    fn set(&mut self, number: u16, value: u64) {
        self.hart.set_csr(number, value).unwrap_or_else(|| panic!("CSR {number:#x} cannot be written"));
    }

    fn tables(&self, program: &Program) {
        let user = if program.mode == Privilege::User { pte::U } else { 0 };
        let ad = pte::A | pte::D;
        let page = |n: u64| TABLES + n * PAGE;
        self.write(TABLES, &vec![0; (layout::TABLE_PAGES * PAGE) as usize]);
        self.write_u64(page(0) + (program.gigabyte() >> 30 & 511) * 8, pte::leaf(page(1), 0));
        for (n, va) in [layout::CODE_VA, layout::DATA_VA, layout::ALIAS_VA].into_iter().enumerate() {
            self.write_u64(page(1) + (va >> 21) * 8, pte::leaf(page(2 + n as u64), 0));
        }
        let data = pte::R | pte::W | ad | user;
        self.write_u64(page(1) + (layout::SUPER_VA >> 21) * 8, pte::leaf(layout::DATA, data));
        for n in 0..layout::CODE_PAGES {
            let code = pte::leaf(layout::CODE + n * PAGE, data | pte::X);
            self.write_u64(page(2) + n * 8, code);
            self.write_u64(page(4) + n * 8, pte::leaf(layout::CODE + n * PAGE, data));
        }
        for (n, (&number, &bits)) in program.data_pages.iter().zip(&program.data_bits).enumerate() {
            let entry = if bits == 0 { 0 } else { pte::leaf(layout::DATA + number * PAGE, bits) };
            self.write_u64(page(3) + n as u64 * 8, entry);
        }
        for n in 0..layout::TABLE_PAGES {
            let slot = page(4) + ((layout::TABLES_VA - layout::ALIAS_VA) / PAGE + n) * 8;
            self.write_u64(slot, pte::leaf(page(n), pte::R | pte::W | ad));
        }
    }

    fn load(&mut self, program: &Program) {
        let mut data = Random::new(program.data_seed);
        for (start, pages) in layout::WRITABLE {
            let fill: Vec<u8> = if start == layout::DATA {
                (0..pages * PAGE / 8).flat_map(|_| data.float().to_le_bytes()).collect()
            } else {
                0x9002_u16.to_le_bytes().repeat((pages * PAGE / 2) as usize)
            };
            self.write(start, &fill);
        }
        let [code, other] = program.code();
        let offset = program.code_offset(program.entry()).expect("the entry is in the code");
        self.write(layout::CODE + offset, &code);
        self.write(layout::OTHER_CODE + offset, &other);
        self.write(HANDLER, &bytes(&handler()));
        self.tables(program);
        for (offset, value) in
            [(save::LOG, LOG), (save::END, program.end()), (save::LEFT, TRAPS), (save::STOP, STOP)]
        {
            self.write_u64(SAVE + offset as u64, value);
        }

        self.set(csr::MTVEC, if program.handler { HANDLER } else { STOP });
        self.set(csr::MSCRATCH, SAVE);
        self.set(csr::SATP, if program.mode == Privilege::Machine { 0 } else { 8 << 60 | TABLES >> 12 });
        for number in [csr::SSCRATCH, csr::SCAUSE, csr::SEPC, csr::STVAL, csr::MINSTRET] {
            self.set(number, 0);
        }
        let counters = if program.counters { 7 } else { 0 };
        for (number, value) in [
            (csr::MCOUNTEREN, counters),
            (csr::SCOUNTEREN, counters),
            (csr::MENVCFG, !(1 << 62)),
            (csr::SENVCFG, u64::MAX),
        ] {
            self.set(number, value);
        }
        self.set(csr::MSTATUS, program.mstatus);
        let state = self.hart.state();
        state.x[..32].copy_from_slice(&program.x);
        state.f = program.f;
        state.fflags = program.fflags;
        state.frm = program.frm;
        state.pc = program.entry();
        state.reservation = Reservation::default();
        self.hart.set_privilege(program.mode);
        self.hart.mmu().sfence_vma(None, None);
        self.engine.fence_i(self.hart.mmu());
    }

    /// Runs until a trap leads to [`STOP`].
    fn run(&mut self) {
        self.hart.run_until(&mut self.engine, |hart| hart.state().pc == STOP);
    }

    fn get(&mut self, number: u16) -> u64 {
        self.hart.csr(number).unwrap_or(0xdead)
    }

    fn memory(&self, start: u64, pages: u64) -> Vec<u8> {
        let mut memory = vec![0; (pages * PAGE) as usize];
        self.machine.memory().read(start, &mut memory).expect("RAM");
        memory
    }
}

impl Pair {
    /// `translating` is the engine that is compared with the interpreter.
    pub(crate) fn new(name: &str, translating: EngineKind) -> Self {
        Self { sides: [EngineKind::Interp, translating].map(|kind| Side::new(name, kind)) }
    }

    /// Runs a program on both machines. Says how they differ, if they do.
    pub(crate) fn run(&mut self, program: &Program) -> Result<(), String> {
        self.sides.iter_mut().for_each(|side| side.load(program));
        for trap in 0..=TRAPS {
            self.sides.iter_mut().for_each(Side::run);
            let at = || format!("at trap {trap}");
            self.compare_registers().map_err(|difference| format!("{}: {difference}", at()))?;
            let side = &mut self.sides[0];
            let (cause, epc) = (side.get(csr::MCAUSE), side.get(csr::MEPC));
            let fetches =
                [0, cause::INSTRUCTION_ACCESS_FAULT, cause::INSTRUCTION_PAGE_FAULT].contains(&cause);
            if program.handler || fetches || epc == program.end() || trap == TRAPS {
                break;
            }
            self.skip(program, epc);
        }
        self.compare_memory()
    }

    /// Goes on after the instruction that trapped.
    fn skip(&mut self, program: &Program, epc: u64) {
        let offset =
            program.code_offset(epc).unwrap_or_else(|| panic!("a trap at {epc:#x}, outside the code"));
        for side in &mut self.sides {
            // Both versions of the code have the same lengths.
            let low = side.memory(layout::CODE, layout::CODE_PAGES)[offset as usize];
            side.hart.state().pc = epc + if low & 3 == 3 { 4 } else { 2 };
            side.hart.set_privilege(program.mode);
        }
    }

    fn compare_registers(&mut self) -> Result<(), String> {
        let mut text = String::new();
        let mut compare = |name: &str, [interpreted, translated]: [u64; 2]| {
            if interpreted != translated {
                let _ = write!(text, " {name}: interpreted {interpreted:#x}, translated {translated:#x};");
            }
        };
        let [interpreted, translated] = &mut self.sides;
        compare("privilege", [interpreted.hart.privilege() as u64, translated.hart.privilege() as u64]);
        for number in CSRS {
            compare(&format!("CSR {number:#x}"), [interpreted.get(number), translated.get(number)]);
        }
        let [a, b] = [interpreted.hart.state(), translated.hart.state()];
        for n in 0..32 {
            compare(&format!("x{n}"), [a.x[n], b.x[n]]);
            compare(&format!("f{n}"), [a.f[n], b.f[n]]);
        }
        compare("pc", [a.pc, b.pc]);
        compare("mstatus", [a.mstatus, b.mstatus]);
        compare("fflags", [a.fflags.into(), b.fflags.into()]);
        compare("frm", [a.frm.into(), b.frm.into()]);
        compare("instret", [a.instret, b.instret]);
        if text.is_empty() { Ok(()) } else { Err(format!("mepc {:#x};{text}", interpreted.get(csr::MEPC))) }
    }

    fn compare_memory(&self) -> Result<(), String> {
        for (start, pages) in layout::WRITABLE {
            let [a, b] = [&self.sides[0], &self.sides[1]].map(|side| side.memory(start, pages));
            if let Some(at) = (0..a.len()).find(|&at| a[at] != b[at]) {
                let address = start + at as u64;
                return Err(format!("byte {address:#x}: interpreted {:#x}, translated {:#x}", a[at], b[at]));
            }
        }
        Ok(())
    }
}
