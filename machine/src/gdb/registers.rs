//! Registers: their numbers, the target description that tells gdb of them, and how they are read and written.
//!
//! Numbers are gdb's own for RISC-V: 0 to 31 x, 32 pc, 33 to 64 f, 65 on the CSRs by their number, then the privilege mode.
//! `g` carries the first 33; all others are read one by one.

use std::num::NonZeroUsize;

use frontend::csr_name;
use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::Tid;
use gdbstub::target::ext::base::single_register_access::SingleRegisterAccess;
use gdbstub::target::ext::target_description_xml_override::TargetDescriptionXmlOverride;
use gdbstub::target::{TargetError, TargetResult};
use jit::Hart as _;
use softmmu::Privilege;

use super::target::{Guest, hart_of};
use crate::hart::Hart;
use csr_name::number as name;

const PC: usize = 32;
const F0: usize = 33;
const CSR0: usize = 65;
const PRIVILEGE: usize = CSR0 + 0x1000;

/// ABI names (psABI, "Register Convention").
const X_NAMES: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];
const F_NAMES: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8",
    "ft9", "ft10", "ft11",
];

/// RV64 as gdbstub wants to know it. The description is not static: it depends on the CPU model.
#[derive(Debug)]
pub(crate) enum Rv64 {}

impl Arch for Rv64 {
    type Usize = u64;
    type Registers = General;
    type BreakpointKind = usize;
    type RegId = Register;
}

/// What `g` and `G` carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct General {
    x: [u64; 32],
    pc: u64,
}

impl General {
    /// Bytes of all of them.
    pub(super) const SIZE: usize = 33 * 8;
}

impl Registers for General {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let values = self.x.iter().chain([&self.pc]);
        values.flat_map(|value| value.to_le_bytes()).for_each(|byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        if bytes.len() != Self::SIZE {
            return Err(());
        }
        let (values, _) = bytes.as_chunks::<8>();
        for (place, value) in self.x.iter_mut().chain([&mut self.pc]).zip(values) {
            *place = u64::from_le_bytes(*value);
        }
        Ok(())
    }
}

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    X(usize),
    Pc,
    F(usize),
    Csr(u16),
    Privilege,
}

impl RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let register = match id {
            0..PC => Register::X(id),
            PC => Register::Pc,
            F0..CSR0 => Register::F(id - F0),
            CSR0..PRIVILEGE => Register::Csr((id - CSR0) as u16),
            PRIVILEGE => Register::Privilege,
            _ => return None,
        };
        Some((register, NonZeroUsize::new(8)))
    }
}

/// The value of a register, if the hart has it.
fn read(hart: &mut Hart, register: Register) -> Option<u64> {
    Some(match register {
        Register::X(index) => hart.state().x[index],
        Register::Pc => hart.state().pc,
        Register::F(index) => {
            if !hart.has_float() {
                return None;
            }
            hart.state().f[index]
        }
        Register::Csr(number) => return hart.csr_for_debugger(number),
        Register::Privilege => hart.privilege() as u64,
    })
}

/// Writes a register as far as the value is legal; `None` if the hart does not have it, or it is read-only.
fn write(hart: &mut Hart, register: Register, value: u64) -> Option<()> {
    match register {
        Register::X(0) => {}
        Register::X(index) => hart.state().x[index] = value,
        Register::Pc => hart.set_pc(value),
        Register::F(index) => {
            if !hart.has_float() {
                return None;
            }
            hart.state().f[index] = value;
        }
        Register::Csr(number) => return hart.set_csr_for_debugger(number, value),
        Register::Privilege => hart.set_privilege(match value {
            0 => Privilege::User,
            1 => Privilege::Supervisor,
            3 => Privilege::Machine,
            _ => return None,
        }),
    }
    Some(())
}

/// `g`
pub(super) fn read_general(hart: &mut Hart) -> General {
    let state = hart.state();
    General { x: std::array::from_fn(|index| state.x[index]), pc: state.pc }
}

/// `G`
pub(super) fn write_general(hart: &mut Hart, general: &General) {
    for (index, value) in general.x.into_iter().enumerate() {
        write(hart, Register::X(index), value);
    }
    // Written back unchanged, it must not take the hart out of WFI.
    if hart.state().pc != general.pc {
        hart.set_pc(general.pc);
    }
}

impl SingleRegisterAccess<Tid> for Guest {
    fn read_register(&mut self, tid: Tid, register: Register, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let value =
            self.ask(hart_of(tid), move |hart, _| read(hart, register))?.ok_or(TargetError::NonFatal)?;
        buf.get_mut(..8).ok_or(TargetError::NonFatal)?.copy_from_slice(&value.to_le_bytes());
        Ok(8)
    }

    fn write_register(&mut self, tid: Tid, register: Register, value: &[u8]) -> TargetResult<(), Self> {
        let value = u64::from_le_bytes(value.try_into().map_err(|_| TargetError::NonFatal)?);
        self.ask(hart_of(tid), move |hart, _| write(hart, register, value))?.ok_or(TargetError::NonFatal)
    }
}

/// The integer and floating-point registers by name.
pub(super) fn named_general(hart: &mut Hart) -> Vec<(String, u64)> {
    let float = if hart.has_float() { &F_NAMES[..] } else { &[] };
    let state = hart.state();
    let integer = X_NAMES.iter().zip(state.x).map(|(name, value)| ((*name).to_string(), value));
    let float = float.iter().zip(state.f).map(|(name, value)| ((*name).to_string(), value));
    integer.chain(float).collect()
}

/// The value of a register that holds addresses, or of a CSR, if the hart has one of this name.
pub(super) fn by_name(hart: &mut Hart, name: &str) -> Option<u64> {
    let integer = || X_NAMES.iter().position(|known| *known == name).map(Register::X);
    let csr = || csr_name::all().find(|(_, known)| known == name).map(|(number, _)| Register::Csr(number));
    let pc = (name == "pc").then_some(Register::Pc);
    read(hart, pc.or_else(integer).or_else(csr)?)
}

/// The CSRs that a hart has, by number and name.
pub(super) fn csrs(hart: &mut Hart) -> Vec<(u16, String)> {
    csr_name::all().filter(|&(number, _)| hart.csr_for_debugger(number).is_some()).collect()
}

/// The target description of harts like this one.
pub(super) fn description(hart: &mut Hart) -> String {
    const CSR_GROUP: &str = " save-restore=\"no\" group=\"csr\"";

    let csrs = csrs(hart);
    let (float, others): (Vec<_>, Vec<_>) =
        csrs.iter().partition(|(number, _)| [name::FFLAGS, name::FRM, name::FCSR].contains(number));
    let csr_number = |number: u16| CSR0 + usize::from(number);

    // As for a program of Linux, gdb would not step into traps: it puts breakpoints where it thinks a step leads.
    let mut xml = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n\
         <architecture>riscv:rv64</architecture>\n<osabi>none</osabi>\n<feature name=\"org.gnu.gdb.riscv.cpu\">\n",
    );
    for (number, name) in X_NAMES.iter().enumerate() {
        let kind = match number {
            1 => "code_ptr",
            2..=4 | 8 => "data_ptr",
            _ => "int",
        };
        element(&mut xml, name, kind, number, "");
    }
    element(&mut xml, "pc", "code_ptr", PC, "");
    xml += "</feature>\n";
    // gdb refuses programs for the lp64d ABI without this feature.
    if hart.has_float() {
        xml += "<feature name=\"org.gnu.gdb.riscv.fpu\">\n<union id=\"riscv_double\">\n\
                <field name=\"float\" type=\"ieee_single\"/>\n<field name=\"double\" type=\"ieee_double\"/>\n</union>\n";
        for (index, name) in F_NAMES.iter().enumerate() {
            element(&mut xml, name, "riscv_double", F0 + index, "");
        }
        for (number, name) in float {
            element(&mut xml, name, "int", csr_number(*number), "");
        }
        xml += "</feature>\n";
    }
    xml += "<feature name=\"org.gnu.gdb.riscv.csr\">\n";
    for (number, name) in others {
        element(&mut xml, name, "int", csr_number(*number), CSR_GROUP);
    }
    xml += "</feature>\n<feature name=\"org.gnu.gdb.riscv.virtual\">\n";
    element(&mut xml, "priv", "int", PRIVILEGE, "");
    xml += "</feature>\n</target>\n";
    xml
}

fn element(xml: &mut String, name: &str, kind: &str, number: usize, more: &str) {
    *xml += &format!("<reg name=\"{name}\" bitsize=\"64\" type=\"{kind}\" regnum=\"{number}\"{more}/>\n");
}

/// The part of a document that gdb asks for.
pub(super) fn excerpt(text: &str, offset: u64, length: usize, buf: &mut [u8]) -> usize {
    let rest =
        usize::try_from(offset).ok().and_then(|offset| text.as_bytes().get(offset..)).unwrap_or_default();
    let count = rest.len().min(length).min(buf.len());
    buf[..count].copy_from_slice(&rest[..count]);
    count
}

impl TargetDescriptionXmlOverride for Guest {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        match annex {
            b"target.xml" => Ok(excerpt(&self.description, offset, length, buf)),
            _ => Err(TargetError::NonFatal),
        }
    }
}
