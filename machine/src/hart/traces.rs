//! What a hart tells the trace.

use std::sync::Arc;

use firmware::sbi::Outcome;
use frontend::csr_name;
use frontend::ir::CsrAccess;
use jit::inspect::Inspect;
use jit::inspect::trace::{Category, Place, Trace, Value};
use softmmu::{Fault, MmuWatcher, Privilege, Walk, cause};

use super::Hart;

/// The trace, for each category that is wanted.
pub(super) struct Traces {
    pub(super) int: Option<Arc<Trace>>,
    pub(super) csr: Option<Arc<Trace>>,
    pub(super) sbi: Option<Arc<Trace>>,
    mmu: Option<Arc<Trace>>,
}

impl Traces {
    pub(super) fn new(inspect: &Inspect) -> Self {
        let trace = |category| inspect.trace(&[category]);
        Self {
            int: trace(Category::Int),
            csr: trace(Category::Csr),
            sbi: trace(Category::Sbi),
            mmu: trace(Category::Mmu),
        }
    }

    /// What the MMU of hart `hart` tells.
    pub(super) fn mmu_watcher(&self, hart: usize) -> Option<Box<dyn MmuWatcher>> {
        let trace = Arc::clone(self.mmu.as_ref()?);
        Some(Box::new(Watcher { trace, hart }))
    }
}

struct Watcher {
    trace: Arc<Trace>,
    hart: usize,
}

impl MmuWatcher for Watcher {
    fn walked(&self, walk: &Walk) {
        let Walk { va, access, privilege, found } = *walk;
        let place = Place { hart: self.hart, mode: privilege, address: va };
        let access = format!("{access:?}").to_lowercase();
        let fields = match found {
            Ok((pte, level, pa)) => {
                vec![("pa", Value::Hex(pa)), ("level", Value::Number(level.into())), ("pte", Value::Hex(pte))]
            }
            Err(Fault::Page) => vec![("fault", Value::Text(&"page"))],
            Err(Fault::Access) => vec![("fault", Value::Text(&"access"))],
        };
        self.trace.event(Category::Mmu, Some(&place), &format_args!("walk for {access}"), &fields);
    }

    fn fenced(&self, mode: Privilege, va: Option<u64>, asid: Option<u16>) {
        let place = Place { hart: self.hart, mode, address: va.unwrap_or(0) };
        let mut fields = Vec::new();
        fields.extend(asid.map(|asid| ("asid", Value::Number(asid.into()))));
        let name = if va.is_some() { "fence of a page" } else { "fence of all pages" };
        self.trace.event(Category::Mmu, Some(&place), &name, &fields);
    }
}

impl Hart {
    /// Where the hart is.
    fn place(&self, trace: &Trace) -> Place {
        trace.note_trap_vector(self.csr.stvec);
        Place { hart: self.id, mode: self.state.privilege, address: self.state.pc }
    }

    /// A trap is about to be taken.
    pub(super) fn trace_trap(&self, cause: u64, tval: u64, to: Privilege) {
        if let Some(trace) = &self.traces.int {
            let fields = [
                ("cause", Value::Hex(cause)),
                ("tval", Value::Hex(tval)),
                ("to", Value::Text(&crate::profile::mode_name(to))),
            ];
            trace.trap(&self.place(trace), cause_name(cause), &fields);
        }
    }

    /// The instruction `name` at page offset `at` is about to return from a trap.
    pub(super) fn trace_return(&self, name: &str, at: u16, to: Privilege, pc: u64) {
        if let Some(trace) = &self.traces.int {
            let place = Place { address: self.state.page.wrapping_add(at.into()), ..self.place(trace) };
            let mode = crate::profile::mode_name(to);
            trace.trap_return(&place, name, &[("to", Value::Text(&mode)), ("pc", Value::Code(pc))]);
        }
    }

    /// The instruction at page offset `at` has accessed a CSR.
    pub(super) fn trace_csr(&mut self, at: u16, mode: Privilege, number: u16, access: CsrAccess, old: u64) {
        let Some(trace) = self.traces.csr.clone() else { return };
        let new = if access == CsrAccess::Read { None } else { self.csr_read(number) };
        let address = self.state.page.wrapping_add(at.into());
        let place = Place { address, mode, ..self.place(&trace) };
        let name = csr_name::name(number).unwrap_or_else(|| format!("{number:#x}"));
        let mut fields = vec![("old", Value::Hex(old))];
        fields.extend(new.map(|new| ("new", Value::Hex(new))));
        let verb = match access {
            CsrAccess::Write => "write",
            CsrAccess::Set => "set",
            CsrAccess::Clear => "clear",
            CsrAccess::Read => "read",
        };
        trace.event(Category::Csr, Some(&place), &format_args!("{verb} {name}"), &fields);
    }

    /// The built-in SBI has answered the call that `registers`, a0 to a7, make; `pc` is past it.
    pub(super) fn trace_sbi(&self, registers: &[u64; 8], outcome: &Outcome) {
        let Some(trace) = &self.traces.sbi else { return };
        let place = Place { address: self.state.pc.wrapping_sub(4), ..self.place(trace) };
        let name = firmware::sbi::call_name(registers[7], registers[6]);
        let names = ["a0", "a1", "a2", "a3", "a4", "a5"];
        let mut fields: Vec<_> =
            names.into_iter().zip(registers).map(|(name, &value)| (name, Value::Hex(value))).collect();
        let (error, other);
        match outcome {
            Outcome::Return { error: code, value } => {
                error = *code;
                fields.extend([("error", Value::Text(&error)), ("value", Value::Hex(*value))]);
            }
            _ => {
                other = format!("{outcome:x?}");
                fields.push(("answer", Value::Text(&other)));
            }
        }
        trace.event(Category::Sbi, Some(&place), &name, &fields);
    }
}

fn cause_name(cause: u64) -> &'static str {
    match cause {
        cause::INSTRUCTION_MISALIGNED => "instruction misaligned",
        cause::INSTRUCTION_ACCESS_FAULT => "instruction access fault",
        cause::ILLEGAL_INSTRUCTION => "illegal instruction",
        cause::BREAKPOINT => "breakpoint",
        cause::LOAD_MISALIGNED => "load misaligned",
        cause::LOAD_ACCESS_FAULT => "load access fault",
        cause::STORE_MISALIGNED => "store misaligned",
        cause::STORE_ACCESS_FAULT => "store access fault",
        cause::ECALL_U => "ecall from U",
        cause::ECALL_S => "ecall from S",
        cause::ECALL_M => "ecall from M",
        cause::INSTRUCTION_PAGE_FAULT => "instruction page fault",
        cause::LOAD_PAGE_FAULT => "load page fault",
        cause::STORE_PAGE_FAULT => "store page fault",
        _ if cause & super::trap::INTERRUPT == 0 => "exception",
        _ => match cause & !super::trap::INTERRUPT {
            1 | 3 => "software interrupt",
            5 | 7 => "timer interrupt",
            9 | 11 => "external interrupt",
            _ => "interrupt",
        },
    }
}
